"""What the stage asks of a kind of task: read, encode, decide, score, compare, show.

One object is one task. It learns its labels from the training rows, and from then on turns files into rows, rows into
predictions, and predictions into figures and tables. The engine does the training between; it asks only the objective.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from roberta_core.finetune.objectives import Objective
from roberta_core.finetune.rows import Rows
from roberta_core.own.metrics import ordered

SHOWN_LABELS = 20
"""Rows and columns of a confusion matrix: more cannot be read; the others' rows are put together."""

SHOWN_EXAMPLES = 10
EXCERPT_CHARS = 160


class Data(Protocol):
    """The rows of a file."""

    notes: list[str]

    def __len__(self) -> int:
        """How many there are."""

    def take(self, chosen: Sequence[int]) -> "Data":
        """Some of them."""

    def keys(self) -> list[str]:
        """Of each what decides on which side of a split it goes."""

    def texts_of_rows(self) -> list[str]:
        """Of each what must not stand in another file too."""

    def labelled_rows(self) -> list[tuple[str, Hashable]]:
        """Of each what a model sees and what it should say; of rows with labels."""


@dataclass(frozen=True)
class Settings:
    """What a user says of a task; the columns that the kind does not have are not looked at.

    Attributes:
        name: the task's.
        kind: as in `METRICS`.
        metric: the one that counts.
        max_length: tokens of a row or window, `<s>` and `</s>` included.
        stride: tokens that two windows share.
        text: the column of the text, or the two of a pair.
        label: the column of the label, or one a label.
        separator: between the labels of a row.
        token: number of the column of tokens, from 1, or from the end where negative.
        tag: number of the column of tags.
        class_weights: `none`, `balanced` (every label counts the same in all), or a number a label.
        token_types: whether the encoder has them.
    """

    name: str
    kind: str
    metric: str
    max_length: int
    stride: int
    text: tuple[str, ...] = ("text",)
    label: tuple[str, ...] = ("label",)
    separator: str = ","
    token: int = 1
    tag: int = -1
    class_weights: str | tuple[float, ...] = "none"
    token_types: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the report: what it shows, its head, and its rows."""

    title: str
    head: list[str]
    rows: list[list[str | int | float]]

    def as_json(self) -> dict:
        """For results.json."""
        return {"title": self.title, "head": self.head, "rows": self.rows}


class Kind(ABC):
    """A task of one kind.

    Attributes:
        settings: what the user says of it.
        names: its labels in the order of their ids, once `learn` was called; empty for kinds without.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.names: list[str] = []

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics, the one that counts first."""
        return ordered(self.settings.kind, self.settings.metric)

    @abstractmethod
    def read(self, file: Path, training: bool = False, may_hide: bool = False) -> Data:
        """The rows of a file; `may_hide`: it may be a test set without labels.

        Raises:
            BadInput: the file cannot be used; one line says why.
        """

    @abstractmethod
    def learn(self, train: Data, file: Path) -> None:
        """Takes the labels from the training rows.

        Raises:
            BadInput: there is nothing to tell apart.
        """

    def restore(self, labels: Sequence[str], served: Mapping[str, Any], data: Data) -> float:
        """Takes from a saved model what `learn` and `calibrate` would give, so that it can be scored on rows.

        Args:
            labels: the names in its config.json, in the order of their ids.
            served: its task.json.
            data: the rows that it is to be scored on.

        Returns:
            The threshold that `decide` takes.
        """
        self.names = list(labels)
        return 0.0

    @abstractmethod
    def check(self, data: Data, file: Path) -> list[str]:
        """One line for each label that training does not know.

        Raises:
            BadInput: training knows none of them.
        """

    @abstractmethod
    def scored(self, data: Data) -> bool:
        """Whether the rows have labels."""

    @abstractmethod
    def objective(self) -> Objective:
        """What the engine trains."""

    @abstractmethod
    def rows(self, tokenizer: Tokenizer, data: Data, training: bool = False) -> Rows:
        """The rows as tokens; with labels where `training`."""

    def calibrate(self, rows: Rows, outputs: Sequence[np.ndarray], data: Data) -> float:
        """The threshold that is best on these rows; kinds without one have a fixed value."""
        return 0.0

    def best_possible(self, rows: Rows, outputs: Sequence[np.ndarray], data: Data) -> dict[str, float]:
        """The metrics at the threshold that is best on these very rows, where there is one to choose."""
        return {}

    @abstractmethod
    def decide(self, rows: Rows, outputs: Sequence[np.ndarray], data: Data, threshold: float) -> list[Any]:
        """The prediction of each row of `data` from the outputs of `rows`."""

    @abstractmethod
    def score(self, data: Data, guesses: Sequence[Any]) -> tuple[dict[str, float], list[str]]:
        """The metrics, the one that counts first, and notes on undefined ones."""

    @abstractmethod
    def baselines(self, train: Data, data: Data) -> dict[str, list[Any]]:
        """What simpler ways predict for the rows of `data`, by the way's name."""

    @abstractmethod
    def predictions(
        self, data: Data, guesses: Sequence[Any], rows: Rows, outputs: Sequence[np.ndarray]
    ) -> tuple[list[str], list[list[Any]]]:
        """The head and the lines of dev_predictions.tsv."""

    @abstractmethod
    def tables(self, data: Data, guesses: Sequence[Any]) -> list[Table]:
        """Where the model is right and where wrong: a confusion matrix or an error table, and examples."""

    def finish(self, model: Any) -> Any:
        """The trained model as it is saved: most kinds save it as it is."""
        return model

    def served(self, threshold: float) -> dict:
        """What the saved model must know beside its config.json, to answer as it did here."""
        asked = self.settings
        return {"kind": asked.kind, "max_length": asked.max_length, "stride": asked.stride, "texts": len(asked.text)}


def excerpt(text: str) -> str:
    """A text for a table."""
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1] + "…"


def share(above: float, below: float) -> float:
    """`above / below` to 4 digits, 0 where there is nothing below."""
    return round(above / below, 4) if below else 0.0


def counts_row(name: str, right: int, guessed: int, there: int) -> list[str | int | float]:
    """A row of an error table: precision, recall, F1, how many there are and how many were predicted."""
    return [name, share(right, guessed), share(right, there), share(2 * right, guessed + there), there, guessed]


COUNTS_HEAD = ["label", "precision", "recall", "F1", "there", "predicted"]
