"""The metrics of GLUE (Wang et al. 2018, table 1), by scikit-learn and scipy.

A constant prediction leaves Matthews', Pearson's and Spearman's coefficients undefined (0 / 0). They are then given
as 0.0, "knows nothing", with a note that says so, and never as NaN, which no metrics file can hold.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from roberta_core.glue.tasks import Task


def score(task: Task, labels: Sequence[float], predictions: Sequence[float]) -> tuple[dict[str, float], list[str]]:
    """Scores predictions against labels.

    Args:
        labels: ids, or scores from 0 to 5 for regression; one a row.
        predictions: the same kind; for regression any finite number.

    Returns:
        The task's metrics by name, the primary one first, from -1 or 0 to 1; and notes on those that were undefined.
        MNLI's `accuracy_mismatched` is not among them: it is the accuracy on the other dev file.
    """
    return measure(task.metrics, labels, predictions)


def measure(
    names: Sequence[str], labels: Sequence[float], predictions: Sequence[float]
) -> tuple[dict[str, float], list[str]]:
    """The metrics `names` that are known here, of labels and predictions as in `score`, and notes on undefined ones."""
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    truth, guess = np.asarray(labels), np.asarray(predictions)
    assert truth.shape == guess.shape and truth.size, "one prediction for each label"
    measures = {
        "accuracy": accuracy_score,
        "mcc": matthews_corrcoef,
        "f1": lambda a, b: f1_score(a, b, zero_division=0.0),
        "f1_macro": lambda a, b: f1_score(a, b, average="macro", zero_division=0.0),
        "pearson": lambda a, b: pearsonr(a, b).statistic,
        "spearman": lambda a, b: spearmanr(a, b).statistic,
    }
    constant = [name for name, values in (("predictions", guess), ("labels", truth)) if (values == values[0]).all()]
    result, notes = {}, []
    for name in names:
        if name not in measures:
            continue
        if constant and name in ("mcc", "pearson", "spearman"):
            result[name] = 0.0
            notes.append(f"{name} is undefined, given as 0: all {' and all '.join(constant)} are the same")
            continue
        with warnings.catch_warnings():  # a nearly constant input: finite, but scipy doubts its last digits
            warnings.simplefilter("ignore")
            value = float(measures[name](truth, guess))
        result[name] = value if np.isfinite(value) else 0.0
        if not np.isfinite(value):
            notes.append(f"{name} is undefined, given as 0")
    return result, notes
