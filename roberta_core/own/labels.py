"""Objectives on a whole text, beside the engine's own: several labels at once, and a number on the user's scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from roberta_core.finetune.objectives import ANumber, Batch, Objective
from roberta_core.finetune.recipe import Recipe
from roberta_core.model import RobertaForSequenceClassification

THRESHOLD = 0.5
"""A label is given where its probability is above this: where transformers' pipelines and most papers have it."""


@dataclass(frozen=True)
class MultiLabel(Objective):
    """Any number of labels a row, none too: a yes or no for each, learned by binary cross-entropy.

    Labels are tuples of ids. Outputs are probabilities, [labels], which do not sum to 1.

    Attributes:
        names: the labels' names, in the order of their ids.
    """

    names: tuple[str, ...]

    def build(self, encoder: Path, recipe: Recipe, seed: int) -> RobertaForSequenceClassification:
        """A classifier that transformers knows as `multi_label_classification`."""
        return RobertaForSequenceClassification.from_pretrained(
            encoder,
            num_labels=len(self.names),
            problem_type="multi_label_classification",
            id2label=dict(enumerate(self.names)),
            dropout=recipe.dropout,
            seed=seed,
        )

    def target(self, labels: Sequence[Sequence[int]], length: int) -> torch.Tensor:
        """Float32 [B, labels] of zeros and ones."""
        result = torch.zeros(len(labels), len(self.names))
        for row, each in enumerate(labels):
            result[row, list(each)] = 1.0
        return result

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Mean binary cross-entropy over rows and labels, in nats."""
        return F.binary_cross_entropy_with_logits(model(batch.input_ids, batch.mask, batch.types), batch.target)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """[B, labels]."""
        return model(batch.input_ids, batch.mask, batch.types).double().sigmoid().cpu().numpy()


@dataclass(frozen=True)
class Number(ANumber):
    """A number a row, on any scale: squared error of (label - mean) / spread, so that one learning rate fits all scales.

    `finish` moves mean and spread into the last layer: the saved model gives the user's own numbers, here and in transformers.

    Attributes:
        mean: of the training labels.
        spread: their standard deviation, above 0.
    """

    mean: float
    spread: float

    def target(self, labels: Sequence[float], length: int) -> torch.Tensor:
        """Float32 [B], in spreads from the mean."""
        return ((torch.tensor(labels, dtype=torch.float64) - self.mean) / self.spread).float()

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """[B, 1], on the user's scale."""
        logits = model(batch.input_ids, batch.mask, batch.types).double()
        return (logits * self.spread + self.mean).cpu().numpy()

    def finish(self, model: RobertaForSequenceClassification) -> None:
        """Makes the model's logits the user's own numbers, up to rounding. Call it once, before the model is saved."""
        last = model.classifier.out_proj
        with torch.no_grad():
            last.weight.copy_(last.weight.double() * self.spread)
            last.bias.copy_(last.bias.double() * self.spread + self.mean)
