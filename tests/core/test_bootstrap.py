"""The gate's statistics against scikit-learn, against an exact test, and over simulated pairs: does luck get promoted?"""

import numpy as np
import pytest

from roberta_core.bootstrap import Pair, compare

DRAWS = 1000


def classified(rng, rows: int, old: float, new: float, together: float = 0.6, metric="accuracy", **more) -> Pair:
    """Two models of given accuracies that are right and wrong together more often than by chance."""
    labels = rng.integers(2, size=rows)
    shared, luck = rng.random(rows), rng.random((2, rows))
    alike = rng.random(rows) < together
    wrong = [np.where(alike, shared, own) > accuracy for own, accuracy in zip(luck, (old, new))]
    return Pair(f"task{rows}", metric, labels, *(np.where(each, 1 - labels, labels) for each in wrong), **more)


def correlated(rng, rows: int, old: float, new: float) -> Pair:
    labels = rng.normal(size=rows)
    shared = rng.normal(size=rows)
    sides = [labels + noise * (0.7 * shared + 0.7 * rng.normal(size=rows)) for noise in (old, new)]
    return Pair("STS-B", "pearson", labels, *sides)


def test_metrics_are_those_of_scikit_learn_and_scipy():
    from scipy.stats import pearsonr
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    rng = np.random.default_rng(1)
    for metric, oracle in (("accuracy", accuracy_score), ("mcc", matthews_corrcoef)):
        pair = classified(rng, 300, 0.7, 0.8, metric=metric)
        found = compare([pair], draws=10)[0]
        assert (found.old, found.new) == pytest.approx((oracle(pair.labels, pair.old), oracle(pair.labels, pair.new)))
    pair = correlated(rng, 200, 1.0, 0.5)
    found = compare([pair], draws=10)[0]
    assert found.new == pytest.approx(pearsonr(pair.labels, pair.new).statistic)
    three = Pair("MNLI", "accuracy", np.array(["a", "b", "c"]), np.array(["a", "a", "c"]), np.array(["a", "b", "c"]))
    assert compare([three], draws=10)[0].gain == pytest.approx(1 / 3)


def test_a_resample_of_kinds_is_a_resample_of_rows():
    """The multinomial draw over kinds has the spread of the plain bootstrap over rows."""
    rng = np.random.default_rng(2)
    pair = classified(rng, 250, 0.7, 0.75, metric="mcc")
    found = compare([pair], draws=20_000)[0]
    from sklearn.metrics import matthews_corrcoef

    gains = []
    for _ in range(600):
        at = rng.integers(250, size=250)
        gains.append(
            matthews_corrcoef(pair.labels[at], pair.new[at]) - matthews_corrcoef(pair.labels[at], pair.old[at])
        )
    low, high = np.quantile(gains, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_p_is_near_the_exact_sign_test():
    from scipy.stats import binomtest

    labels = np.zeros(400, int)
    old, new = np.zeros(400, int), np.zeros(400, int)
    old[:35], new[35:55] = 1, 1  # 35 rows won, 20 lost
    p = compare([Pair("x", "accuracy", labels, old, new)], draws=50_000)[0].p
    exact = binomtest(35, 55, alternative="greater").pvalue
    assert p == pytest.approx(exact, abs=0.012)
    assert p == compare([Pair("x", "accuracy", labels, old, new)], draws=50_000)[0].p, (
        "the same seed, the same figures"
    )


def test_constant_predictions_and_equal_models_are_no_gain():
    labels = np.array([0, 1] * 50)
    constant = np.zeros(100, int)
    found = compare([Pair("CoLA", "mcc", labels, constant, constant)], draws=DRAWS)
    assert [(each.task, each.gain, each.p) for each in found] == [("CoLA", 0.0, 1.0), ("mean", 0.0, 1.0)]
    flat = Pair("STS-B", "pearson", np.arange(50.0), np.ones(50), np.ones(50))
    assert compare([flat], draws=DRAWS)[0].p == 1.0


def test_wnli_is_shown_and_not_averaged():
    rng = np.random.default_rng(3)
    found = compare([classified(rng, 200, 0.6, 0.9), classified(rng, 70, 0.9, 0.1, counted=False)], draws=DRAWS)
    assert found[1].gain < -0.5 and not found[1].counted
    assert found[2].task == "mean" and found[2].gain == found[0].gain


SETTINGS = {
    "one small task": lambda rng: [classified(rng, 70, 0.7, 0.7)],
    "one task": lambda rng: [classified(rng, 250, 0.8, 0.8)],
    "mcc": lambda rng: [classified(rng, 250, 0.75, 0.75, metric="mcc")],
    "pearson": lambda rng: [correlated(rng, 150, 0.8, 0.8)],
    "three tasks": lambda rng: [classified(rng, n, 0.8, 0.8) for n in (250, 900, 3000)],
    "seeds": lambda rng: [with_seeds(rng, 3)],
}


def with_seeds(rng, count: int) -> Pair:
    """Both ways of training are equally good, but each fine-tuning lands 3 points above or below by luck."""
    true = 0.75 + rng.normal(0, 0.03, (2, count))
    middle = np.sort(true, axis=1)[:, (count - 1) // 2]
    return classified(rng, 2000, *middle, old_seeds=tuple(true[0]), new_seeds=tuple(true[1]))


@pytest.mark.parametrize("setting", SETTINGS)
def test_equal_models_are_promoted_at_most_once_in_twenty(setting):
    rng = np.random.default_rng(4)
    tried = {"three tasks": 400, "pearson": 400}.get(setting, 1000)
    won = sum(compare(SETTINGS[setting](rng), draws=DRAWS, seed=each)[-1].p < 0.05 for each in range(tried))
    # three standard errors of the simulation itself above 5 %
    assert won / tried <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / tried), f"{won} of {tried}"


def test_without_the_spread_of_seeds_luck_would_be_promoted():
    """The same simulation with the seeds hidden: what the seeds are for, and that the simulation can fail."""
    rng = np.random.default_rng(4)
    pairs = [with_seeds(rng, 3) for _ in range(300)]
    blind = [Pair(each.task, each.metric, each.labels, each.old, each.new) for each in pairs]
    assert np.mean([compare([each], draws=DRAWS)[-1].p < 0.05 for each in blind]) > 0.15


def test_a_real_gain_is_seen():
    rng = np.random.default_rng(5)
    won = sum(compare([classified(rng, 1000, 0.80, 0.84)], draws=DRAWS)[-1].p < 0.05 for _ in range(100))
    assert won > 80
