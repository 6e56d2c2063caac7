"""Held-out masked loss, with masks that never change, beside what a model without context would get.

The masks depend on the row alone: always 15 %, always the same tokens, whatever the training used, so that losses of
different runs compare. The unigram entropy of the very same masked tokens is the plateau that short runs sit on: it is
the least loss that any predictor without context can have there, as it is fitted to these tokens themselves.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import PAD
from roberta_core.device import autocast
from roberta_core.model import RobertaForMaskedLM
from roberta_core.model.isolation import has_varlen, isolate
from roberta_core.train.masking import IGNORED, MaskedBatch, mask_batch
from roberta_core.train.ranks import Ranks

EVAL_SEED = 0x5EED
EVAL_MASK_PROB = 0.15
PLATEAU_NATS = 0.1
"""A loss less than this below the unigram entropy counts as sitting on the plateau."""


@dataclass(frozen=True)
class Evaluation:
    """Loss in nats per masked token, and the share of masked tokens whose most likely prediction is right."""

    loss: float
    accuracy: float


class HeldOut:
    """The held-out rows with their fixed masks.

    Args:
        rows: the validation split; the first `limit` rows are scored. Rows of best-fit packing are scored as they are
            trained on: no document sees another.
        limit: at most this many.
        vocab_size: `<mask>` is the last id.
        batch_size: rows a forward pass.
    """

    def __init__(self, rows: PackedRows, limit: int, vocab_size: int, batch_size: int = 64):
        self.vocab_size = vocab_size
        count = min(limit, len(rows))
        self._batches: list[tuple[MaskedBatch, torch.Tensor, torch.Tensor | None]] = []
        for start in range(0, count, batch_size):
            numbers = np.arange(start, min(start + batch_size, count))
            ids = torch.from_numpy(rows.rows(numbers))
            keys = torch.from_numpy(numbers)
            documents = torch.from_numpy(rows.documents(numbers)) if rows.isolated else None
            masked = mask_batch(ids, keys, torch.zeros_like(keys), EVAL_SEED, EVAL_MASK_PROB, vocab_size)
            self._batches.append((masked, ids.ne(PAD), documents))

    @cached_property
    def targets(self) -> np.ndarray:
        """The masked tokens, int64 [N]."""
        return torch.cat([masked.labels[masked.labels != IGNORED] for masked, _, _ in self._batches]).numpy()

    def unigram_entropy(self) -> float:
        """Entropy in nats of the masked tokens' own distribution."""
        counts = np.bincount(self.targets, minlength=self.vocab_size)
        share = counts[counts > 0] / counts.sum()
        return float(-(share * np.log(share)).sum())

    @torch.no_grad()
    def score(
        self, model: RobertaForMaskedLM, device: torch.device, precision: str, ranks: Ranks | None = None
    ) -> Evaluation:
        """Scores the model, each of `ranks` its part; leaves it in the mode it was in."""
        ranks = ranks or Ranks(device)
        training = model.training
        model.eval()
        loss = torch.zeros((), dtype=torch.float64, device=device)
        right = torch.zeros((), dtype=torch.int64, device=device)
        varlen = has_varlen(device, precision, dropout=0.0)
        # all ranks run the model equally often, which gathers a sharded one; what is beyond the end does not count
        for number in range(ranks.rank, -(-len(self._batches) // ranks.world) * ranks.world, ranks.world):
            counts = number < len(self._batches)
            masked, real, documents = self._batches[number if counts else -1]
            labels = masked.labels.to(device)
            padded = None if bool(real.all()) else real.to(device)
            isolation = None
            if documents is not None:
                isolation = isolate(documents, model.config.pad_token_id, device, varlen)
            with autocast(device, precision):
                part, hits = model(
                    masked.input_ids.to(device), padded, masked.positions.to(device), labels, isolation=isolation
                )
            if counts:
                loss += part.double()
                right += hits
        model.train(training)
        total = len(self.targets)
        loss_sum, right_sum = ranks.sum(loss, right)
        return Evaluation(loss_sum / total, right_sum / total)


def perplexity(loss: float) -> float:
    """exp of a loss in nats; finite for any loss."""
    return math.exp(min(loss, 700.0))
