"""Training on the words that occur: while a task is learned, the embedding table holds the rows of its tokens alone.

A task's training rows use a part of the vocabulary (RTE: a half of 16,000 entries), and of an entry that never occurs the
gradient is 0: AdamW does nothing to it but weight decay. So those rows are put aside, and decayed all at once when the table is
whole again. Same weights but for rounding in the rows put aside; the optimizer's pass over the table, its moments and the
zeroing of its gradient shrink with it. Where texts change from epoch to epoch, so do their tokens, and the table stays whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from roberta_core.finetune.rows import Rows


class UsedVocabulary:
    """Makes a model's table small, and whole again for a while or for good.

    Args:
        model: with its encoder as `.roberta`. Its table holds the used rows from now on.
        rows: all that it will be trained on.
        weight_decay: of the table, as a share of the learning rate.
    """

    def __init__(self, model: torch.nn.Module, rows: Rows, weight_decay: float):
        self.weight = model.roberta.embeddings.word_embeddings.weight
        size = len(self.weight)
        used = np.zeros(size, bool)
        used[: rows.pad + 1] = True  # so that padding keeps its number, by which positions are counted
        for ids in rows.ids:
            used[np.asarray(ids)] = True
        self.used = torch.from_numpy(np.flatnonzero(used)).to(self.weight.device)
        self._number = np.cumsum(used, dtype=np.int32) - 1
        self._aside = self.weight.detach().clone()
        self._weight_decay, self._left = weight_decay, 1.0
        self.weight.data = self._aside[self.used]

    def numbered(self, rows: Rows) -> Rows:
        """The rows with their tokens' numbers in the small table."""
        return replace(rows, ids=[self._number[np.asarray(ids)] for ids in rows.ids])

    def decayed(self, rates: Iterable[float]) -> None:
        """Notes the learning rates of updates that were made."""
        for lr in rates:
            self._left *= 1.0 - lr * self._weight_decay

    @contextmanager
    def whole(self) -> Iterator[None]:
        """The whole table, the rows put aside decayed: for scoring any text, and for keeping the weights."""
        small = self.weight.data
        table = self._aside * self._left
        table[self.used] = small
        self.weight.data = table
        try:
            yield
        finally:
            self.weight.data = small

    def restore(self) -> None:
        """The whole table for good."""
        with self.whole():
            table = self.weight.data
        self.weight.data = table
