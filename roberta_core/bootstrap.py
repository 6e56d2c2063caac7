"""Is one model better than another? A paired bootstrap over the examples that both were asked.

Both models' predictions on the same dev rows are resampled together, so that what is hard for both cancels out. One
resample gives one gain in each task's metric and one in their mean; the share of resamples without a gain is the
p-value, one-sided (Efron and Tibshirani 1993, chapter 16; for paired scores in NLP: Berg-Kirkpatrick et al. 2012).

Classifications with the same (label, old, new) are interchangeable, so a resample is one multinomial draw over these few
kinds and costs the same for 70 rows and for 40,000. Regressions resample rows, in chunks that fit the cache.

Examples are one source of luck, the seed of a fine-tuning is the other. Where a model was fine-tuned with several
seeds, the spread of their scores is added to each resample: Student's t with the pooled degrees of freedom, times the
standard error of a median (sqrt(pi / 2) times that of a mean). With one seed a side that luck cannot be known, and the
result says so in `seeds`.

What it does not know: models that overfit one dev set over many promotions. Watch the test server for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHUNK_CELLS = 4_000_000
"""Numbers that a chunk of resamples may have, where rows are of many kinds: 32 MB of float64."""

CORRELATION_WIDER = 7
"""Resampled correlations spread too little where rows are few: of equal pairs with 150 and 250 rows, 5.8 and 5.5 % had
p < 0.05 (3,000 simulations each); the spread is widened by 7 / rows, which brings both to 5 %."""


@dataclass(frozen=True)
class Pair:
    """Two models' predictions on the same rows of one task.

    Attributes:
        task: its name.
        metric: the score's name.
        labels: [rows]; class names or ids, or numbers for correlations.
        old: [rows]; the predictions of the model that is to be beaten, of the same kind. Of the measure `counts`: [rows, 3],
            how many of a row's entities or labels are right, predicted and there; of `mean`: [rows], its scores; of
            `f1_labels`: bool [rows, names], as `labels` then is, which names a row has.
        new: the same of the other model.
        old_seeds: score of each fine-tuning seed of the first model, empty or one where unknown.
        new_seeds: the same of the other.
        counted: whether the task belongs to the mean.
        measure: how the metric comes of the rows: `accuracy`, `mcc`, `f1_macro`, `pearson`, `spearman`, `counts` (F1 over all
            rows), `mean`, `f1_labels` (the mean over names of their F1 over all rows); empty: the metric's name says it.
    """

    task: str
    metric: str
    labels: np.ndarray
    old: np.ndarray
    new: np.ndarray
    old_seeds: Sequence[float] = ()
    new_seeds: Sequence[float] = ()
    counted: bool = True
    measure: str = ""


@dataclass(frozen=True)
class Gain:
    """What a comparison found on one task, or in the mean.

    Attributes:
        task: the task's name, or `mean`.
        rows: dev rows.
        old: the metric of the model that is to be beaten.
        new: the metric of the other one.
        gain: `new - old`.
        low: lower end of the 95 % interval of the gain.
        high: its upper end.
        p: share of resamples whose gain is not above `min_gain`.
        seeds: the smaller number of seeds of the two models.
        counted: whether the task belongs to the mean.
    """

    task: str
    metric: str
    rows: int
    old: float
    new: float
    gain: float
    low: float
    high: float
    p: float
    seeds: int
    counted: bool


def _safe(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, and 0 where the metric is undefined (as `roberta_core.glue.metrics` has it)."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 1e-12)


def _mean_f1(there: np.ndarray, guessed: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that occur in a draw: [draws] from counts [draws, classes]."""
    occurring = np.count_nonzero(there + guessed, axis=1).astype(float)
    return _safe(_safe(2 * both, there + guessed).sum(axis=1), occurring)


def _classified(metric: str, weights: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Accuracy, Matthews' coefficient or macro F1: [draws] from weights [draws, kinds] of kinds [kinds]."""
    if metric == "accuracy":
        return weights @ (truth == guess) / weights.sum(axis=1)
    total = weights.sum(axis=1).astype(float)
    classes = np.unique(np.concatenate((truth, guess)))
    if metric == "mcc" and len(classes) <= 2:
        yes = truth.max()
        sides = (truth == yes, guess == yes, (truth == yes) & (guess == yes))
        t, p, both = (weights @ each.astype(float) for each in sides)
        return _safe(total * both - t * p, np.sqrt(np.clip(t * (total - t) * p * (total - p), 0, None)))
    # [draws, classes]: how often each class is there, is predicted, is both
    t, p, both = (
        weights @ each.astype(float)
        for each in (
            truth[:, None] == classes,
            guess[:, None] == classes,
            (truth[:, None] == classes) & (guess[:, None] == classes),
        )
    )
    if metric == "f1_macro":  # over the classes of the draw, as scikit-learn takes it
        return _mean_f1(t, p, both)
    # Gorodkin 2004, as scikit-learn has it
    free = [total**2 - (each**2).sum(axis=1) for each in (t, p)]
    return _safe(total * both.sum(axis=1) - (t * p).sum(axis=1), np.sqrt(np.clip(free[0] * free[1], 0, None)))


def _counted(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """F1 over all rows: [draws] from weights [draws, kinds] and counts [kinds, 3]."""
    right, guessed, there = (weights @ counts.astype(float)).T
    return _safe(2 * right, guessed + there)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, the mean one for equal values: Pearson's coefficient of them is Spearman's."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[where]


def _correlated(weights: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Pearson's coefficient: [draws] from weights [draws, rows]."""
    x, y = truth - truth.mean(), guess - guess.mean()
    total, *sums = (weights @ each for each in (np.ones_like(x), x, y, x * x, y * y, x * y))
    sx, sy, sxx, syy, sxy = (each / total for each in sums)
    return _safe(sxy - sx * sy, np.sqrt(np.clip((sxx - sx**2) * (syy - sy**2), 0, None)))


def _draw_labels(pair: Pair, draws: int, rng: np.random.Generator) -> tuple[float, float, np.ndarray]:
    """`_draw` of rows that have any number of labels: rows with the same three sets of labels are interchangeable."""
    rows, names = pair.labels.shape
    kinds, counts = np.unique(np.concatenate((pair.labels, pair.old, pair.new), axis=1), axis=0, return_counts=True)
    truth, old, new = (kinds[:, at : at + names].astype(float) for at in (0, names, 2 * names))

    def both_sides(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        there = drawn @ truth
        return tuple(_mean_f1(there, drawn @ side, drawn @ (truth * side)) for side in (old, new))

    (was,), (now,) = both_sides(counts[None])
    gains, size = [], max(1, CHUNK_CELLS // max(len(kinds), names))
    for start in range(0, draws, size):
        one, other = both_sides(rng.multinomial(rows, counts / rows, size=min(size, draws - start)).astype(float))
        gains.append(other - one)
    return float(was), float(now), np.concatenate(gains)


def _draw(pair: Pair, draws: int, rng: np.random.Generator) -> tuple[float, float, np.ndarray]:
    """Metric of the old and of the new model on the rows as they are, and the gain in each resample: [draws]."""
    rows, measure = len(pair.labels), pair.measure or pair.metric
    if measure in ("pearson", "spearman"):
        truth, old, new = (np.asarray(each, float) for each in (pair.labels, pair.old, pair.new))
        if measure == "spearman":  # ranks among all rows; those among the rows of a draw differ little
            truth, old, new = map(_ranks, (truth, old, new))
        one = np.ones((1, rows))
        gains, size = [], max(1, CHUNK_CELLS // rows)
        for start in range(0, draws, size):
            count = min(size, draws - start)
            picked = rng.integers(rows, size=(count, rows)) + np.arange(count)[:, None] * rows
            weights = np.bincount(picked.ravel(), minlength=count * rows).reshape(count, rows).astype(float)
            gains.append(_correlated(weights, truth, new) - _correlated(weights, truth, old))
        was, now = (float(_correlated(one, truth, each)[0]) for each in (old, new))
        middle = now - was
        return was, now, middle + (np.concatenate(gains) - middle) * (1 + CORRELATION_WIDER / rows)
    if measure == "f1_labels":
        return _draw_labels(pair, draws, rng)
    if measure in ("counts", "mean"):
        width = 3 if measure == "counts" else 1
        sides = np.concatenate([np.asarray(each, float).reshape(rows, width) for each in (pair.old, pair.new)], axis=1)
        kinds, counts = np.unique(sides, axis=0, return_counts=True)
        weights = rng.multinomial(rows, counts / rows, size=draws)

        def of(drawn: np.ndarray, side: np.ndarray) -> np.ndarray:
            return _counted(drawn, side) if measure == "counts" else drawn @ side[:, 0] / rows

        old, new = kinds[:, :width], kinds[:, width:]
        was, now = (float(of(counts[None], each)[0]) for each in (old, new))
        return was, now, of(weights, new) - of(weights, old)
    assert measure in ("accuracy", "mcc", "f1_macro"), measure
    _, ids = np.unique(np.concatenate([pair.labels, pair.old, pair.new]), return_inverse=True)
    kinds, counts = np.unique(ids.reshape(3, rows), axis=1, return_counts=True)
    truth, old, new = kinds
    weights = rng.multinomial(rows, counts / rows, size=draws)
    was, now = (_classified(measure, counts[None], truth, guess)[0] for guess in (old, new))
    gains = _classified(measure, weights, truth, new) - _classified(measure, weights, truth, old)
    return float(was), float(now), gains


def _seed_luck(pair: Pair, draws: int, rng: np.random.Generator) -> np.ndarray | float:
    """How far luck with the seeds moves the gain, in each resample: [draws], or 0 where it cannot be known."""
    sides = [np.asarray(each, float) for each in (pair.old_seeds, pair.new_seeds)]
    free = sum(len(each) - 1 for each in sides if len(each) > 1)
    if not free:
        return 0.0
    pooled = sum(((each - each.mean()) ** 2).sum() for each in sides if len(each) > 1) / free
    error = np.sqrt(pooled * np.pi / 2 * sum(1 / max(1, len(each)) for each in sides))
    return rng.standard_t(free, draws) * error


def compare(pairs: Sequence[Pair], min_gain: float = 0.0, draws: int = 10_000, seed: int = 0) -> list[Gain]:
    """Compares two models on the tasks that both were scored on.

    Args:
        pairs: one a task; at least one is counted.
        min_gain: a gain up to this counts as none.
        draws: resamples.
        seed: the same seed gives the same figures.

    Returns:
        One entry a task, then `mean` over the tasks that are counted.
    """
    rng = np.random.default_rng(seed)
    found, total = [], []
    for pair in pairs:
        assert len(pair.labels) == len(pair.old) == len(pair.new) > 0, pair.task
        old, new, gains = _draw(pair, draws, rng)
        gains = gains + _seed_luck(pair, draws, rng)
        seeds = min(max(1, len(pair.old_seeds)), max(1, len(pair.new_seeds)))
        about = (pair.task, pair.metric, len(pair.labels), old, new)
        found.append(_gain(*about, gains, min_gain, seeds, pair.counted))
        if pair.counted:
            total.append(gains)
    counted = [each for each in found if each.counted]
    old, new = (float(np.mean([getattr(each, side) for each in counted])) for side in ("old", "new"))
    rows, seeds = sum(each.rows for each in counted), min(each.seeds for each in counted)
    return [*found, _gain("mean", "", rows, old, new, np.mean(total, axis=0), min_gain, seeds, True)]


def _gain(
    task: str,
    metric: str,
    rows: int,
    old: float,
    new: float,
    gains: np.ndarray,
    min_gain: float,
    seeds: int,
    counted: bool,
) -> Gain:
    low, high = np.quantile(gains, (0.025, 0.975))
    # one more than counted, so that p is never 0; equality up to rounding is no gain
    p = (1 + np.count_nonzero(gains <= min_gain + 1e-12)) / (1 + len(gains))
    return Gain(task, metric, rows, old, new, new - old, float(low), float(high), float(p), seeds, counted)
