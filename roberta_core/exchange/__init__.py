"""Models and tokenizers of other projects, brought into the folders that everything here reads.

Apart from `roberta_core.model`, which is a dependency of the stages that train: an edit here trains nothing anew.
"""
