"""The gate's words and margins on pieces of evidence that lie on the disk, and how often it lets luck through."""

import json

import numpy as np
import pytest

from tasks import gate
from tasks.gate import Side, as_markdown, as_text, checks, decide, table
from tasks.params import Registry

RULES = Registry(gate={"max_latency_ratio": 0, "max_size_ratio": 0, "resamples": 1000})


def tags(score: float, measure: str = "mcc", data: str = "sample", yardstick: str = '{"dev_md5": "1"}') -> dict:
    return {"score": repr(score), "measure": measure, "data": data, "yardstick": yardstick}


def write_task(folder, task: str, labels, guesses, metric="accuracy", **results) -> None:
    at = folder / "tasks" / task
    at.mkdir(parents=True, exist_ok=True)
    (at / "results.json").write_text(json.dumps({"metric": metric, "seeds": {"1": 0.0}} | results))
    lines = [f"{row}\t{label}\t{guess}\t0.5" for row, (label, guess) in enumerate(zip(labels, guesses))]
    (at / "dev_predictions.tsv").write_text("\n".join(["index\tlabel\tprediction\tprobability_no", *lines]) + "\n")


def answers(labels, wrong: int, seed: int):
    """Predictions with so many wrong ones."""
    guesses = list(labels)
    for at in np.random.default_rng(seed).permutation(len(labels))[:wrong]:
        guesses[at] = "no" if labels[at] == "yes" else "yes"
    return guesses


@pytest.fixture
def sides(tmp_path):
    """Makes candidate and champion from the number of wrong answers of 300, task by task."""

    def make(new: dict[str, int], old: dict[str, int], measure: str = "mean score of 3 tasks"):
        labels = ["yes", "no"] * 150
        made = []
        for number, wrong in enumerate((new, old)):
            folder = tmp_path / f"side{number}"
            for task, count in wrong.items():
                write_task(folder, task, labels, answers(labels, count, count + number))
            made.append(Side(str(2 - number), tags(0.5, measure), lambda folder=folder: folder))
        return made

    return make


def test_better_in_the_mean_and_no_loss_is_promoted(sides):
    verdict = decide(*sides({"RTE": 60, "SST-2": 40, "QNLI": 61}, {"RTE": 90, "SST-2": 70, "QNLI": 60}), RULES)
    assert verdict.promoted
    assert verdict.why.startswith(
        "promoted: mean score of 3 tasks 0.8211 against the champion's 0.7556, a gain of +0.0656 (95 % interval +0.0"
    )
    rows = table(verdict.as_json())
    assert [row[0] for row in rows] == ["QNLI", "RTE", "SST-2", "mean"]
    assert rows[1][:6] == ("RTE", "accuracy", "300", "0.7000", "0.8000", "+0.1000")
    assert as_text(verdict.as_json()).splitlines()[0].split() == " ".join(gate.HEADERS).split()
    assert "passed: no task loses more than 0.03: QNLI -0.0033" in as_text(verdict.as_json())
    assert as_markdown(verdict.as_json()).splitlines()[1].startswith("| --- |")


def test_one_task_that_loses_too_much_stops_it_whatever_the_mean(sides):
    verdict = decide(*sides({"RTE": 30, "SST-2": 30, "QNLI": 75}, {"RTE": 90, "SST-2": 90, "QNLI": 60}), RULES)
    assert not verdict.promoted
    assert verdict.why.endswith("; asked for: no task loses more than 0.03, found QNLI -0.0500")
    assert [passed for _, _, passed in checks(verdict.as_json())] == ["passed", "passed", "failed"]


def test_wnli_neither_counts_nor_stops(sides):
    verdict = decide(*sides({"RTE": 30, "WNLI": 250}, {"RTE": 90, "WNLI": 50}), RULES)
    assert verdict.promoted
    assert table(verdict.as_json())[1][0] == "WNLI (not in the mean)"


@pytest.mark.parametrize(
    "new, champion, promoted, told",
    [
        (tags(0.1), None, True, "promoted: the first version with mcc 0.1000 (sample data)"),
        ({}, None, True, "promoted: the first version"),
        ({}, tags(0.1), False, "not promoted: it has no score"),
        (tags(0.5), {}, True, "promoted: mcc 0.5000 (sample data), and the champion has no score"),
        (tags(0.5), tags(0.1), False, "not promoted: version 1 keeps no dev predictions to compare on"),
        (tags(6.0, "held-out loss"), tags(7.0, "held-out loss"), True, "a gain of +1.0000, more than 0 (one number"),
        (tags(8.0, "held-out loss"), tags(7.0, "held-out loss"), False, "a gain of -1.0000"),
        (tags(0.9, data="local"), tags(0.5), False, "on local data and the champion's on sample data, which cannot"),
        (tags(0.9, yardstick='{"dev_md5": "2"}'), tags(0.5), False, "cannot be compared (another dev_md5)"),
        (
            tags(0.9, yardstick='{"CoLA": {"epochs": 3}}'),
            tags(0.5, yardstick='{"CoLA": {"epochs": 2}}'),
            False,
            "cannot be compared (CoLA: another epochs)",
        ),
        (tags(6.0, "held-out loss"), tags(0.5), False, "cannot be compared (held-out loss against mcc)"),
    ],
)
def test_the_gate_says_why(new, champion, promoted, told):
    verdict = decide(Side("2", new), Side("1", champion) if champion is not None else None, RULES)
    assert verdict.promoted is promoted
    assert told in verdict.why
    assert verdict.why.startswith("promoted: " if promoted else "not promoted: ")
    assert as_text(verdict.as_json()) == as_markdown(verdict.as_json()) == ""


def test_other_dev_rows_and_other_tasks_are_not_compared(sides, tmp_path):
    new, old = sides({"RTE": 30}, {"RTE": 90})
    write_task(tmp_path / "side1", "RTE", ["no", "yes"] * 150, ["no"] * 300)
    assert decide(new, old, RULES).why.endswith("cannot be compared (RTE: other dev rows)")
    write_task(tmp_path / "side1", "MRPC", ["no"], ["no"])
    assert "(predictions of RTE against MRPC, RTE)" in decide(new, old, RULES).why


def test_a_bigger_and_a_slower_model_is_stopped(sides, tmp_path, monkeypatch):
    new, old = sides({"RTE": 30}, {"RTE": 90})
    folders = []
    for number, size in enumerate((160, 100)):
        folders.append(tmp_path / f"model{number}")
        folders[-1].mkdir()
        (folders[-1] / "model.safetensors").write_bytes(b"x" * size)
    new, old = (
        Side(side.version, side.tags, side.evidence, lambda at=at: at) for side, at in zip((new, old), folders)
    )
    monkeypatch.setattr(gate, "latency_ratio", lambda ours, theirs: 1.7)
    verdict = decide(new, old, Registry())
    assert not verdict.promoted
    assert "asked for: at most 1.5 times the size, found 1.60 times; at most 1.5 times the time of" in verdict.why
    assert decide(new, old, Registry(gate={"max_size_ratio": 2, "max_latency_ratio": 2})).promoted
    gone = Side(old.version, old.tags, old.evidence)
    assert "both versions' files at hand, found the champion's are gone" in decide(new, gone, Registry()).why


def test_latency_is_a_ratio_of_two_models_on_this_machine(tmp_path):
    from .tiny_models import tiny_encoder

    small = tiny_encoder(tmp_path / "small")
    assert 0.2 < gate.latency_ratio(small, small) < 5


def test_luck_passes_at_most_once_in_twenty(tmp_path):
    """The whole gate, margins and all, on equal models of three tasks with 250 dev rows."""
    rng = np.random.default_rng(6)
    won, tried = 0, 150
    for number in range(tried):
        made = []
        for side in range(2):
            folder = tmp_path / f"{number}-{side}"
            for task in ("RTE", "SST-2", "QNLI"):
                labels = ["yes", "no"] * 125
                right = rng.random(250) < 0.8
                guesses = [label if ok else ("no" if label == "yes" else "yes") for label, ok in zip(labels, right)]
                write_task(folder, task, labels, guesses)
            made.append(Side(str(side), tags(0.8), lambda folder=folder: folder))
        won += decide(*made, RULES).promoted
    assert won / tried <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / tried), f"{won} of {tried}"
