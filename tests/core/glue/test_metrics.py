"""Metrics against values worked out by hand, undefined ones, and the baselines."""

import math

import numpy as np
import pytest

from roberta_core.glue.baselines import majority, tfidf
from roberta_core.glue.layout import Split
from roberta_core.glue.metrics import score
from roberta_core.glue.tasks import TASKS


def test_matthews_by_hand():
    # tp 3, tn 1, fp 1, fn 1: (3·1 - 1·1) / sqrt(4·4·2·2) = 2 / 8
    metrics, notes = score(TASKS["CoLA"], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 1])
    assert metrics == pytest.approx({"mcc": 0.25, "accuracy": 4 / 6}) and notes == []
    assert list(metrics) == ["mcc", "accuracy"], "the primary metric comes first"


@pytest.mark.parametrize("name", ["MRPC", "QQP"])
def test_f1_by_hand(name):
    # tp 3, fp 1, fn 1: precision and recall 3/4
    metrics, _ = score(TASKS[name], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 1])
    assert metrics == pytest.approx({"accuracy": 4 / 6, "f1": 0.75})


def test_pearson_and_spearman_by_hand():
    # deviations (-1.5, -.5, .5, 1.5) and (-2, -1, -1, 4): 9 / sqrt(5 · 22); ranks (1, 2.5, 2.5, 4): 4.5 / sqrt(5 · 4.5)
    metrics, notes = score(TASKS["STS-B"], [1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 1.0, 6.0])
    assert metrics["pearson"] == pytest.approx(9 / math.sqrt(5 * 22)) and notes == []
    assert metrics["spearman"] == pytest.approx(4.5 / math.sqrt(5 * 4.5))


def test_mnli_counts_three_classes():
    metrics, _ = score(TASKS["MNLI"], [0, 1, 2, 2], [0, 2, 2, 1])
    assert metrics == {"accuracy": 0.5}


@pytest.mark.parametrize(("name", "labels", "constant"), [("CoLA", [0, 1, 1], 1), ("STS-B", [0.0, 2.0, 5.0], 2.5)])
def test_constant_predictions_score_nothing_and_say_so(name, labels, constant):
    metrics, notes = score(TASKS[name], labels, [constant] * 3)
    assert metrics[TASKS[name].metrics[0]] == 0.0
    assert all(math.isfinite(value) for value in metrics.values())
    assert notes and "predictions are the same" in notes[0]


def test_constant_labels_are_noted_too():
    metrics, notes = score(TASKS["STS-B"], [2.0, 2.0], [1.0, 3.0])
    assert metrics == {"pearson": 0.0, "spearman": 0.0} and "all labels" in notes[0]


def test_f1_without_a_positive_is_zero():
    assert score(TASKS["MRPC"], [1, 0], [0, 0])[0] == {"accuracy": 0.5, "f1": 0.0}


def test_majority_takes_the_most_frequent_class_or_the_mean():
    dev = Split([("a",)] * 3, [0, 1, 1])
    assert majority(TASKS["SST-2"], Split([("a",)] * 5, [1, 0, 1, 0, 1]), dev).tolist() == [1, 1, 1]
    assert majority(TASKS["STS-B"], Split([("a", "b")] * 2, [1.0, 4.0]), dev).tolist() == [2.5, 2.5, 2.5]


def test_bag_of_words_finds_a_word_and_overlap():
    words = ["red", "blue", "green", "fast", "slow", "late", "early", "round", "flat", "warm"]
    draw = np.random.default_rng(0)

    def single(rows):
        labels = [row % 2 for row in range(rows)]
        return Split([(" ".join([*draw.choice(words, 4), ("good", "bad")[label]]),) for label in labels], labels)

    def pair(rows):
        sides = [(draw.choice(words, 4, replace=False), draw.choice(words, 4, replace=False)) for _ in range(rows)]
        return Split([(" ".join(a), " ".join(b)) for a, b in sides], [5 * len({*a} & {*b}) / 4 for a, b in sides])

    train, dev = single(60), single(20)
    assert tfidf(TASKS["SST-2"], train, [dev])[0].tolist() == dev.labels
    train, dev = pair(300), pair(100)
    guess = tfidf(TASKS["STS-B"], train, [dev])[0]
    assert guess.min() >= 0 and guess.max() <= 5
    assert score(TASKS["STS-B"], dev.labels, guess)[0]["pearson"] > 0.9
