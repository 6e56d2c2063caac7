"""Union-find over document numbers, in whole arrays: a cluster is named by its first document.

A parent is never a larger number than its child, so the root of a cluster is its smallest number whatever the order of
the pairs. All pairs of a call are hooked at once, and the chains that come of it are halved until they are flat: some
log n passes, where a Python loop would take a microsecond a pair. Memory: 8 bytes a document.
"""

import numpy as np


class Clusters:
    """`size` documents, each a cluster by itself at first."""

    def __init__(self, size: int):
        self._parent = np.arange(size, dtype=np.int64)

    def find(self, numbers: np.ndarray) -> np.ndarray:
        """The first document of the cluster of each of `numbers`: int64, of the same shape."""
        parent = self._parent
        roots = parent[numbers]
        while True:
            further = parent[roots]
            if np.array_equal(further, roots):
                return roots
            parent[numbers] = further
            roots = parent[further]

    def unite(self, first: np.ndarray, second: np.ndarray) -> None:
        """Puts the clusters of each pair together; `first` and `second` are int64 [pairs]."""
        while len(first):
            first, second = self.find(first), self.find(second)
            apart = first != second
            first, second = first[apart], second[apart]
            # of several smaller roots for one, the least is taken; the others come again in the next round
            np.minimum.at(self._parent, np.maximum(first, second), np.minimum(first, second))

    def roots(self) -> np.ndarray:
        """For every document the first of its cluster: int64 [size]."""
        return self.find(np.arange(len(self._parent)))


def join(size: int, pairs: np.ndarray) -> np.ndarray:
    """For each of `size` documents the first of its cluster, where `pairs` (int64 [pairs, 2]) belong together: int64 [size]."""
    clusters = Clusters(size)
    clusters.unite(pairs[:, 0], pairs[:, 1])
    return clusters.roots()
