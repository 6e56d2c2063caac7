"""Two models that answer for every token: token classification, and extractive questions.

Names and shapes are Hugging Face's, so each saved folder loads there with equal logits, and theirs here. Neither head
is more than one matrix: what the encoder's last layer knows of a token is all that it is judged by.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from roberta_core.errors import BadInput
from roberta_core.model.folder import read_config, read_weights
from roberta_core.model.heads import Headed, numbered


class RobertaForTokenClassification(Headed):
    """The encoder with a label for each token; its configuration has `id2label`."""

    architecture = "RobertaForTokenClassification"
    head = "classifier"

    def add_head(self) -> None:
        """Dropout and one matrix."""
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)
        self.classifier = nn.Linear(self.config.hidden_size, self.config.num_labels)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of every token, [B, L, labels]."""
        return self.classifier(self.dropout(hidden))

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        id2label: Mapping[int, str] | None = None,
        dropout: float | None = None,
        seed: int = 0,
    ) -> "RobertaForTokenClassification":
        """Loads a token classifier; or, with `id2label`, an encoder, which then gets a fresh head drawn from `seed`.

        Args:
            folder: a Hugging Face folder of a RoBERTa or BERT.
            id2label: names of the labels of the fresh head; None: the folder has a head.
            dropout: on hidden states and attention; None keeps the folder's.

        Raises:
            BadInput: as for the masked-language model, or no head and no `id2label`.
        """
        folder = Path(folder)
        config, weights = read_config(folder), read_weights(folder)
        # the reader gives a BERT's head the name that it has in a sequence classifier
        weights = {name.replace("classifier.out_proj.", "classifier."): each for name, each in weights.items()}
        if id2label is not None:
            weights = {name: each for name, each in weights.items() if not name.startswith("classifier.")}
            config = replace(config, id2label=dict(id2label), problem_type=None)
        elif "classifier.weight" not in weights or "classifier.dense.weight" in weights:
            raise BadInput(f"{folder} holds no token classifier.", "Give the folder of one, or fine-tune an encoder.")
        elif not config.id2label:  # transformers leaves out the default names of two labels
            config = replace(config, id2label=numbered(len(weights["classifier.weight"])))
        return cls.of_weights(config, weights, folder, id2label is not None, dropout, seed)


class RobertaForQuestionAnswering(Headed):
    """The encoder with two scores for each token: that the answer starts there, and that it ends there.

    Its configuration has no labels: the head has two outputs always.
    """

    architecture = "RobertaForQuestionAnswering"
    head = "qa_outputs"

    def add_head(self) -> None:
        """One matrix."""
        self.qa_outputs = nn.Linear(self.config.hidden_size, 2)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, fresh: bool = False, dropout: float | None = None, seed: int = 0
    ) -> "RobertaForQuestionAnswering":
        """Loads a model that answers questions; or, with `fresh`, an encoder, which gets a head drawn from `seed`.

        Args:
            folder: a Hugging Face folder of a RoBERTa or BERT.
            dropout: on hidden states and attention; None keeps the folder's.

        Raises:
            BadInput: as for the masked-language model, or no head where none is to be drawn.
        """
        folder = Path(folder)
        config, weights = read_config(folder), read_weights(folder)
        if fresh:
            weights = {name: each for name, each in weights.items() if not name.startswith("qa_outputs.")}
        elif "qa_outputs.weight" not in weights:
            raise BadInput(f"{folder} answers no questions.", "Give the folder of a question model, or fine-tune one.")
        config = replace(config, id2label={}, problem_type=None)
        return cls.of_weights(config, weights, folder, fresh, dropout, seed)
