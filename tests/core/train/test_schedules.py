"""Schedules by updates and by the clock, growing batches, accumulation, and the optimizers against plain arithmetic."""

import itertools
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from roberta_core.errors import BadParams, Preempted
from roberta_core.train.batches import BatchPlan
from roberta_core.train.ranks import Ranks
from roberta_core.train.recipes import recipe
from roberta_core.train.stable_adamw import StableAdamW
from tests.core.train.tiny_run import build


def test_schedules_are_their_formulas():
    steps = 1000
    for name, start, shape in (
        ("linear", 0, lambda over: 1 - over),
        ("cosine", 0, lambda over: math.cos(math.pi * over / 2) ** 2),
        ("wsd", 800, lambda over: 1 - math.sqrt(over)),
    ):
        own = recipe("paper", "base", steps, schedule=name, warmup_steps=100, peak_lr=1.0)
        for step in range(0, steps, 7):
            begin = max(100, start)
            expected = (
                (step + 1) / 100 if step < 100 else 1.0 if step < begin else shape((step - begin) / (steps - begin))
            )
            assert own.lr_at(step, steps) == pytest.approx(expected, abs=1e-12), (name, step)
    assert (
        recipe("fast", "mini", steps).decay_from == recipe("fast", "mini", steps, schedule="linear").decay_from == 0.4
    )
    assert recipe("fast", "mini", steps, schedule="wsd", decay_from=0.5).decay_from == 0.5


def test_the_fast_recipe_warms_up_under_a_clock_too():
    """50 updates of a million would be over within the first one."""
    assert recipe("fast", "mini", 10**6).warmup_steps == 50
    timed = recipe("fast", "mini", 10**6, by_clock=True)
    assert timed.warmup_steps == 20_000 and timed.lr_at(166.0, 10**6) < 0.01 * timed.peak_lr


def test_batches_grow_and_no_sample_is_seen_twice_or_missed():
    plan = BatchPlan(64, 8, 10)
    sizes = [plan.size_at(step) for step in range(15)]
    assert sizes[0] == 8 and sizes[10:] == [64] * 5 and sizes == sorted(sizes) and len(set(sizes)) == 11
    assert [plan.start_of(step) for step in range(16)] == [0, *itertools.accumulate(sizes)]
    assert BatchPlan(8, 8).start_of(7) == 56 and BatchPlan(16, 64, 4).smallest == 16


def test_a_run_with_growing_batches_resumes_exactly(tmp_path):
    growing = {"batch_from": 2, "batch_warmup_steps": 7, "steps": 12, "checkpoint_s": 1e9}
    whole = build(tmp_path / "whole", **growing)
    seen = []
    take = whole.batches.rows.rows
    whole.batches.rows.rows = lambda numbers: seen.append(len(numbers)) or take(numbers)
    whole.train()
    assert seen == [2, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8]
    calls = iter(range(100))
    with pytest.raises(Preempted):
        build(tmp_path / "stopped", **growing, should_stop=lambda: next(calls) == 4).train()
    resumed = build(tmp_path / "stopped", **growing)
    resumed.train()
    assert resumed.history.train == whole.history.train and resumed.history.tokens == whole.history.tokens


def test_more_ranks_than_sequences_in_the_smallest_batch(tmp_path):
    ranks = Ranks(torch.device("cpu"))
    ranks.world = 4
    given = build(tmp_path, steps=1, batch_from=2, batch_warmup_steps=5)
    with pytest.raises(BadParams, match="4 ranks are to share a batch of 2 sequences"):
        type(given)(
            given.model, given.rows, given.held_out, given.config, given.run, given.saver.checkpoints, ranks=ranks
        )


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    """To 1e-6 of the norm; the mean is over the masked tokens of the whole batch, whatever the size of its parts."""
    gradients, losses = {}, {}
    for size in (0, 1, 3, 4):
        training = build(tmp_path, steps=1, micro_batch=size, dropout=0.0)
        batch = training.batches.at(0, training.ranks)
        loss, _ = training._backward(batch, batch.masked.labels.ne(-100).sum())
        losses[size] = loss.item()
        gradients[size] = torch.cat([each.grad.flatten() for each in training.model.parameters()]).double()
    for size in (1, 3, 4):
        assert losses[size] == pytest.approx(losses[0], rel=1e-6)
        assert (gradients[size] - gradients[0]).norm() < 1e-6 * gradients[0].norm()


@pytest.fixture
def clock(monkeypatch):
    """The loop's steady clock, which here moves a second at each look."""
    ticks = itertools.count(1000)
    patched = SimpleNamespace(monotonic=lambda: float(next(ticks)), perf_counter=time.perf_counter, time=time.time)
    monkeypatch.setattr("roberta_core.train.loop.time", patched)


def test_a_time_budget_ends_the_run_and_the_rate_falls_with_it(tmp_path, clock):
    training = build(tmp_path, steps=10**6, checkpoint_s=1e9, max_minutes=1.0, log_every=1)
    training.train()
    assert 20 < training.step <= 60 and 60 <= training.history.used_s < 65
    rates = [point["lr"] for point in training.history.train]
    assert rates[-1] < 0.1 * max(rates) and rates[0] < 0.1 * max(rates)
    assert training.history.validation[-1]["step"] == training.step


def test_resume_goes_on_with_the_time_that_is_left(tmp_path, clock):
    calls = iter(range(100))
    budget = {"steps": 10**6, "checkpoint_s": 1e9, "max_minutes": 1.0}
    first = build(tmp_path, **budget, should_stop=lambda: next(calls) == 10)
    with pytest.raises(Preempted):
        first.train()
    second = build(tmp_path, **budget)
    assert second.history.used_s == first.history.used_s > 10
    second.train()
    assert 60 <= second.history.used_s < 65
    again = build(tmp_path, **budget)
    assert again.train().loss == second.history.validation[-1]["loss"] and again.step == second.step


def test_a_clock_on_the_wall_that_jumps_does_no_harm(tmp_path, monkeypatch):
    build(tmp_path / "calm", steps=8).train()
    jumps = itertools.cycle([0.0, 4e9, -1.0, 1e5])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    training = build(tmp_path / "wild", steps=8, max_minutes=1e4)
    training.train()
    assert training.step == 8 and 0 < training.history.used_s < 600


def stable_adamw_by_hand(weight, gradients, lr, betas, eps, decay):
    """Algorithm 2 of Wortsman et al. 2023, one tensor, in float64."""
    weight, first, second = weight.astype(np.float64), 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        beta1, beta2 = (beta * (1 - beta ** (step - 1)) / (1 - beta**step) for beta in betas)
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        rms = np.sqrt(np.mean(gradient**2 / np.maximum(second, eps**2)))
        rate = lr / max(1.0, rms)
        weight = weight - rate * decay * weight - rate * first / (np.sqrt(second) + eps)
    return weight


def test_stable_adamw_is_the_papers_algorithm():
    rng = np.random.default_rng(1)
    shapes = [(5, 7), (11,), (3, 2)]
    weights = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    scales = [1, 1, 1, 300, 1, 0, 1]  # a jump, which is clipped, and a zero
    gradients = [[(scale * rng.normal(size=shape)).astype(np.float32) for shape in shapes] for scale in scales]
    parameters = [torch.nn.Parameter(torch.from_numpy(weight.copy())) for weight in weights]
    optimizer = StableAdamW(parameters, lr=0.01, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    plain = torch.optim.AdamW(
        [torch.nn.Parameter(p.detach().clone()) for p in parameters], 0.01, (0.9, 0.98), 1e-6, 0.1
    )
    for gradient in gradients:
        for each, other, value in zip(parameters, plain.param_groups[0]["params"], gradient):
            each.grad, other.grad = torch.from_numpy(value), torch.from_numpy(value.copy())
        optimizer.step()
        plain.step()
    for number, (parameter, weight) in enumerate(zip(parameters, weights)):
        expected = stable_adamw_by_hand(weight, [g[number] for g in gradients], 0.01, (0.9, 0.98), 1e-6, 0.1)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=2e-5, atol=2e-6)
    assert not torch.allclose(parameters[0], plain.param_groups[0]["params"][0], atol=1e-3)  # clipping did something


@pytest.mark.parametrize("optimizer", ["adamw", "stable-adamw", "muon"])
def test_each_optimizer_learns_and_resumes_exactly(tmp_path, optimizer):
    settings = {"optimizer": optimizer, "steps": 14, "checkpoint_s": 1e9}
    whole = build(tmp_path / "whole", **settings)
    whole.train()
    assert whole.history.train[-1]["loss"] < whole.history.train[0]["loss"] - 0.02
    calls = iter(range(100))
    with pytest.raises(Preempted):
        build(tmp_path / "stopped", **settings, should_stop=lambda: next(calls) == 6).train()
    resumed = build(tmp_path / "stopped", **settings)
    resumed.train()
    assert resumed.history.train == whole.history.train and resumed.history.validation == whole.history.validation
