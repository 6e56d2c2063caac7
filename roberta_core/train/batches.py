"""Which rows make the batch of an update, and how they are masked: a function of the update's number and nothing else.

A batch may grow over the first updates (small batches learn more a token while the loss is high; McCandlish et al. 2018,
arXiv 1812.06162). The sample that an update begins with is then the sum of the sizes before it, which is computed too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from roberta_core.data.order import rows_at
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import PAD
from roberta_core.device import to_device
from roberta_core.errors import BadParams
from roberta_core.train.masking import MaskedBatch, Masking, mask_batch
from roberta_core.train.ranks import Ranks


@dataclass(frozen=True)
class BatchPlan:
    """The size of every batch, in sequences.

    Attributes:
        size: after the warmup.
        first: of the first update.
        warmup_steps: updates over which it grows from `first` to `size`, in even steps.
    """

    size: int
    first: int
    warmup_steps: int = 0

    def size_at(self, step: int) -> int:
        """Sequences of update `step` (the first is 0)."""
        if step >= self.warmup_steps:
            return self.size
        return self.first + (self.size - self.first) * step // self.warmup_steps

    def start_of(self, step: int) -> int:
        """Sequences of all updates before `step`."""
        grown = sum(self.size_at(each) for each in range(min(step, self.warmup_steps)))
        return grown + self.size * max(0, step - self.warmup_steps)

    @property
    def smallest(self) -> int:
        """The smallest batch of all."""
        return min(self.size, self.first) if self.warmup_steps else self.size


class Batch(NamedTuple):
    """A rank's part of the batch of one update.

    Attributes:
        masked: its inputs, positions and labels, on the device.
        real: bool [B, L], false at padding; None where no row is padded.
        rows: B.
        tokens: that are no padding.
        slots: B · L.
        documents: int32 [B, L] on the CPU, which document of its row a token belongs to; None where rows are not isolated.
    """

    masked: MaskedBatch
    real: torch.Tensor | None
    rows: int
    tokens: int
    slots: int
    documents: torch.Tensor | None


class Batches:
    """The batches of a run.

    Args:
        rows: the training split.
        plan: the size of every batch.
        masking: what is masked, and how much of it.
        vocab_size: `<mask>` is the last id.
        seed: of the run.
        device: where the batches are needed.
        word_table: bool [vocabulary], which tokens begin a word: asked for where whole words are masked and the rows do not
            tell where words begin.
        fixed_slots: all updates have as many slots a row as the one that masks most, for a model that is compiled. Otherwise
            the head works for the share of tokens that is masked just now.

    Raises:
        BadParams: nothing tells where words begin.
    """

    def __init__(
        self,
        rows: PackedRows,
        plan: BatchPlan,
        masking: Masking,
        vocab_size: int,
        seed: int,
        device: torch.device,
        word_table: np.ndarray | None = None,
        fixed_slots: bool = False,
    ):
        self.rows, self.plan, self.seed, self.device = rows, plan, seed, device
        self.masking, self.vocab_size = masking, vocab_size
        self._most = masking.most if fixed_slots else None
        self._word_table = None if word_table is None else torch.from_numpy(word_table)
        if masking.needs_words and word_table is None and rows.word_starts(np.zeros(1, np.int64)) is None:
            raise BadParams(
                f"Masking of {masking.kind} needs to know where words begin, and neither rows nor vocabulary tell.",
                "Set pretrain.masking to tokens.",
            )
        self._next = (0, 0)  # an update and the sample that it starts with

    def at(self, step: int, ranks: Ranks, done: float = 0.0) -> Batch:
        """This rank's part of the batch of update `step`, when `done` (0 to 1) of the run is over."""
        size = self.plan.size_at(step)
        start = self._next[1] if self._next[0] == step else self.plan.start_of(step)
        self._next = step + 1, start + size
        numbers, epochs = rows_at(start, size, len(self.rows), self.seed)
        share = ranks.share(size)
        numbers, epochs = numbers[share], epochs[share]
        ids = torch.from_numpy(self.rows.rows(numbers))
        real = ids.ne(PAD)
        tokens = int(real.sum())
        masked = mask_batch(
            to_device(ids, self.device),
            to_device(torch.from_numpy(numbers), self.device),
            to_device(torch.from_numpy(epochs), self.device),
            self.seed,
            self.masking.prob_at(done),
            self.vocab_size,
            self.masking.kind,
            self._word_starts(numbers, ids),
            self._most,
        )
        padded = tokens < ids.numel()
        documents = torch.from_numpy(self.rows.documents(numbers)) if self.rows.isolated else None
        real = to_device(real, self.device) if padded else None
        return Batch(masked, real, len(ids), tokens, ids.numel(), documents)

    def _word_starts(self, numbers: np.ndarray, ids: torch.Tensor) -> torch.Tensor | None:
        """Where words begin in the rows `numbers`, on the device; None where nobody asks."""
        if not self.masking.needs_words:
            return None
        stored = self.rows.word_starts(numbers)
        starts = self._word_table[ids] if stored is None else torch.from_numpy(stored)
        return to_device(starts, self.device)
