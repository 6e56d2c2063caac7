"""The metrics of a user's tasks by kind, the primary one first, from scikit-learn, scipy and seqeval.

Beside a score stands what a comparison of two models needs of each row: its share of the metric. Two models
are then compared by resampling rows (`roberta_core.bootstrap`), for F1 too, which is no mean over rows but a ratio of
sums over them.
"""

from collections.abc import Sequence

import numpy as np

from roberta_core.glue.metrics import measure
from roberta_core.own.entities import spans_of

METRICS = {
    "classification": ("accuracy", "f1_macro", "mcc"),
    "multi-label": ("f1_micro", "f1_macro", "exact_match"),
    "regression": ("pearson", "spearman"),
    "tokens": ("f1", "accuracy"),
    "questions": ("f1", "exact_match"),
}
"""Of each kind the metrics that can be asked for, the default first."""

NAME_LISTS = ("label_names", "prediction_names")
"""Columns of dev_predictions.tsv: a row's labels, and those predicted, as JSON lists."""


def ordered(kind: str, metric: str) -> tuple[str, ...]:
    """The metrics of a kind with the chosen one first."""
    return (metric, *(name for name in METRICS[kind] if name != metric))


def score_multi_label(
    names: Sequence[str], labels: Sequence[Sequence[int]], guesses: Sequence[Sequence[int]], classes: int
) -> dict[str, float]:
    """Micro and macro F1 over labels, and the share of rows with all labels right.

    Args:
        labels: ids a row, some of which may be unknown (at or above `classes`): they count as missed.
        guesses: ids a row, below `classes`.
    """
    from sklearn.metrics import f1_score

    width = max([classes, *(each + 1 for row in labels for each in row)])
    truth, guess = np.zeros((2, len(labels), width), np.int8)
    for matrix, rows in ((truth, labels), (guess, guesses)):
        for at, row in enumerate(rows):
            matrix[at, list(row)] = 1
    # a label that occurs on neither side has no F1, and does not count in the mean
    occurring = (truth | guess).any(axis=0)
    found = {
        "f1_micro": f1_score(truth, guess, average="micro", zero_division=0.0),
        "f1_macro": f1_score(truth[:, occurring], guess[:, occurring], average="macro", zero_division=0.0)
        if occurring.any()
        else 0.0,
        "exact_match": (truth == guess).all(axis=1).mean(),
    }
    return {name: float(found[name]) for name in names}


def score_tags(
    names: Sequence[str], tags: Sequence[Sequence[str]], guesses: Sequence[Sequence[str]]
) -> dict[str, float]:
    """F1, precision and recall of entities by seqeval (as conlleval counts them), and the share of tags that are right."""
    flat = [(truth, guess) for one, other in zip(tags, guesses) for truth, guess in zip(one, other)]
    found = {"accuracy": sum(truth == guess for truth, guess in flat) / max(1, len(flat))}
    if "f1" in names:
        from seqeval.metrics import f1_score, precision_score, recall_score

        pair = ([list(each) for each in tags], [list(each) for each in guesses])
        found["f1"] = float(f1_score(*pair, zero_division=0))
        found["precision"] = float(precision_score(*pair, zero_division=0))
        found["recall"] = float(recall_score(*pair, zero_division=0))
    return {name: found[name] for name in (*names, *(each for each in ("precision", "recall") if each in found))}


def entity_counts(tags: Sequence[str], guesses: Sequence[str]) -> tuple[int, int, int]:
    """Of one sentence: entities that are right, entities predicted, entities there."""
    truth, guess = set(spans_of(tags)), set(spans_of(guesses))
    return len(truth & guess), len(guess), len(truth)


def label_counts(labels: Sequence[int], guesses: Sequence[int]) -> tuple[int, int, int]:
    """Of one row: labels that are right, labels predicted, labels there."""
    return len(set(labels) & set(guesses)), len(set(guesses)), len(set(labels))


def score_numbers(
    names: Sequence[str], labels: Sequence[float], guesses: Sequence[float]
) -> tuple[dict[str, float], list[str]]:
    """Pearson's and Spearman's coefficient, the root mean squared error, and notes on undefined ones."""
    found, notes = measure(names, labels, guesses)
    error = np.asarray(labels, float) - np.asarray(guesses, float)
    return found | {"rmse": float(np.sqrt(np.mean(error**2)))}, notes
