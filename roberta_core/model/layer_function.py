"""A whole layer as one autograd function: forward and backward pass written out, for training on a CPU.

Operation by operation, a layer is some forty calls that torch records and goes through again, and on short batches of a
small model the calls cost as much as the arithmetic. Written out, there is nothing to record, and what torch does in passes of
their own goes into the matrix products: dropout's scale as the product's factor, forward and backward; the gradient of a
residual as what a product is added to. The weights are those of the modules in `encoder`, and so is the result for the same
masks, up to rounding (each sum that a product takes in is rounded once instead of twice). Where all shares of dropout are
equal, the masks of a layer are one draw, so under one seed they are others than the modules'.

The price: this file says a second time what `encoder.Layer` says. Tests hold the two against each other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from roberta_core.model.attention import additive, by_heads, by_tokens, is_written_out, mix, of_mixed
from roberta_core.model.dropout import is_fast, keep_mask, keep_masks, kept_scale, masked
from roberta_core.model.first_token import mix_first, of_mixed_first

_aten = torch.ops.aten


class Settings(NamedTuple):
    """What a layer has beside its weights.

    Attributes:
        heads: of its attention.
        drop_probs, drop_attended, drop_result: shares that are dropped of attention's probabilities, of its output, and of the
            feed-forward block's.
        eps: of its layer norms.
    """

    heads: int
    drop_probs: float
    drop_attended: float
    drop_result: float
    eps: float


def is_possible(hidden: torch.Tensor, settings: Settings) -> bool:
    """Whether this function takes a layer's input: in training on a CPU, in float32 or bfloat16, rows that are not long.

    Args:
        hidden: [B, L, D].
        settings: of the layer.
    """
    device = hidden.device.type
    typed = not torch.is_autocast_enabled(device) or hidden.dtype == torch.get_autocast_dtype(device)
    drops = is_fast(hidden, settings.drop_attended) and is_fast(hidden, settings.drop_result)
    written_out = drops and is_written_out(hidden, hidden.shape[1], settings.drop_probs)
    return typed and written_out and torch.is_grad_enabled()


class _Added(NamedTuple):
    """What the backward pass of a residual block needs.

    Attributes:
        inner: [R, width].
        weight: [D, width].
        keep, total: [R, D].
        mean, rstd: of the norm, [R, 1].
        norm_weight, norm_bias: [D].
    """

    inner: torch.Tensor
    weight: torch.Tensor
    keep: torch.Tensor | None
    total: torch.Tensor
    mean: torch.Tensor
    rstd: torch.Tensor
    norm_weight: torch.Tensor
    norm_bias: torch.Tensor


def _masks(settings: Settings, probs: Sequence[int], hidden: Sequence[int], dtype: torch.dtype) -> list:
    """What is kept of the probabilities, and twice of hidden states; None where nothing is dropped."""
    shapes, shares = [probs, hidden, hidden], [settings.drop_probs, settings.drop_attended, settings.drop_result]
    if settings.drop_probs and len(set(shares)) == 1:
        return keep_masks(shapes, settings.drop_probs, dtype)
    return [keep_mask(shape, p, dtype) if p else None for shape, p in zip(shapes, shares)]


def _add(
    inner: torch.Tensor, residual: torch.Tensor, keep: torch.Tensor | None, p: float, eps: float, weights: list
) -> tuple[torch.Tensor, _Added]:
    """The layer norm of `residual` + dropout(`inner` · `weight`ᵀ + `bias`), [R, D].

    Args:
        inner: [R, width].
        residual: [R, D].
        keep: the mask of what `p` leaves, [R, D], or None.
        p, eps: of dropout and norm.
        weights: weight and bias of the map, in the type of `inner`, and of the norm.
    """
    weight, bias, *norm = weights
    scale = kept_scale(p)
    total = torch.addmm(bias, inner, weight.t(), beta=scale, alpha=scale)
    if keep is not None:
        total.view(keep.dtype).bitwise_and_(keep)
    total.add_(residual)
    normed, mean, rstd = torch.native_layer_norm(total, total.shape[1:], *norm, eps)
    return normed.to(total.dtype), _Added(inner, weight, keep, total, mean, rstd, *norm)


def _of_added(gradient: torch.Tensor, held: _Added, p: float) -> tuple[torch.Tensor, ...]:
    """Gradients of inner, residual, weight, bias and the norm's two from that of `_add`'s result."""
    of_total, of_norm_weight, of_norm_bias = _aten.native_layer_norm_backward(
        gradient, held.total, held.total.shape[1:], held.mean, held.rstd, held.norm_weight, held.norm_bias, [True] * 3
    )
    scale = kept_scale(p)
    of_product = of_total if held.keep is None else masked(of_total, held.keep)
    nothing = of_product.new_empty(())
    of_weight = torch.addmm(nothing, of_product.t(), held.inner, beta=0, alpha=scale)
    of_bias = of_product.sum(0).mul_(scale)
    of_inner = torch.addmm(nothing, of_product, held.weight, beta=0, alpha=scale)
    return of_inner, of_total, of_weight, of_bias, of_norm_weight, of_norm_bias


def _mix_all(
    hidden: torch.Tensor, bias: torch.Tensor | None, keep: torch.Tensor | None, p: float, heads: int, weights: list
) -> tuple[torch.Tensor, tuple]:
    """What all tokens take from one another: as `first_token.mix_first`, but for all [B · L, D]."""
    batch, length, width = hidden.shape
    tokens = hidden.reshape(-1, width)
    joined = torch.cat(weights[::2])
    projected = torch.addmm(torch.cat(weights[1::2]), tokens, joined.t())
    mixed, held = mix(*by_heads(projected.view(batch, length, 3, heads, width // heads)), bias, keep, p, heads)
    return by_tokens(mixed[None], heads).view(tokens.shape), (tokens, joined, *held)


def _of_mixed_all(
    gradient: torch.Tensor, held: tuple, p: float, of_own: torch.Tensor, wants_hidden: bool
) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """As `first_token.of_mixed_first`; gradients are [B · L, D]."""
    tokens, joined, *attention = held
    width = tokens.shape[1]
    count, length, head_width = attention[0].shape
    heads = width // head_width
    result = tokens.new_empty(3, *attention[0].shape)
    of_mixed(by_heads(gradient.view(count // heads, length, 1, heads, head_width))[0], attention, p, *result)
    of_projected = by_tokens(result, heads).view(len(tokens), 3 * width)
    of_weights, of_biases = of_projected.t() @ tokens, of_projected.sum(0)
    of_hidden = torch.addmm(of_own, of_projected, joined) if wants_hidden else None
    return of_hidden, [part for each in zip(of_weights.split(width), of_biases.split(width)) for part in each]


class _Layer(torch.autograd.Function):
    """One post-layer-norm layer. R rows of width D come out: all B · L tokens, or the B first ones."""

    @staticmethod
    def forward(
        ctx, hidden: torch.Tensor, bias: torch.Tensor | None, settings: Settings, first: bool, *weights: torch.Tensor
    ):
        dtype, (batch, length, width) = hidden.dtype, hidden.shape
        of_maps = [each.to(dtype) for each in (*weights[:8], *weights[10:14])]
        up, up_bias = of_maps[8:10]
        own = hidden[:, 0].contiguous() if first else hidden.reshape(-1, width)
        probs = batch * settings.heads, 1 if first else length, length
        keep = _masks(settings, probs, own.shape, dtype)
        take = mix_first if first else _mix_all
        mixed, attention = take(hidden, bias, keep[0], settings.drop_probs, settings.heads, of_maps[:6])
        residual = [*of_maps[6:8], *weights[8:10]]
        attended, one = _add(mixed, own, keep[1], settings.drop_attended, settings.eps, residual)
        wide = torch.addmm(up_bias, attended, up.t())
        residual = [*of_maps[10:], *weights[14:]]
        result, two = _add(F.gelu(wide), attended, keep[2], settings.drop_result, settings.eps, residual)
        ctx.settings, ctx.first, ctx.shape = settings, first, hidden.shape
        ctx.save_for_backward(attended, up, wide, *one, *two, *attention)
        return result.view(batch, 1 if first else length, width)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor):
        settings, width = ctx.settings, ctx.shape[-1]
        attended, up, wide, *rest = ctx.saved_tensors
        one, two, attention = _Added(*rest[:8]), _Added(*rest[8:16]), rest[16:]
        of_active, of_attended, *of_down = _of_added(gradient.reshape(-1, width), two, settings.drop_result)
        of_wide = _aten.gelu_backward(of_active, wide)
        of_up = of_wide.t() @ attended, of_wide.sum(0)
        of_mix, of_own, *of_out = _of_added(torch.addmm(of_attended, of_wide, up), one, settings.drop_attended)
        back = of_mixed_first if ctx.first else _of_mixed_all
        of_hidden, of_qkv = back(of_mix, attention, settings.drop_probs, of_own, ctx.needs_input_grad[0])
        of_hidden = None if of_hidden is None else of_hidden.view(ctx.shape)
        return of_hidden, None, None, None, *of_qkv, *of_out, *of_up, *of_down


def apply(
    hidden: torch.Tensor,
    seen: torch.Tensor | None,
    settings: Settings,
    weights: list[torch.Tensor],
    first: bool = False,
) -> torch.Tensor:
    """The layer's output.

    Args:
        hidden: [B, L, D].
        seen: broadcasts to [B, H, L, L]: true where a token sees another, or `attention.additive` of that. None: all see all.
        settings: of the layer.
        weights: weight and bias of query, key, value, attention's output, its norm, the widening map, the narrowing map and
            its norm. Those of maps are cast to the type of `hidden` where they have another.
        first: the first token's output alone; `seen` then broadcasts to [B, H, 1, L].

    Returns:
        [B, L, D], or [B, 1, D] with `first`.
    """
    with torch.autocast("cpu", enabled=False):
        return _Layer.apply(hidden, additive(seen, hidden.dtype), settings, first, *weights)
