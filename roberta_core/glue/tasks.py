"""GLUE as one table, nine tasks and the AX diagnostic: columns, labels, files, metrics. A task's rules are its row here.

Layout: the zip files that gluebenchmark.com hands out. Label order: `nyu-mll/glue` on the Hugging Face hub, so that
the ids of a classifier trained here and of one trained there mean the same. Metrics: Wang et al. 2018 (arXiv
1804.07461), table 1; the first of a task's is the one that RoBERTa's dev tables show (arXiv 1907.11692, table 8).
"""

from dataclasses import dataclass, replace
from typing import Literal

from roberta_core.errors import BadParams

SPLITS = ("train", "dev", "test")
SCORE_MAX = 5.0
"""STS-B's scores run from 0 to 5; the model learns score / 5 (fairseq's `regression_target`)."""


@dataclass(frozen=True)
class Task:
    """One task's row.

    Attributes:
        name: the folder's name.
        hub: the configuration's name in `nyu-mll/glue`.
        texts: columns that hold the one text or the two, in the order in which the model reads them.
        hub_texts: the same columns on the hub.
        label: the column that holds the label.
        values: how labels are written in the files, in the order of their ids; empty for regression.
        names: the labels' names, in the order of their ids; empty for regression.
        metrics: names of the metrics, the primary one first (`roberta_core.glue.metrics`).
        columns: all columns, in order, of train, dev and test.
        headerless: splits whose files have no header.
        matched: MNLI alone: dev and test come twice, from the genres of train and from others.
        predicted_by: AX alone: it has no train and no dev; the model of this task predicts it.
    """

    name: str
    hub: str
    texts: tuple[str, ...]
    hub_texts: tuple[str, ...]
    label: str
    values: tuple[str, ...]
    names: tuple[str, ...]
    metrics: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    headerless: tuple[str, ...] = ()
    matched: bool = False
    predicted_by: str = ""

    @property
    def kind(self) -> Literal["classification", "regression"]:
        """What the head does."""
        return "classification" if self.values else "regression"

    @property
    def pair(self) -> bool:
        """Whether a row has two texts."""
        return len(self.texts) == 2

    @property
    def num_labels(self) -> int:
        """Outputs of the head: one for regression."""
        return len(self.values) or 1

    def files(self, split: str) -> tuple[str, ...]:
        """File names of a split; the first is the one that counts. None where the task has no such split."""
        if self.predicted_by:
            return tuple(f"{DIAGNOSTIC[each]}.tsv" for each in self.columns if each == split)
        if self.matched and split != "train":
            return (f"{split}_matched.tsv", f"{split}_mismatched.tsv")
        return (f"{split}.tsv",)

    def hub_splits(self, split: str) -> tuple[str, ...]:
        """Names of the same splits on the hub, in the order of `files`."""
        if self.predicted_by and split != "test":
            return ()
        name = {"train": "train", "dev": "validation", "test": "test"}[split]
        return (f"{name}_matched", f"{name}_mismatched") if self.matched and split != "train" else (name,)


_PAIR = ("index", "sentence1", "sentence2")
_MRPC = ("#1 ID", "#2 ID", "#1 String", "#2 String")
_STSB = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2")
_QNLI = ("index", "question", "sentence")
_QQP = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
_PARSES = ("sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse")
_MNLI = ("index", "promptID", "pairID", "genre", *_PARSES, "sentence1", "sentence2")
_ANNOTATORS = ("label1", "label2", "label3", "label4", "label5")
_S1_S2 = ("sentence1", "sentence2")
_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI_LABELS = ("entailment", "neutral", "contradiction")
_PHENOMENA = ("Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge", "Domain")

DIAGNOSTIC = {"test": "diagnostic", "dev": "diagnostic-full"}
"""AX's two files: the leaderboard's, without labels, and the one with labels, which its authors published later."""


def _same(train_and_dev: tuple[str, ...], test: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {"train": train_and_dev, "dev": train_and_dev, "test": test}


# fmt: off
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "CoLA", "cola", ("sentence",), ("sentence",), "label", _BINARY, ("unacceptable", "acceptable"), ("mcc", "accuracy"),
            _same(("source", "label", "original_label", "sentence"), ("index", "sentence")), headerless=("train", "dev"),
        ),
        Task(
            "SST-2", "sst2", ("sentence",), ("sentence",), "label", _BINARY, ("negative", "positive"), ("accuracy",),
            _same(("sentence", "label"), ("index", "sentence")),
        ),
        Task(
            "MRPC", "mrpc", ("#1 String", "#2 String"), _S1_S2, "Quality",
            _BINARY, ("not_equivalent", "equivalent"), ("accuracy", "f1"),
            _same(("Quality", *_MRPC), ("index", *_MRPC)),
        ),
        Task(
            "STS-B", "stsb", _S1_S2, _S1_S2, "score", (), (), ("pearson", "spearman"),
            _same((*_STSB, "score"), _STSB),
        ),
        Task(
            "RTE", "rte", _S1_S2, _S1_S2, "label", _ENTAILMENT, _ENTAILMENT, ("accuracy",),
            _same((*_PAIR, "label"), _PAIR),
        ),
        Task(
            "WNLI", "wnli", _S1_S2, _S1_S2, "label",
            _BINARY, ("not_entailment", "entailment"), ("accuracy",),
            _same((*_PAIR, "label"), _PAIR),
        ),
        Task(
            "QNLI", "qnli", ("question", "sentence"), ("question", "sentence"), "label", _ENTAILMENT, _ENTAILMENT, ("accuracy",),
            _same((*_QNLI, "label"), _QNLI),
        ),
        Task(
            "QQP", "qqp", ("question1", "question2"), ("question1", "question2"), "is_duplicate",
            _BINARY, ("not_duplicate", "duplicate"), ("accuracy", "f1"),
            _same(_QQP, ("id", "question1", "question2")),
        ),
        Task(
            "MNLI", "mnli", _S1_S2, ("premise", "hypothesis"), "gold_label",
            _MNLI_LABELS, _MNLI_LABELS, ("accuracy", "accuracy_mismatched"),
            {"train": (*_MNLI, "label1", "gold_label"), "dev": (*_MNLI, *_ANNOTATORS, "gold_label"), "test": _MNLI},
            matched=True,
        ),
        Task(
            "AX", "ax", _S1_S2, ("premise", "hypothesis"), "", _MNLI_LABELS, _MNLI_LABELS, ("mcc",), {"test": _PAIR},
            predicted_by="MNLI",
        ),
    )
}
# fmt: on

AX_LABELLED = replace(
    TASKS["AX"],
    texts=("Premise", "Hypothesis"),
    label="Label",
    columns={"dev": (*_PHENOMENA, "Premise", "Hypothesis", "Label")},
)
"""AX as its file with labels has it: read as a dev split."""

TRAINED = tuple(task.name for task in TASKS.values() if not task.predicted_by)
"""The tasks that are fine-tuned on."""


def task_named(name: str) -> Task:
    """The row of a task that is fine-tuned on.

    Raises:
        BadParams: there is no such task, or it has nothing to train on.
    """
    if name in TASKS and TASKS[name].predicted_by:
        raise BadParams(
            f"{name} has no training rows: the model of {TASKS[name].predicted_by} predicts it.",
            "Fine-tune that one; roberta glue submit and roberta glue diagnostic do the rest.",
        )
    if name not in TRAINED:
        raise BadParams(f"There is no task {name}.", f"Name one of {', '.join(TRAINED)}.")
    return TASKS[name]
