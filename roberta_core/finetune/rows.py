"""Rows of a task as tokens: encoded once, put into batches of like length, padded to the longest of a batch.

Each epoch draws an order from (seed, epoch), cuts it into pools, sorts each pool by length and cuts batches from it, so
that little padding is computed while batches still come in random order. The order is a pure function of its arguments:
there is no state to lose.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from roberta_core.data.tokenizer import specials_of

POOL_BATCHES = (16, 50)
"""Batches that are sorted by length together, at least and at most: a quarter of an epoch between the two, as in transformers'
`group_by_length`. Wide enough to save most padding, narrow enough to keep batches random."""

ENCODE_ROWS = 4096
"""Rows encoded at a time: the encodings of all of MNLI at once would take gigabytes."""


@dataclass
class Rows:
    """Tokenised rows.

    Attributes:
        ids: the token ids of each row.
        labels: one a row, in the shape that the objective takes; empty where they are not known.
        truncated: rows that were cut.
        types: of each token whether it stands in the first text of a pair (0) or in the second (1); None for models without.
        pad: the token that fills up a batch.
    """

    ids: list[Sequence[int]]
    labels: Sequence[Any]
    truncated: int
    types: list[Sequence[int]] | None = None
    pad: int = 1

    def __len__(self) -> int:
        return len(self.ids)


def tokenise(
    tokenizer: Tokenizer,
    texts: Sequence[tuple[str, ...]],
    labels: Sequence[Any],
    max_length: int,
    token_types: bool = False,
) -> Rows:
    """Encodes texts as the tokenizer says: `<s> a </s>`, `<s> a </s></s> b </s>`, or in BERT's way.

    Args:
        texts: a row each: a text, or a pair of texts.
        labels: one a row, or none at all.
        max_length: rows longer than so many tokens lose tokens from the end of the longer text, one by one ("longest
            first", as in transformers), and are counted.
        token_types: keep them too, for a model that has them (`RobertaConfig.has_token_types`).
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    specials = specials_of(tokenizer)
    result = Rows([], labels, 0, [] if token_types else None)
    if specials is not None:
        result.pad = tokenizer.token_to_id(specials.pad)
    for start in range(0, len(texts), ENCODE_ROWS):
        inputs = [each if len(each) == 2 else each[0] for each in texts[start : start + ENCODE_ROWS]]
        for encoding in tokenizer.encode_batch_fast(inputs):
            result.ids.append(array("i", encoding.ids))
            if result.types is not None:
                result.types.append(array("b", encoding.type_ids))
            result.truncated += bool(encoding.overflowing)
    return result


def batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Row numbers of each batch of an epoch, a pure function of the arguments; each row comes once."""
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(lengths))
    result = []
    least, most = POOL_BATCHES
    size = batch_size * max(least, min(most, len(order) // (4 * batch_size)))
    for start in range(0, len(order), size):
        pool = order[start : start + size]
        pool = pool[np.argsort(np.asarray(lengths)[pool], kind="stable")]
        result += [pool[at : at + batch_size].tolist() for at in range(0, len(pool), batch_size)]
    return [result[at] for at in draw.permutation(len(result))]


def pad_rows(ids: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pads rows to the longest: input ids [B, L] and the attention mask [B, L], or None where no row needs padding."""
    lengths = np.array([len(tokens) for tokens in ids])
    real = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(real.shape, pad, np.int64)
    input_ids[real] = np.concatenate([np.asarray(tokens) for tokens in ids])
    mask = None if real.all() else torch.from_numpy(real).to(device)
    return torch.from_numpy(input_ids).to(device), mask
