"""Dynamic masking (Liu et al. 2019, section 4.1), on the batch, on its device, fresh every epoch.

Which tokens are masked, and with what, is a pure function of (seed, epoch, row): nothing to save, nothing to replay.
A row gets `mask_prob` times its eligible tokens, rounded up or down at random, as in fairseq; of those 80 % become
`<mask>`, 10 % another token, 10 % stay (Devlin et al. 2019). Specials are never chosen, nor drawn as the other token.
The result has a fixed shape, so no step waits for the device to count, and the model can be compiled.

Tokens are chosen in units, whose order is drawn:

- `tokens`: each by itself.
- `whole-word`: all tokens of a word or none. Words are taken as long as they fit into the row's share; what is then left
  is filled with words of one token, so that the share holds. A word longer than the share is never chosen.
- `spans`: runs of whole words, their lengths geometric with p = 0.2, at most 10 (Joshi et al. 2020, section 3.1); the row
  is cut into such runs, so that every token is in one; the last run that is taken is cut off, at either end, at the
  row's share. The 80/10/10 is drawn once a run, as there.

The share may change over the run, in a straight line (`mask_prob_end`); Wettig et al. 2023 find shares above 15 % better for
large models, and falling shares have been found to help (Ankner et al. 2024).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from roberta_core.counter_random import GOLDEN, _signed, hash_positions, key_of, mix_tensor

NUM_SPECIAL = 4
"""<s>, <pad>, </s>, <unk> are 0 to 3; <mask> is the last id."""
IGNORED = -100
"""Label of an unused slot: torch's `cross_entropy` leaves it out by default."""
KEEP_SHARE, RANDOM_SHARE = 0.1, 0.1

SPAN_P, SPAN_WORDS = 0.2, 10
"""Joshi et al. 2020, section 3.1: geometric lengths in words, clipped (redrawn above 10; 3.8 words in the mean)."""

_CHOICE, _ROUNDING, _REPLACEMENT, _RANDOM_TOKEN, _SPAN, _END = range(6)
_LAST = torch.iinfo(torch.int64).max
_PHASE = 32
"""Words before a row among which it begins: some spans, so that any place of one is as likely as in mid-row."""

_UNIT_BITS = (1 << 60) - (1 << 13)
"""Of a unit's hash: below them stands a token's place in its row, above them there is room for a second class."""


@dataclass(frozen=True)
class Masking:
    """How a run masks.

    Attributes:
        kind: "tokens", "whole-word" or "spans".
        prob: share of the eligible tokens at the start.
        prob_end: at the end; None: the same.
    """

    kind: str
    prob: float
    prob_end: float | None = None

    def prob_at(self, done: float) -> float:
        """The share when `done` (0 to 1) of the run is over."""
        if self.prob_end is None:
            return self.prob
        return self.prob + (self.prob_end - self.prob) * min(max(done, 0.0), 1.0)

    @property
    def most(self) -> float:
        """The largest share of the run: it decides the memory, and in a compiled model, whose shapes stay, the slots of a row."""
        return max(self.prob_at(0.0), self.prob_at(1.0))

    @property
    def mean(self) -> float:
        """Over the run."""
        return self.prob_at(0.5)

    @property
    def needs_words(self) -> bool:
        """Whether it must be known where words begin."""
        return self.kind != "tokens"


class MaskedBatch(NamedTuple):
    """Inputs and targets of one batch.

    Attributes:
        input_ids: int64 [B, L], some tokens replaced.
        positions: int64 [B · K], indices into the flattened tokens; K slots a row.
        labels: int64 [B · K], the original tokens, or `IGNORED` in slots that a row does not use.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor


def slots(length: int, mask_prob: float) -> int:
    """K, the most tokens that can be masked in a row of `length`: `<s>` and `</s>` are never eligible."""
    return min(length, math.floor(mask_prob * (length - 2)) + 1)


def mask_batch(
    input_ids: torch.Tensor,
    rows: torch.Tensor,
    epochs: torch.Tensor,
    seed: int,
    mask_prob: float,
    vocab_size: int,
    kind: str = "tokens",
    word_starts: torch.Tensor | None = None,
    most: float | None = None,
) -> MaskedBatch:
    """Masks a batch.

    Args:
        input_ids: int64 [B, L], as packed; L at most 8192.
        rows: int64 [B], the row of the data that each sample is.
        epochs: int64 [B], the epoch in which it is seen.
        seed: of the run.
        mask_prob: share of the eligible tokens to mask.
        vocab_size: `<mask>` is `vocab_size - 1`.
        kind: of `Masking`.
        word_starts: bool [B, L], true where a word begins; asked for by "whole-word" and "spans". Specials always are words
            of their own.
        most: a share that decides the number of slots, so that it stays while `mask_prob` falls; None: `mask_prob`.
    """
    batch, length = input_ids.shape
    mask_id = vocab_size - 1
    count = slots(length, most or mask_prob)
    keys = mix_tensor(mix_tensor(epochs * _signed(GOLDEN) + _signed(key_of(seed))) + rows)

    eligible = (input_ids >= NUM_SPECIAL) & (input_ids != mask_id)
    rounding = hash_positions(keys, 1, _ROUNDING)[:, 0].double() / 2.0**63
    wanted = (eligible.sum(1) * mask_prob + rounding).floor().long()  # [B]

    # The K eligible tokens with the smallest hashes are a uniform choice without repetition.
    rank = hash_positions(keys, length, _CHOICE)
    fates = hash_positions(keys, length, _REPLACEMENT)
    if kind == "tokens":
        rank = rank.masked_fill(~eligible, _LAST)
    else:
        unit = _words(word_starts, eligible)
        place = torch.arange(length, device=rank.device)
        if kind == "spans":
            unit = _spans(unit, keys, length)
            fates = fates.gather(1, unit)
            # which end of the last run is cut off is drawn: else the end of a row would be masked less than its beginning
            backwards = hash_positions(keys, 1, _END) & 1
            place = place + backwards * (length - 1 - 2 * place)
        # a unit's tokens stay together, in order: its hash above, the place below
        rank = ((rank.gather(1, unit) & _UNIT_BITS) | place).masked_fill(~eligible, _LAST)
        if kind == "whole-word":
            rank = _whole(rank, unit, eligible, wanted, count)
    ranks, chosen = rank.topk(count, dim=1, largest=False, sorted=True)  # [B, K]
    used = (torch.arange(count, device=chosen.device) < wanted[:, None]) & (ranks != _LAST)

    original = input_ids.gather(1, chosen)
    fate = fates.gather(1, chosen).double() / 2.0**63
    other = NUM_SPECIAL + hash_positions(keys, length, _RANDOM_TOKEN).gather(1, chosen) % (mask_id - NUM_SPECIAL)
    replaced = torch.where(fate < RANDOM_SHARE, other, torch.full_like(original, mask_id))
    replaced = torch.where((fate >= 1 - KEEP_SHARE) | ~used, original, replaced)

    offsets = torch.arange(batch, device=chosen.device)[:, None] * length
    return MaskedBatch(
        input_ids.scatter(1, chosen, replaced),
        (chosen + offsets).flatten(),
        torch.where(used, original, IGNORED).flatten(),
    )


def _words(starts: torch.Tensor, eligible: torch.Tensor) -> torch.Tensor:
    """The number of each token's word in its row: int64 [B, L]. A token that is not eligible, and one after it, begin one."""
    begins = starts | ~eligible
    begins[:, 1:] |= ~eligible[:, :-1]
    begins[:, 0] = True
    return begins.cumsum(1) - 1


def _spans(word: torch.Tensor, keys: torch.Tensor, length: int) -> torch.Tensor:
    """The number of each token's span in its row: int64 [B, L], of the numbers of words. Spans may have specials inside."""
    # P(length <= n) of a geometric length that is redrawn above SPAN_WORDS
    below = 1 - (1 - SPAN_P) ** torch.arange(1, SPAN_WORDS, device=word.device, dtype=torch.float64)
    drawn = hash_positions(keys, length + _PHASE + 1, _SPAN)
    lengths = 1 + torch.bucketize(drawn.double() / 2.0**63, below / (1 - (1 - SPAN_P) ** SPAN_WORDS), right=True)
    # a row begins somewhere in a span: were it always the beginning, its first tokens would be masked more often
    unit = torch.searchsorted(lengths.cumsum(1), word + drawn[:, -1:] % _PHASE, right=True)
    return unit - unit[:, :1]


def _whole(
    rank: torch.Tensor, word: torch.Tensor, eligible: torch.Tensor, wanted: torch.Tensor, count: int
) -> torch.Tensor:
    """The ranks anew, so that the first `wanted` tokens of a row are whole words.

    Args:
        rank: int64 [B, L], the same order within a word as in the row; `_LAST` where a token is not eligible.
        word: int64 [B, L].
        wanted: int64 [B], at most `count`.
    """
    size = torch.zeros_like(rank).scatter_add_(1, word, eligible.long()).gather(1, word)
    fits = eligible & (size <= wanted[:, None])
    rank = rank.masked_fill(~fits, _LAST)
    ranks, chosen = rank.topk(count, dim=1, largest=False, sorted=True)
    place = torch.arange(rank.shape[1], device=rank.device).expand_as(rank)
    first = torch.full_like(rank, _LAST).scatter_reduce_(1, word, place.contiguous(), "amin").gather(1, word)
    # the slot after the last one of a token's word: once it is beyond the share, it is for all words after
    slot = torch.arange(count, device=rank.device)
    end = slot - (chosen - first.gather(1, chosen)) + size.gather(1, chosen)
    whole = (end <= wanted[:, None]) & (ranks != _LAST)
    taken = torch.zeros_like(eligible).scatter(1, chosen, whole)
    # taken words first, then words of one token, then nothing
    later = torch.where(fits & (size == 1), rank + (1 << 60), _LAST)
    return torch.where(taken, rank, later)
