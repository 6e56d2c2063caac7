"""Scaled dot-product attention of short rows on a CPU, written out: two batched products around a softmax.

torch's fused attention for a CPU never writes the scores, which pays for long rows. Up to `LONGEST` tokens they fit the cache,
and plain batched products run near the machine's peak (measured: docs/decisions.md). Dropout is part of it, with the cheap masks
of `roberta_core.model.dropout`; torch's fused kernel has none on a CPU, and its fallback is slower still. The price is memory:
the probabilities of each layer, [B, H, L, L], are kept for the backward pass, and a mask of the same size with dropout.
"""

import torch
from torch.nn import functional as F

from roberta_core.model.dropout import dropped_share, is_fast, keep_mask, masked

LONGEST = 512
"""Longest row that takes this path."""


class _Attention(torch.autograd.Function):
    """Attention from joined projections, with its backward pass.

    In the names: N is B · H, E = D / H.
    """

    @staticmethod
    def forward(ctx, qkv: torch.Tensor, bias: torch.Tensor | None, p: float) -> torch.Tensor:
        batch, length, _, heads, width = qkv.shape
        query, key, value = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, length, width)  # each [N, L, E]
        ctx.scale = width**-0.5
        scores = query.new_empty(batch * heads, length, length)
        torch.baddbmm(scores, query, key.mT, beta=0, alpha=ctx.scale, out=scores)
        if bias is not None:
            scores.view(batch, heads, length, length).add_(bias)
        probs = torch.softmax(scores, -1, out=scores)
        keep = keep_mask(probs.shape, p, probs.dtype) if p else None
        ctx.kept_scale = 1.0 / (1.0 - dropped_share(p))
        ctx.shape = qkv.shape
        ctx.save_for_backward(query, key, value, probs, keep)
        used = probs if keep is None else masked(probs, keep)
        mixed = torch.baddbmm(query.new_empty(()), used, value, beta=0, alpha=ctx.kept_scale)
        return mixed.view(batch, heads, length, width).transpose(1, 2).reshape(batch, length, heads * width)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        query, key, value, probs, keep = ctx.saved_tensors
        batch, length, _, heads, width = ctx.shape
        gradient = gradient.to(query.dtype).view(batch, length, heads, width).transpose(1, 2)
        gradient = gradient.reshape(batch * heads, length, width)
        result = query.new_empty(3, *query.shape)
        used = probs if keep is None else masked(probs, keep)
        torch.baddbmm(result[2], used.mT, gradient, beta=0, alpha=ctx.kept_scale, out=result[2])
        of_probs = torch.baddbmm(used, gradient, value.mT, beta=0, alpha=ctx.kept_scale, out=torch.empty_like(probs))
        if keep is not None:
            of_probs.view(keep.dtype).bitwise_and_(keep)
        of_scores = torch._softmax_backward_data(of_probs, probs, -1, probs.dtype, grad_input=of_probs)
        torch.baddbmm(result[0], of_scores, key, beta=0, alpha=ctx.scale, out=result[0])
        torch.baddbmm(result[1], of_scores.mT, query, beta=0, alpha=ctx.scale, out=result[1])
        of_qkv = result.view(3, batch, heads, length, width).permute(1, 3, 0, 2, 4).contiguous()
        return of_qkv, None, None


def attend(qkv: torch.Tensor, attention_mask: torch.Tensor | None, dropout: float) -> torch.Tensor:
    """Softmax attention over joined projections.

    Args:
        qkv: [B, L, 3, H, D / H].
        attention_mask: bool, broadcasts to [B, H, L, L]; true where a query (third axis) may look at a key (last axis).
        dropout: share of the probabilities to drop; 0 in evaluation.

    Returns:
        [B, L, D].
    """
    batch, length, _, heads, width = qkv.shape
    if is_fast(qkv, dropout) and length <= LONGEST:
        bias = None
        if attention_mask is not None:  # finite, so that a query that may look nowhere gets numbers all the same
            bias = torch.where(attention_mask, 0.0, torch.finfo(qkv.dtype).min / 2).to(qkv.dtype)
        with torch.autocast("cpu", enabled=False):
            return _Attention.apply(qkv, bias, dropout)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, dropout_p=dropout)
    return mixed.transpose(1, 2).reshape(batch, length, heads * width)
