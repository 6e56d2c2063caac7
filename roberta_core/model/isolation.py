"""Documents that share a packed row and do not see one another.

Best-fit packing puts several whole documents into a row, each with its own `<s>` and `</s>`. For the model to treat them as
if each stood alone, two things are needed: positions that start anew, at `pad_token_id + 1`, in every document, and attention
that stays within the document. Then the hidden states of a packed row equal those of its documents one by one.

Attention runs in one of two ways, with the same result:

- a block mask for `roberta_core.model.attention`: all pairs of a row are computed, and those across documents are masked.
  Works everywhere, costs what dense attention costs and the mask on top.
- variable length: `torch.nn.attention.varlen` takes the rows as one list of documents and computes only the pairs
  within. On a GPU, in 16 bits, without attention dropout, which that kernel does not have.

Everything is computed from `documents` on the CPU, once a batch, so that no layer waits for the device to count them.
"""

from typing import NamedTuple

import torch

from roberta_core.device import to_device

PADDING = -1
"""Number of the document at padding, as `PackedRows.documents` gives it."""
SEGMENT_MULTIPLE = 64
"""The list of documents is filled up to a multiple of this with empty ones: few shapes, so a compiled model stays compiled."""

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch 2.9 and older
    varlen_attn = None


class Isolation(NamedTuple):
    """How the tokens of a batch of packed rows see one another.

    Attributes:
        position_ids: int64 [B, L]; `pad_token_id` at padding.
        mask: bool [B, 1, L, L], true where a token sees another; None where `starts` is used instead.
        starts: int32 [N + 1], where the documents begin in the flattened [B · L] tokens, and the end; None with `mask`.
    """

    position_ids: torch.Tensor
    mask: torch.Tensor | None
    starts: torch.Tensor | None


def has_varlen(device: torch.device, precision: str, dropout: float) -> bool:
    """Whether the variable-length kernel can be used: bf16 on a GPU of compute capability 8 or more, without dropout."""
    return (
        varlen_attn is not None
        and device.type == "cuda"
        and precision == "bf16"
        and not dropout
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def isolate(
    documents: torch.Tensor, pad_token_id: int, device: torch.device | None = None, varlen: bool = False
) -> Isolation:
    """What `Roberta` needs to keep the documents of packed rows apart.

    Args:
        documents: int [B, L] on the CPU, a token's document within its row, `PADDING` at padding; a document is one run.
        pad_token_id: positions start one above it.
        device: where the result shall live; None: the CPU.
        varlen: prepare the variable-length kernel (see `has_varlen`) instead of a mask.
    """
    batch, length = documents.shape
    begins = torch.ones(batch, length, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    places = torch.arange(length).expand(batch, length)
    first = torch.where(begins, places, 0).cummax(1).values  # where each token's document begins in its row
    position_ids = torch.where(documents == PADDING, pad_token_id, places - first + pad_token_id + 1)
    mask = starts = None
    if varlen:
        found = begins.flatten().nonzero()[:, 0]
        room = -(-(len(found) + 1) // SEGMENT_MULTIPLE) * SEGMENT_MULTIPLE
        starts = torch.full((room + 1,), batch * length, dtype=torch.int32)
        starts[: len(found)] = found
    else:
        # padding sees padding: a row of the mask without anything to see would give not-a-number
        mask = to_device(documents[:, None, :, None] == documents[:, None, None, :], device)
    starts = None if starts is None else to_device(starts, device)
    return Isolation(to_device(position_ids, device), mask, starts)


def attend_within(qkv: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Attention within documents by the variable-length kernel; it has no dropout.

    Args:
        qkv: [B, L, 3, H, D / H], in 16 bits.
        starts: of an `Isolation`.

    Returns:
        [B, L, D].
    """
    batch, length, _, heads, width = qkv.shape
    query, key, value = qkv.reshape(batch * length, 3, heads, width).unbind(1)
    mixed = varlen_attn(query, key, value, starts, starts, length, length)
    return mixed.reshape(batch, length, heads * width)
