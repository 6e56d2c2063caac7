"""The order of the rows in an epoch: a pseudo-random permutation that is computed, not stored.

A Feistel network over the row number, walked until the result is a row again, gives a bijection on 0 … n-1 for each
(seed, epoch). Row `i` of the order costs a few integer operations and no memory, so any rank can ask for any part of
any epoch, and a resumed run needs nothing but the number of samples already seen. A shuffled list of 400 million
row numbers would be 3 GB on every rank.
"""

import numpy as np

from roberta_core.counter_random import key_of, mix_array

ROUNDS = 6
"""Four rounds make a strong pseudo-random permutation of a good round function (Luby & Rackoff 1988); two to spare."""


def permute(index: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """The rows that stand at the places `index` of the epoch's order.

    Args:
        index: int64 [N], places in 0 … size-1.
        size: rows in the data.

    Returns:
        int64 [N]; over all places it is a permutation of the rows.
    """
    half = max(1, -(-max(size - 1, 1).bit_length() // 2))
    low = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    keys = [np.uint64(key_of(seed, epoch, round_number)) for round_number in range(ROUNDS)]

    def once(values: np.ndarray) -> np.ndarray:
        left, right = values >> shift, values & low
        for key in keys:
            left, right = right, left ^ (mix_array(right + key) & low)
        return (left << shift) | right

    values = once(index.astype(np.uint64))
    outside = np.flatnonzero(values >= size)
    while outside.size:  # cycle walking: at most four values of the network's domain for each row, on average
        values[outside] = once(values[outside])
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def rows_at(start: int, count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the samples `start` … `start + count - 1` of a run that goes round the data epoch after epoch.

    Returns:
        rows and epochs, int64 [count] each. A batch may end one epoch and begin the next; no row is left out.
    """
    samples = np.arange(start, start + count, dtype=np.int64)
    epochs, places = samples // size, samples % size
    rows = np.empty(count, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = permute(places[here], size, seed, int(epoch))
    return rows, epochs
