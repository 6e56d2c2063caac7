"""How likely an encoder finds a sentence: mask each token in turn, and sum the log-probabilities of what stood there.

The pseudo-log-likelihood of Salazar et al. 2020 (arXiv 1910.14659, equation 1); `<s>` and `</s>` are seen and never masked. A
sentence of n tokens is n rows of the model, which differ in one token each, so this costs n times a forward pass. What
keeps it quick, with the same sums:

- sentences of one length stand together: no padding, no attention mask;
- the last layer is computed at the masked token alone: of its twelve matrices' worth of products two, keys and values,
  are needed everywhere; the head likewise;
- in `bf16` the weights are rounded once, not at every batch.

A bidirectional encoder sees the mask from everywhere, so nothing else is shared between the rows of a sentence.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from roberta_core.data.tokenizer import specials_of
from roberta_core.model import RobertaForMaskedLM
from roberta_core.model.encoder import Layer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_TOKENS = 2048
"""Tokens of a forward pass: measured on 2 cores (benchmarks/records/2026-11-20-blimp.md); a row that is longer goes alone."""

HEAD_ROWS = 128
"""Rows whose logits are held at a time: of 16,000 words they are 8 MB in float32, which a cache still holds."""


class Encoded(NamedTuple):
    """A sentence's token ids with special tokens, and the places of the others among them."""

    ids: list[int]
    places: list[int]


def encode(tokenizer: "Tokenizer", sentences: Sequence[str]) -> list[Encoded]:
    """Encodes sentences whole, without cutting or padding; special tokens spelled out in a text are text."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    found = tokenizer.encode_batch(list(sentences))
    return [
        Encoded(each.ids, [at for at, special in enumerate(each.special_tokens_mask) if not special]) for each in found
    ]


def masked_rows(rows: Sequence[Encoded], mask: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sentences of one length L, each as often as it has tokens, with another one masked each time.

    Returns:
        int64 [N, L] ids; the masked place of each row, int64 [N]; and what stood there, int64 [N].
    """
    places = torch.tensor([at for row in rows for at in row.places], dtype=torch.int64)
    ids = torch.tensor([row.ids for row in rows]).repeat_interleave(torch.tensor([len(row.places) for row in rows]), 0)
    targets = ids.gather(1, places[:, None])[:, 0]
    return ids.scatter_(1, places[:, None], mask), places, targets


def last_layer(layer: Layer, hidden: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """What `layer` gives at one place of each row: `hidden` [N, L, D] and `places` [N] -> [N, D]."""
    own, (count, length, width) = layer.attention.self, hidden.shape
    at = hidden[torch.arange(count, device=hidden.device), places]
    query = own.query(at).view(count, own.heads, 1, -1)
    weight, bias = torch.cat((own.key.weight, own.value.weight)), torch.cat((own.key.bias, own.value.bias))
    both = F.linear(hidden, weight, bias).view(count, length, 2, own.heads, width // own.heads)
    key, value = both.permute(2, 0, 3, 1, 4)  # [N, H, L, D / H]
    mixed = F.scaled_dot_product_attention(query, key, value).reshape(count, width)
    at = layer.attention.output(mixed, at)
    return layer.output(layer.intermediate(at), at)


def log_probabilities(
    model: RobertaForMaskedLM, ids: torch.Tensor, places: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Log-probability in nats of `targets` [N] at `places` [N] of the rows `ids` [N, L], none of them padded: float32 [N]."""
    *layers, last = model.roberta.encoder.layer
    hidden = model.roberta.embeddings(ids, padded=False)
    for layer in layers:
        hidden = layer(hidden, None)
    hidden = last_layer(last, hidden, places)
    embedding = model.roberta.embeddings.word_embeddings.weight
    found = []
    for start in range(0, len(ids), HEAD_ROWS):
        logits = model.lm_head(hidden[start : start + HEAD_ROWS], embedding).float()
        found.append(-F.cross_entropy(logits, targets[start : start + HEAD_ROWS], reduction="none"))
    return torch.cat(found)


def batches(rows: Sequence[Encoded]) -> Iterator[list[int]]:
    """Numbers of sentences that go through the model together, short ones first; each batch holds one length."""
    order = sorted(range(len(rows)), key=lambda at: (len(rows[at].ids), at))
    for length, group in groupby(order, key=lambda at: len(rows[at].ids)):
        together = list(group)
        size = max(1, BATCH_TOKENS // length**2)
        yield from (together[start : start + size] for start in range(0, len(together), size))


def _sums(model: RobertaForMaskedLM, mask: int, rows: Sequence[Encoded]) -> np.ndarray:
    """The sums of sentences of one length: float64 [sentences]."""
    device = next(model.parameters()).device
    step = max(1, BATCH_TOKENS // len(rows[0].ids))  # a long sentence alone may have more rows than a batch holds
    parts = zip(*(each.to(device).split(step) for each in masked_rows(rows, mask)))
    with torch.inference_mode():
        values = [log_probabilities(model, *part) for part in parts]
    owner = np.repeat(np.arange(len(rows)), [len(row.places) for row in rows])
    return np.bincount(owner, torch.cat(values).double().cpu().numpy(), minlength=len(rows))


def pseudo_log_likelihoods(
    model: RobertaForMaskedLM,
    tokenizer: "Tokenizer",
    rows: Sequence[Encoded],
    precision: str = "bf16",
    on_rows: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """The pseudo-log-likelihood of each sentence, in nats.

    On a CPU as many batches are worked on at once as torch has threads, each by one thread: the products are too small to be
    shared among threads well, and no number depends on how many there are.

    Args:
        rows: of `encode`, each with a token at least, and none longer than the model takes.
        precision: `fp32`, or `bf16`: weights and states of the layers rounded to bfloat16.
        on_rows: called with the number of sentences that were scored since the last call.

    Returns:
        float64 [sentences], in their order.
    """
    assert all(row.places and len(row.ids) <= model.config.max_length for row in rows), "the caller leaves others out"
    mask = tokenizer.token_to_id(specials_of(tokenizer).mask)
    model = (copy.deepcopy(model).bfloat16() if precision == "bf16" else model).eval()
    sums, chosen, threads = np.zeros(len(rows)), list(batches(rows)), torch.get_num_threads()
    on_cpu = next(model.parameters()).device.type == "cpu"
    try:
        torch.set_num_threads(1 if on_cpu else threads)
        with ThreadPoolExecutor(threads if on_cpu else 1) as pool:
            found = [pool.submit(_sums, model, mask, [rows[at] for at in batch]) for batch in chosen]
            try:
                for batch, values in zip(chosen, found):
                    sums[batch] = values.result()
                    on_rows(len(batch))
            except BaseException:  # Ctrl-C too: what has not begun is not begun
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
    return sums
