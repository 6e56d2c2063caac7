"""What the guard leaves out, what it lets through, and that a disturbed run goes on, resumes exactly, or stops with a line."""

import math

import numpy as np
import pytest
import torch

from roberta_core.errors import BadInput, Preempted
from roberta_core.train.guard import WINDOW, Guard
from tests.core.train.test_ranks import numbers, train, weights_differ
from tests.core.train.tiny_run import build

CPU = torch.device("cpu")


def judged(guard: Guard, losses, norm: float = 1.0) -> list[bool]:
    return [bool(guard.judge(torch.tensor(float(loss)), torch.tensor(norm))) for loss in losses]


def test_verdicts_are_those_of_the_rule_written_plainly():
    rng = np.random.default_rng(0)
    losses = np.linspace(9, 6, 400) + rng.normal(0, 0.1, 400) + 9 * (rng.random(400) < 0.03)
    losses[[100, 250]] = math.nan, math.inf
    accepted: list[np.float32] = []
    expected = []
    for loss in losses.astype(np.float32):
        window = np.array(accepted[-WINDOW:], np.float64)
        jump = len(window) >= WINDOW // 2 and loss > window.mean() + 6 * window.std(ddof=1)
        expected.append(bool(jump or not np.isfinite(loss)))
        if not expected[-1]:
            accepted.append(loss)
    guard = Guard(CPU, 6.0)
    assert judged(guard, losses.astype(np.float32)) == expected
    assert 5 < sum(expected) < 20
    assert (int(guard.skipped), int(guard.accepted)) == (sum(expected), len(accepted))


def test_a_gradient_that_is_no_number_is_left_out_and_jumps_may_be_let_through():
    guard = Guard(CPU, 0.0)
    assert judged(guard, [7.0] * 100 + [70.0]) == [False] * 101
    assert judged(guard, [7.0], norm=math.inf) == judged(guard, [7.0], norm=math.nan) == [True]
    assert int(guard.in_row) == 2 and guard.norm.item() == 1.0
    judged(guard, [7.0])
    assert int(guard.in_row) == 0 and int(guard.skipped) == 2


def test_state_comes_back_to_the_bit():
    losses = torch.rand(300).tolist()
    whole, first = Guard(CPU, 2.0), Guard(CPU, 2.0)
    verdicts = judged(whole, losses)
    assert judged(first, losses[:137]) == verdicts[:137]
    second = Guard(CPU, 2.0, first.state())
    assert judged(second, losses[137:]) == verdicts[137:] and second.state() == whole.state()


def spoil(training, at: set[int], value: float = math.nan) -> None:
    """Makes the gradients of some updates `value`, as a bad machine or batch would."""
    original = training._backward

    def backward(batch, count):
        result = original(batch, count)
        if training.step in at:
            for parameter in training.model.parameters():
                parameter.grad.fill_(value)
        return result

    training._backward = backward


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("paper", None), ("paper", "stable-adamw"), ("fast", None)],
    ids=["adamw", "stable", "muon"],
)
def test_a_spoilt_update_changes_nothing_but_the_count(tmp_path, name, optimizer):
    """Weights and optimizer state after the update are what they were before it."""
    training = build(tmp_path, name, steps=6, checkpoint_s=1e9, optimizer=optimizer)
    spoil(training, {3})
    states = []
    step = training.optimizers.step

    def noted(lr, bad, norm):
        step(lr, bad, norm)
        weights = [each.detach().clone() for each in training.model.parameters()]
        states.append((weights, {key: value.clone() for key, value in training.optimizers.state().items()}))

    training.optimizers.step = noted
    training.train()
    before, spoilt, after = states[2], states[3], states[4]
    assert all(torch.equal(a, b) for a, b in zip(before[0], spoilt[0]))
    assert all(torch.equal(value, spoilt[1][key]) for key, value in before[1].items())
    assert not all(torch.equal(a, b) for a, b in zip(spoilt[0], after[0]))
    assert training.skipped == 1 and training.step == 6
    assert all(math.isfinite(value) for point in training.history.train for value in point.values())


def test_a_disturbed_run_resumes_to_the_same_bits(tmp_path):
    at = {5, 13, 14}
    whole = build(tmp_path / "whole", checkpoint_s=1e9)
    spoil(whole, at)
    whole.train()
    calls = iter(range(1000))
    stopped = build(tmp_path / "stopped", checkpoint_s=1e9, should_stop=lambda: next(calls) == 9)
    spoil(stopped, at)
    with pytest.raises(Preempted):
        stopped.train()
    resumed = build(tmp_path / "stopped", checkpoint_s=1e9)
    assert resumed.step == 10 and resumed.skipped == 1
    spoil(resumed, at)
    resumed.train()
    assert resumed.history.train == whole.history.train and resumed.skipped == whole.skipped == 3
    for run, folder in ((whole, tmp_path / "a"), (resumed, tmp_path / "b")):
        run.model.save_pretrained(folder)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_ranks_leave_out_the_same_updates(tmp_path):
    """One of two ranks has no number; both leave the update out, and end as one process does that left it out."""
    alike = {"dropout": 0.0, "steps": 12, "spoilt": [4, 7]}
    train(
        {"folder": tmp_path / "one", **alike},
        {"folder": tmp_path / "two", "world": 2, **alike},
        {"folder": tmp_path / "calm", **alike, "spoilt": []},
    )
    assert numbers(tmp_path / "two") == pytest.approx(numbers(tmp_path / "one"), abs=1e-5)
    assert (
        weights_differ(tmp_path / "two", tmp_path / "one") < 1e-4 < weights_differ(tmp_path / "two", tmp_path / "calm")
    )


@pytest.mark.slow
def test_ranks_agree_when_the_time_is_up(tmp_path):
    train(
        {"folder": tmp_path, "world": 2, "steps": 10**6, "max_minutes": 0.05, "checkpoint_s": 1e9, "eval_every": 10**6}
    )
    ended = {file.stem.split("-")[1] for file in tmp_path.glob("rows-*.json")}
    assert len(list(tmp_path.glob("rows-*.json"))) == 2 and len(ended) == 1 and int(ended.pop()) > 1


def test_too_many_in_a_row_stop_the_run_and_the_checkpoint_from_before_stays(tmp_path):
    training = build(tmp_path, steps=40)  # it saves after every update
    spoil(training, set(range(7, 40)))
    with pytest.raises(
        BadInput, match=r"diverged: up to update 17 .* 10 updates in a row.* step-000000007 from before"
    ):
        training.train()
    assert training.checkpoints.latest().name == "step-000000007"


def test_a_short_run_of_which_nothing_was_accepted_is_no_result(tmp_path):
    training = build(tmp_path, steps=4, checkpoint_s=1e9)
    spoil(training, set(range(4)))
    with pytest.raises(BadInput, match="diverged: up to update 4 every update was left out"):
        training.train()


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    training = build(tmp_path, steps=6)
    step = training.optimizers.step

    def breaks(lr, bad, norm):
        step(lr, bad, norm)
        if training.step == 3:
            with torch.no_grad():
                training.model.lm_head.bias[0] = math.nan

    training.optimizers.step = breaks
    with pytest.raises(BadInput, match=r"diverged.*step-000000003 from before"):
        training.train()
