"""Dynamic masking (Liu et al. 2019, section 4.1), on the batch, on its device, fresh every epoch.

Which tokens are masked, and with what, is a pure function of (seed, epoch, row): nothing to save, nothing to replay.
A row gets `mask_prob` times its eligible tokens, rounded up or down at random, as in fairseq; of those 80 % become
`<mask>`, 10 % another token, 10 % stay (Devlin et al. 2019). Specials are never chosen, nor drawn as the other token.
The result has a fixed shape, so no step waits for the device to count, and the model can be compiled.
"""

import math
from typing import NamedTuple

import torch

from roberta_core.counter_random import GOLDEN, _signed, hash_positions, key_of, mix_tensor

NUM_SPECIAL = 4
"""<s>, <pad>, </s>, <unk> are 0 to 3; <mask> is the last id."""
IGNORED = -100
"""Label of an unused slot: torch's `cross_entropy` leaves it out by default."""
KEEP_SHARE, RANDOM_SHARE = 0.1, 0.1

_CHOICE, _ROUNDING, _REPLACEMENT, _RANDOM_TOKEN = range(4)


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
    input_ids: torch.Tensor, rows: torch.Tensor, epochs: torch.Tensor, seed: int, mask_prob: float, vocab_size: int
) -> MaskedBatch:
    """Masks a batch.

    Args:
        input_ids: int64 [B, L], as packed.
        rows: int64 [B], the row of the data that each sample is.
        epochs: int64 [B], the epoch in which it is seen.
        seed: of the run.
        mask_prob: share of the eligible tokens to mask.
        vocab_size: `<mask>` is `vocab_size - 1`.
    """
    batch, length = input_ids.shape
    mask_id = vocab_size - 1
    keys = mix_tensor(mix_tensor(epochs * _signed(GOLDEN) + _signed(key_of(seed))) + rows)

    eligible = (input_ids >= NUM_SPECIAL) & (input_ids != mask_id)
    rounding = hash_positions(keys, 1, _ROUNDING)[:, 0].double() / 2.0**63
    wanted = (eligible.sum(1) * mask_prob + rounding).floor().long()  # [B]

    # The K eligible tokens with the smallest hashes are a uniform choice without repetition.
    rank = hash_positions(keys, length, _CHOICE).masked_fill(~eligible, torch.iinfo(torch.int64).max)
    chosen = rank.topk(slots(length, mask_prob), dim=1, largest=False, sorted=True).indices  # [B, K]
    used = torch.arange(chosen.shape[1], device=chosen.device) < wanted[:, None]

    original = input_ids.gather(1, chosen)
    fate = hash_positions(keys, length, _REPLACEMENT).gather(1, chosen).double() / 2.0**63
    other = NUM_SPECIAL + hash_positions(keys, length, _RANDOM_TOKEN).gather(1, chosen) % (mask_id - NUM_SPECIAL)
    replaced = torch.where(fate < RANDOM_SHARE, other, torch.full_like(original, mask_id))
    replaced = torch.where((fate >= 1 - KEEP_SHARE) | ~used, original, replaced)

    offsets = torch.arange(batch, device=chosen.device)[:, None] * length
    return MaskedBatch(
        input_ids.scatter(1, chosen, replaced),
        (chosen + offsets).flatten(),
        torch.where(used, original, IGNORED).flatten(),
    )
