"""The order of rows: a permutation in every epoch, another one in each, and nothing to remember."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.data.order import permute, rows_at


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**31), epoch=st.integers(0, 10**6))
def test_each_epoch_is_a_permutation(size, seed, epoch):
    assert sorted(permute(np.arange(size), size, seed, epoch)) == list(range(size))


def test_epochs_and_seeds_differ():
    orders = [permute(np.arange(500), 500, seed, epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_places_are_uniform():
    """Over many epochs each row stands at each place about equally often (chi-square over 16 × 16 cells)."""
    from scipy.stats import chisquare

    size, epochs = 16, 4000
    counts = np.zeros((size, size))
    for epoch in range(epochs):
        counts[np.arange(size), permute(np.arange(size), size, 7, epoch)] += 1
    assert chisquare(counts.ravel()).pvalue > 1e-4


def test_neighbours_do_not_stay_together():
    order = permute(np.arange(100_000), 100_000, 3, 0)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batches_cross_epochs_without_loss(batch):
    size = 50
    rows = np.concatenate([rows_at(start, batch, size, 5)[0] for start in range(0, 10 * size, batch)])[: 10 * size]
    assert all(sorted(rows[at : at + size]) == list(range(size)) for at in range(0, 10 * size, size))
    epochs = np.concatenate([rows_at(start, batch, size, 5)[1] for start in range(0, 10 * size, batch)])[: 10 * size]
    assert epochs.tolist() == [number // size for number in range(10 * size)]
