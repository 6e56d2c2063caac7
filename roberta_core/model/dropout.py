"""Dropout whose random numbers are nearly free on a CPU.

torch draws a float for each element from a Mersenne twister, one after another: a quarter of a training step of a small
model. Here 16 random bits decide an element. numpy's SFC64 (Doty-Humphrey's generator, which passes PractRand) fills blocks
of fixed size on several threads, each block from its own seed, so the masks are the same whatever the number of threads;
and a mask is laid over the values as bits, an `and` with all ones or all zeros.

Each call takes its seed from torch's generator, so `torch.manual_seed` decides the masks, as it does in torch. The price: the
dropped share is a multiple of 1/65,536 (0.1 becomes 0.100006); the kept values are scaled by that true share, so nothing is
biased. On a GPU, in a compiled graph, and for other types than float32 and bfloat16, torch's own dropout runs.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LEVELS = 1 << 16
BLOCK_WORDS = 1 << 15
"""64-bit words drawn from one seed: 0.05 ms of drawing, against 0.007 ms of seeding."""
WORDS_A_THREAD = 1 << 18
"""A second thread pays from twice this: it takes 0.1 ms to wake."""
_BITS_OF = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) - 1), "dropout")


def random_bits(count: int, seed: int, first: int | None = None) -> torch.Tensor:
    """`count` random int16 values, all 65,536 equally likely; value n is a pure function of `seed` and n.

    With `first`, each value becomes 0 if it is below `first`, else -1, while its block is in the cache.
    """
    size = -(-count // 4)
    blocks = -(-size // BLOCK_WORDS)

    def block(number: int) -> np.ndarray:
        length = min(BLOCK_WORDS, size - number * BLOCK_WORDS)
        words = np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(number,))).random_raw(length)
        if first is not None:  # clamped, first - 1 or first are left; taken from first - 1, that is 0 or -1
            values = words.view(np.int16)
            np.clip(values, first - 1, first, out=values)
            np.subtract(first - 1, values, out=values)
        return words

    if blocks == 1:
        return torch.from_numpy(block(0).view(np.int16)[:count])
    words = np.empty(size, np.uint64)

    def fill(numbers: range) -> None:
        for number in numbers:
            words[number * BLOCK_WORDS : (number + 1) * BLOCK_WORDS] = block(number)

    threads = max(1, min(torch.get_num_threads(), size // WORDS_A_THREAD))
    shares = [range(blocks * thread // threads, blocks * (thread + 1) // threads) for thread in range(threads)]
    others = [_pool().submit(fill, share) for share in shares[1:]]
    fill(shares[0])
    for other in others:
        other.result()
    return torch.from_numpy(words.view(np.int16)[:count])


def dropped_share(p: float) -> float:
    """The share that is really dropped where `p` is asked for: the nearest multiple of 1/65,536."""
    return round(p * LEVELS) / LEVELS


def kept_scale(p: float) -> float:
    """What kept values are multiplied by."""
    return 1.0 / (1.0 - dropped_share(p))


def keep_masks(shapes: Sequence[Sequence[int]], p: float, dtype: torch.dtype) -> list[torch.Tensor]:
    """Masks as bits: -1 (all ones) where an element is kept, 0 where it is dropped. One draw for all: to begin one takes as
    long as to fill a small mask.

    Args:
        shapes: of the values of each.
        p: share to drop, from 1/131,072 to 1 - 1/131,072.
        dtype: of the values, float32 or bfloat16: the masks are integers of the same width.
    """
    counts = [math.prod(shape) for shape in shapes]
    keep = random_bits(sum(counts), int(torch.randint(1 << 62, ())), round(p * LEVELS) - LEVELS // 2)
    return [part.view(*shape) for part, shape in zip(keep.to(_BITS_OF[dtype]).split(counts), shapes)]


def keep_mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> torch.Tensor:
    """One of `keep_masks`."""
    return keep_masks([shape], p, dtype)[0]


def masked(values: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`values` where `keep` has -1, else 0."""
    return (values.view(keep.dtype) & keep).view(values.dtype)


def is_fast(values: torch.Tensor, p: float) -> bool:
    """Whether these values take the path of this file; `p` of exactly 0 asks for no masks, and is always fast."""
    possible = not p or 0 < round(p * LEVELS) < LEVELS
    return possible and values.device.type == "cpu" and values.dtype in _BITS_OF and not torch.compiler.is_compiling()


class _Dropout(torch.autograd.Function):
    """`residual + values · keep · scale`; without a residual, `values · keep · scale`."""

    @staticmethod
    def forward(ctx, values: torch.Tensor, residual: torch.Tensor | None, p: float) -> torch.Tensor:
        keep = keep_mask(values.shape, p, values.dtype)
        ctx.save_for_backward(keep)
        ctx.scale = kept_scale(p)
        result = masked(values, keep).mul_(
            ctx.scale
        )  # `add` with alpha would round the scale to bfloat16: 0.2 % too small
        return result if residual is None else result.add_(residual)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        (keep,) = ctx.saved_tensors
        of_values = masked(gradient.to(_dtype_of(keep)), keep).mul_(ctx.scale)
        return of_values, gradient if ctx.needs_input_grad[1] else None, None


def _dtype_of(keep: torch.Tensor) -> torch.dtype:
    return torch.bfloat16 if keep.dtype == torch.int16 else torch.float32


class Dropout(nn.Dropout):
    """torch's module with faster masks on a CPU; `plus` adds the residual too."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Any shape; the same shape."""
        if self.training and self.p and is_fast(values, self.p):
            return _Dropout.apply(values, None, self.p)
        return F.dropout(values, self.p, self.training)

    def plus(self, values: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """`residual + dropout(values)`, both of one shape."""
        if self.training and self.p and is_fast(values, self.p):
            return _Dropout.apply(values, residual, self.p)
        return residual + F.dropout(values, self.p, self.training)
