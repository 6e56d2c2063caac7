"""Scaled dot-product attention of short rows on a CPU, written out: two batched products around a softmax.

torch's fused attention for a CPU never writes the scores, which pays for long rows. Up to `LONGEST` tokens they fit the cache,
and plain batched products run near the machine's peak (measured: docs/decisions.md). Dropout is part of it, with the cheap masks
of `roberta_core.model.dropout`; torch's fused kernel has none on a CPU, and its fallback is slower still. The price is memory:
the probabilities of each layer, [B, H, L, L], are kept for the backward pass, and a mask of the same size with dropout.
"""

import torch
from torch.nn import functional as F

from roberta_core.model.dropout import is_fast, keep_mask, kept_scale, masked

LONGEST = 512
"""Longest row that takes this path."""


def is_written_out(values: torch.Tensor, length: int, dropout: float) -> bool:
    """Whether attention over rows of `length` tokens, in the type and on the device of `values`, takes this file's path."""
    return is_fast(values, dropout) and length <= LONGEST


def additive(seen: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """What is added to the scores: 0 where `seen` is true, else a number so low that nothing is left of the probability.

    A finite one, so that a query that may look nowhere gets numbers all the same. What was made already stays as it is.
    """
    if seen is None or seen.dtype != torch.bool:
        return seen
    return torch.where(seen, 0.0, torch.finfo(dtype).min / 2).to(dtype)


def by_heads(joined: torch.Tensor) -> torch.Tensor:
    """[B, L, n, H, E] -> [n, N, L, E], contiguous. In the names here: N is B · H, E = D / H."""
    batch, length, count, heads, width = joined.shape
    return joined.permute(2, 0, 3, 1, 4).reshape(count, batch * heads, length, width)


def by_tokens(parts: torch.Tensor, heads: int) -> torch.Tensor:
    """[n, N, L, E] -> [B, L, n, H, E], contiguous."""
    count, both, length, width = parts.shape
    return parts.view(count, both // heads, heads, length, width).permute(1, 3, 0, 2, 4).contiguous()


def _in_float32(scores: torch.Tensor) -> bool:
    """Whether a softmax over the last axis is better taken in float32 and rounded, which gives the same numbers
    but for a last bit now and then.

    torch's kernel for bfloat16 takes 32 values at a time, and those that are left over at a row's end one by one: rows of 31 take
    five times as long as in float32, where 16 go at a time. Below 16 both go one by one.
    """
    length = scores.shape[-1]
    return scores.dtype == torch.bfloat16 and length >= 16 and length % 32 != 0


def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Over the last axis; `scores` are given up."""
    if _in_float32(scores):
        return scores.copy_(torch.softmax(scores, -1, dtype=torch.float32))
    return torch.softmax(scores, -1, out=scores)


def of_softmax(gradient: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """The gradient of the scores; `gradient` is given up."""
    if _in_float32(probs):
        return gradient.copy_(torch._softmax_backward_data(gradient.float(), probs.float(), -1, torch.float32))
    return torch._softmax_backward_data(gradient, probs, -1, probs.dtype, grad_input=gradient)


def mix(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    keep: torch.Tensor | None,
    p: float,
    heads: int,
) -> tuple[torch.Tensor, tuple]:
    """Attention's forward pass by itself.

    Args:
        query: [N, Q, E].
        key, value: [N, L, E].
        bias: of `additive`; broadcasts to [B, H, Q, L].
        keep: a mask of `dropout`, [N, Q, L], where probabilities are dropped.
        p: the share that is.
        heads: H.

    Returns:
        [N, Q, E], and what `of_mixed` needs.
    """
    scale = query.shape[-1] ** -0.5
    scores = query.new_empty(len(query), query.shape[1], key.shape[1])
    torch.baddbmm(scores, query, key.mT, beta=0, alpha=scale, out=scores)
    if bias is not None:
        scores.view(len(scores) // heads, heads, *scores.shape[1:]).add_(bias)
    probs = softmax(scores)
    used = probs if keep is None else masked(probs, keep)
    mixed = torch.baddbmm(query.new_empty(()), used, value, beta=0, alpha=kept_scale(p))
    return mixed, (query, key, value, probs, keep)


def of_mixed(
    gradient: torch.Tensor, held: tuple, p: float, of_query: torch.Tensor, of_key: torch.Tensor, of_value: torch.Tensor
) -> None:
    """Attention's backward pass by itself.

    Args:
        gradient: of what `mix` gave, [N, Q, E], in its type.
        held: what `mix` gave beside it.
        p: as `mix` had it.
        of_query, of_key, of_value: where the gradients of the three go.
    """
    query, key, value, probs, keep = held
    scale, kept = query.shape[-1] ** -0.5, kept_scale(p)
    used = probs if keep is None else masked(probs, keep)
    torch.baddbmm(of_value, used.mT, gradient, beta=0, alpha=kept, out=of_value)
    of_probs = torch.baddbmm(used, gradient, value.mT, beta=0, alpha=kept, out=torch.empty_like(probs))
    if keep is not None:
        of_probs.view(keep.dtype).bitwise_and_(keep)
    of_scores = of_softmax(of_probs, probs)
    torch.baddbmm(of_query, of_scores, key, beta=0, alpha=scale, out=of_query)
    torch.baddbmm(of_key, of_scores.mT, query, beta=0, alpha=scale, out=of_key)


class _Attention(torch.autograd.Function):
    """Attention from joined projections, with its backward pass."""

    @staticmethod
    def forward(ctx, qkv: torch.Tensor, bias: torch.Tensor | None, p: float) -> torch.Tensor:
        batch, length, _, heads, _ = qkv.shape
        keep = keep_mask((batch * heads, length, length), p, qkv.dtype) if p else None
        mixed, held = mix(*by_heads(qkv), bias, keep, p, heads)
        ctx.p, ctx.heads = p, heads
        ctx.save_for_backward(*held)
        return by_tokens(mixed[None], heads).view(batch, length, -1)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        held = ctx.saved_tensors
        gradient = gradient.to(held[0].dtype).view(*gradient.shape[:2], 1, ctx.heads, -1)
        result = held[0].new_empty(3, *held[0].shape)
        of_mixed(by_heads(gradient)[0], held, ctx.p, *result)
        return by_tokens(result, ctx.heads), None, None


def attend(qkv: torch.Tensor, attention_mask: torch.Tensor | None, dropout: float) -> torch.Tensor:
    """Softmax attention over joined projections.

    Args:
        qkv: [B, L, 3, H, D / H].
        attention_mask: broadcasts to [B, H, L, L]. Bool: true where a query (third axis) may look at a key (last axis);
            else what `additive` made of that.
        dropout: share of the probabilities to drop; 0 in evaluation.

    Returns:
        [B, L, D].
    """
    batch, length, _, heads, width = qkv.shape
    if is_written_out(qkv, length, dropout):
        with torch.autocast("cpu", enabled=False):
            return _Attention.apply(qkv, additive(attention_mask, qkv.dtype), dropout)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, dropout_p=dropout)
    return mixed.transpose(1, 2).reshape(batch, length, heads * width)
