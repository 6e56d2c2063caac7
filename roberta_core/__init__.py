"""How the work is done: a plain library on torch, pyarrow, tokenizers, safetensors and numpy.

Nothing here imports Prefect, DVC or MLflow, so that pretraining runs on a bare GPU node.
"""
