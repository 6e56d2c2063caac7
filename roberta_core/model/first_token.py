"""What the first token of each row takes from all of them, without a key or a value for any.

A head's score of a token is query · (K x): as well (Kᵀ query) · x, and with one query a row the second way never makes keys. What
it takes is V applied to the mixture of tokens instead of the mixture of V applied to tokens. So two of the six products of
a layer's attention, over all tokens, become products of [H, D] by row: a twentieth of the arithmetic of a fine-tuning of mini.
The bias of the keys moves all scores of a query alike, has no part in the result, and its gradient is 0.

Shapes: B rows, L tokens a row, D hidden size, H heads, E = D / H. Forward and backward pass are used by `layer_function`.
"""

import torch

from roberta_core.model.attention import of_softmax, softmax
from roberta_core.model.dropout import kept_scale, masked


def _by_heads(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, H · n] -> [H, B, n]."""
    return rows.view(len(rows), heads, rows.shape[1] // heads).transpose(0, 1)


def _swapped(rows: torch.Tensor) -> torch.Tensor:
    """[H, B, n] -> [B, H, n] and back, contiguous."""
    return rows.transpose(0, 1).contiguous()


def mix_first(
    hidden: torch.Tensor,
    bias: torch.Tensor | None,
    keep: torch.Tensor | None,
    p: float,
    heads: int,
    weights: list[torch.Tensor],
) -> tuple[torch.Tensor, tuple]:
    """Forward.

    Args:
        hidden: [B, L, D].
        bias: of `attention.additive`, broadcasts to [B, H, 1, L]; None: all tokens are seen.
        keep: a mask of `dropout` for the probabilities, [B · H, 1, L], or None.
        p: share of them that is dropped.
        heads: H.
        weights: weight [D, D] and bias [D] of query, key and value, in the type of `hidden`.

    Returns:
        What the heads found, side by side, [B, D], and what `of_mixed_first` needs.
    """
    query_weight, query_bias, key_weight, _, value_weight, value_bias = weights
    batch, _, width = hidden.shape
    own = hidden[:, 0].contiguous()
    query = _by_heads(torch.addmm(query_bias, own, query_weight.t()), heads)
    looked_for = _swapped(torch.bmm(query, key_weight.view(heads, -1, width)))  # [B, H, D]
    nothing = hidden.new_empty(())
    scores = torch.baddbmm(nothing, looked_for, hidden.mT, beta=0, alpha=(width // heads) ** -0.5)
    if bias is not None:
        scores += bias[..., 0, :]
    probs = softmax(scores)
    keep = None if keep is None else keep.view(probs.shape)
    used = probs if keep is None else masked(probs, keep)
    found = torch.baddbmm(nothing, used, hidden, beta=0, alpha=kept_scale(p))  # [B, H, D]
    mass = used.sum(-1, keepdim=True).mul_(kept_scale(p))  # [B, H, 1]; 1 but for what was dropped
    mixed = _swapped(torch.bmm(found.transpose(0, 1), value_weight.view(heads, -1, width).mT))
    mixed.addcmul_(mass, value_bias.view(heads, -1))
    return mixed.view(batch, width), (hidden, own, query, looked_for, probs, keep, found, mass, *weights)


def of_mixed_first(
    gradient: torch.Tensor, held: tuple, p: float, of_own: torch.Tensor, wants_hidden: bool
) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """Backward.

    Args:
        gradient: of what `mix_first` gave, [B, D].
        held: what it gave beside that.
        p: as it had it.
        of_own: another gradient of the first tokens, [B, D].
        wants_hidden: whether the gradient of `hidden` is asked for.

    Returns:
        The gradients of `hidden` with `of_own` in it, and of the six weights.
    """
    hidden, own, query, looked_for, probs, keep, found, mass, *weights = held
    query_weight, _, key_weight, key_bias, value_weight, value_bias = weights
    heads, (batch, _, width) = len(query), hidden.shape
    nothing, kept, scale = hidden.new_empty(()), kept_scale(p), (width // heads) ** -0.5
    of_mixed = gradient.view(batch, heads, -1)
    by_heads = of_mixed.transpose(0, 1)
    of_value = torch.bmm(by_heads.mT, found.transpose(0, 1)).view(width, width)
    of_value_bias = (of_mixed * mass).sum(0).view(width)
    of_found = _swapped(torch.bmm(by_heads, value_weight.view(heads, -1, width)))
    of_mass = (of_mixed * value_bias.view(heads, -1)).sum(-1, keepdim=True)

    of_probs = torch.baddbmm(of_mass, of_found, hidden.mT, beta=kept, alpha=kept)
    if keep is not None:
        of_probs.view(keep.dtype).bitwise_and_(keep)
    of_scores = of_softmax(of_probs, probs)
    of_looked_for = torch.baddbmm(nothing, of_scores, hidden, beta=0, alpha=scale).transpose(0, 1)
    of_key = torch.bmm(query.mT, of_looked_for).view(width, width)
    of_query = _swapped(torch.bmm(of_looked_for, key_weight.view(heads, -1, width).mT)).view(batch, width)

    of_hidden = None
    if wants_hidden:
        used = probs if keep is None else masked(probs, keep)
        of_hidden = torch.baddbmm(nothing, of_scores.mT, looked_for, beta=0, alpha=scale)
        of_hidden.baddbmm_(used.mT, of_found, alpha=kept)
        of_hidden[:, 0] += torch.addmm(of_own, of_query, query_weight)
    of_weights = [of_query.t() @ own, of_query.sum(0), of_key, torch.zeros_like(key_bias), of_value, of_value_bias]
    return of_hidden, of_weights
