"""The masks are what dropout asks for: the right share, independent, seeded by torch, the same on any number of threads."""

import itertools

import numpy as np
import pytest
import torch

from roberta_core.model import RobertaConfig, RobertaForMaskedLM, dropout
from roberta_core.model.dropout import BLOCK_WORDS, Dropout, dropped_share, is_fast, keep_mask, random_bits

MANY = 1 << 20
SIGMAS = 5.0  # of a normal distribution: one false alarm in two million


def dropped(p: float = 0.1, count: int = MANY) -> np.ndarray:
    """1.0 where an element is dropped."""
    return keep_mask((count,), p, torch.bfloat16).eq(0).double().numpy()


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_the_dropped_share_is_right(p):
    torch.manual_seed(1)
    assert abs(dropped_share(p) - p) <= 2**-17
    error = (p * (1 - p) / MANY) ** 0.5
    assert abs(dropped(p).mean() - dropped_share(p)) < SIGMAS * error


def test_elements_are_independent_of_their_neighbours_and_of_other_draws():
    """Both dropped as often as chance says: at many distances inside a draw, across blocks, and between draws."""
    torch.manual_seed(2)
    draws = [dropped() for _ in range(4)]
    pairs = [(draws[0][:-gap], draws[0][gap:]) for gap in (1, 2, 3, 4, 7, 64, 128, 256, 1024, 4 * BLOCK_WORDS)]
    pairs += itertools.combinations(draws, 2)
    for first, second in pairs:
        both, expected = (first * second).mean(), 0.1 * 0.1
        assert abs(both - expected) < SIGMAS * (expected * (1 - expected) / len(first)) ** 0.5


def test_all_values_are_equally_likely():
    counts = np.bincount(random_bits(1 << 22, seed=5).numpy().astype(np.int64) + 32768, minlength=65536)
    chi2 = ((counts - 64) ** 2 / 64).sum()  # mean 65,535, standard deviation sqrt(2 · 65,535)
    assert abs(chi2 - 65535) < SIGMAS * (2 * 65535) ** 0.5


def test_bits_do_not_depend_on_threads_and_short_draws_begin_long_ones(monkeypatch):
    monkeypatch.setattr(dropout, "WORDS_A_THREAD", BLOCK_WORDS)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(random_bits(4 * BLOCK_WORDS * 5 + 3, seed=7))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert torch.equal(random_bits(999, seed=7), found[0][:999])
    assert not torch.equal(random_bits(999, seed=8), found[0][:999])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients(dtype):
    part = Dropout(0.1)
    values = torch.randn(64, 96).to(dtype).requires_grad_()
    residual = torch.randn(64, 96).to(dtype).requires_grad_()
    weight = torch.randn(64, 96).to(dtype)
    torch.manual_seed(3)
    alone = part(values)
    torch.manual_seed(3)
    keep = keep_mask((64, 96), 0.1, dtype).ne(0)
    scale = 1 / (1 - dropped_share(0.1))
    torch.testing.assert_close(alone, (values.float() * keep * scale).to(dtype))
    torch.manual_seed(3)
    result = part.plus(values, residual)
    torch.testing.assert_close(result, residual + (values.float() * keep * scale).to(dtype))
    result.backward(weight)
    torch.testing.assert_close(values.grad, (weight.float() * keep * scale).to(dtype))
    assert torch.equal(residual.grad, weight)


def test_the_scale_makes_the_mean_right():
    torch.manual_seed(4)
    for dtype in (torch.float32, torch.bfloat16):
        values = (1 + torch.rand(MANY)).to(dtype)  # many values: one alone may round up or down in bfloat16
        ratio = (Dropout(0.1)(values).double().sum() / values.double().sum()).item()
        assert abs(ratio - 1) < 1.1 * SIGMAS * (0.1 / 0.9 / MANY) ** 0.5  # 1.02: the spread of the values


def test_evaluation_is_the_identity_and_the_edges_are_torchs():
    values = torch.randn(8, 8)
    assert Dropout(0.1).eval()(values) is values
    assert torch.equal(Dropout(0.1).eval().plus(values, values), 2 * values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert not is_fast(values, 1.0) and torch.equal(Dropout(1.0)(values), torch.zeros(8, 8))
    torch.testing.assert_close(Dropout(1e-7)(values), values)


def test_a_model_draws_other_masks_in_each_layer_and_pass_and_the_same_from_one_seed():
    model = RobertaForMaskedLM(RobertaConfig.named("tiny", 99, 16, 0.1)).train()
    ids = torch.randint(4, 99, (2, 16))
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs += [model(ids), model(ids)]
    assert torch.equal(outputs[0], outputs[2]) and torch.equal(outputs[1], outputs[3])
    assert not torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[4])
