"""What a kind of task asks of the engine: a model, a batch, a loss, and outputs a row.

The loop and `predict` know nothing else of a task. A new kind is a subclass that says how its model is built from an
encoder, how labels become a tensor, the loss, and what one row's output is; what a score is, the caller knows.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from roberta_core.errors import BadParams
from roberta_core.finetune.recipe import Recipe
from roberta_core.finetune.rows import Rows, pad_rows
from roberta_core.model import RobertaForSequenceClassification


class Batch(NamedTuple):
    """Rows side by side.

    Attributes:
        input_ids: int64 [B, L].
        mask: bool [B, L], true at tokens; None where no row is padded.
        types: int64 [B, L] of BERT's pairs, or None.
        target: what the objective's `target` made; None where labels are not known.
    """

    input_ids: torch.Tensor
    mask: torch.Tensor | None
    types: torch.Tensor | None
    target: Any


@dataclass(frozen=True)
class Objective(ABC):
    """A kind of task.

    A model that `build` gives has the encoder as `.roberta`, a `.config` and `save_pretrained`; everything else in it is
    its head.

    Attributes:
        task: the task's name, for messages.
    """

    task: str

    @abstractmethod
    def build(self, encoder: Path, recipe: Recipe, seed: int) -> torch.nn.Module:
        """The model, with the encoder's weights from its folder, the recipe's dropout and a head drawn from `seed`.

        Raises:
            BadInput: the folder is no encoder's.
        """

    @abstractmethod
    def target(self, labels: Sequence[Any], length: int) -> torch.Tensor:
        """The labels of a batch as a tensor on the CPU; `length` is L, for kinds that label tokens."""

    @abstractmethod
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The mean loss of a batch, a float32 scalar. The caller has set the precision of matrix products."""

    @abstractmethod
    def outputs(self, model: torch.nn.Module, batch: Batch) -> Iterable[np.ndarray]:
        """One float64 array a row, without the padding."""

    def collate(self, rows: Rows, chosen: Sequence[int], device: torch.device) -> Batch:
        """The rows numbered `chosen` as one batch on the device."""
        input_ids, mask = pad_rows([rows.ids[row] for row in chosen], rows.pad, device)
        types = None if rows.types is None else pad_rows([rows.types[row] for row in chosen], 0, device)[0]
        target = None
        if len(rows.labels):
            target = self.target([rows.labels[row] for row in chosen], input_ids.shape[1]).to(device)
        return Batch(input_ids, mask, types, target)


def balanced_weights(labels: Sequence[int], count: int) -> tuple[float, ...]:
    """Weights that make every one of `count` labels count the same in all: rows / (labels · rows of the label).

    scikit-learn's "balanced" (King and Zeng 2001).

    Raises:
        BadParams: a label has no row.
    """
    rows = np.bincount(labels, minlength=count)
    if not rows.all():
        raise BadParams(
            f"Label number {int(rows.argmin())} has no row in train, so it has no balanced weight.",
            "Set class_weights to none, or give rows of every label.",
        )
    return tuple((len(labels) / (count * rows)).tolist())


@dataclass(frozen=True)
class Classification(Objective):
    """One label a row, an id: cross-entropy on the head at `<s>`. Outputs are probabilities, [labels].

    Attributes:
        names: the labels' names, in the order of their ids.
        weights: how much each label's rows count, in the same order; empty: all the same. The loss is the weighted mean.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...] = ()

    def build(self, encoder: Path, recipe: Recipe, seed: int) -> RobertaForSequenceClassification:
        """A classifier."""
        return RobertaForSequenceClassification.from_pretrained(
            encoder,
            num_labels=len(self.names),
            problem_type="single_label_classification",
            id2label=dict(enumerate(self.names)),
            dropout=recipe.dropout,
            seed=seed,
        )

    def target(self, labels: Sequence[int], length: int) -> torch.Tensor:
        """Int64 [B]."""
        return torch.tensor(labels)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy in nats."""
        logits = model(batch.input_ids, batch.mask, batch.types)
        weights = torch.tensor(self.weights, device=logits.device) if self.weights else None
        return F.cross_entropy(logits, batch.target, weights)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """[B, labels]."""
        return model(batch.input_ids, batch.mask, batch.types).double().softmax(-1).cpu().numpy()


@dataclass(frozen=True)
class ANumber(Objective):
    """What objectives of one number a row share: a classifier with one output, and a squared error.

    Attributes:
        name: what the number is; the saved model's one label.
    """

    name: str

    def build(self, encoder: Path, recipe: Recipe, seed: int) -> RobertaForSequenceClassification:
        """A regressor: a classifier with one output."""
        return RobertaForSequenceClassification.from_pretrained(
            encoder,
            num_labels=1,
            problem_type="regression",
            id2label={0: self.name},
            dropout=recipe.dropout,
            seed=seed,
        )

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Mean squared error on the model's scale, which `target` sets."""
        return F.mse_loss(model(batch.input_ids, batch.mask, batch.types)[:, 0], batch.target)


@dataclass(frozen=True)
class Regression(ANumber):
    """A number a row: squared error of label / `scale`. Outputs are numbers on the labels' own scale, [1].

    Attributes:
        scale: the model learns label / scale (fairseq's `regression_target` for STS-B: 5), and the saved one says that.
    """

    scale: float = 1.0

    def target(self, labels: Sequence[float], length: int) -> torch.Tensor:
        """Float32 [B], on the model's scale."""
        return torch.tensor(labels).float() / self.scale

    def outputs(self, model: torch.nn.Module, batch: Batch) -> np.ndarray:
        """[B, 1], not clipped."""
        return (model(batch.input_ids, batch.mask, batch.types).double() * self.scale).cpu().numpy()
