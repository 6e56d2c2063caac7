"""The written-out attention equals torch's, forward and backward, with masks and with dropout."""

import pytest
import torch
from torch.nn import functional as F

from roberta_core.model import attention
from roberta_core.model.attention import attend
from roberta_core.model.dropout import dropped_share, keep_mask

B, L, H, E = 3, 40, 2, 16


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(B, L, 3, H, E, generator=generator).to(dtype).requires_grad_()
    return qkv, torch.randn(B, L, H * E, generator=generator).to(dtype)


def masks() -> dict[str, torch.Tensor | None]:
    lengths = torch.tensor([L, 17, 1])
    padded = (torch.arange(L) < lengths[:, None])[:, None, None, :]
    document = torch.arange(L) // 13
    blocks = (document[:, None] == document)[None, None]
    return {"dense": None, "padded": padded, "blocks": blocks.expand(B, 1, L, L)}


def reference(qkv: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).reshape(B, L, H * E)


@pytest.mark.parametrize("name", ["dense", "padded", "blocks"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_equals_torch(name, dtype, tolerance):
    ours, weight = inputs(dtype)
    theirs = ours.detach().float().requires_grad_()
    mixed, expected = attend(ours, masks()[name], 0.0), reference(theirs, masks()[name])
    torch.testing.assert_close(mixed.float(), expected, atol=tolerance, rtol=tolerance)
    mixed.backward(weight)
    expected.backward(weight.float())
    torch.testing.assert_close(ours.grad.float(), theirs.grad, atol=3 * tolerance, rtol=tolerance)


def test_dropout_is_on_the_probabilities_and_in_the_gradient():
    ours, weight = inputs()
    theirs = ours.detach().clone().requires_grad_()
    torch.manual_seed(5)
    mixed = attend(ours, None, 0.2)
    torch.manual_seed(5)
    keep = keep_mask((B * H, L, L), 0.2, torch.float32).ne(0).view(B, H, L, L)
    query, key, value = theirs.permute(2, 0, 3, 1, 4)
    probs = torch.softmax(query @ key.mT * E**-0.5, -1) * keep / (1 - dropped_share(0.2))
    expected = (probs @ value).transpose(1, 2).reshape(B, L, H * E)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    mixed.backward(weight)
    expected.backward(weight)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_a_query_that_may_look_nowhere_gives_numbers():
    qkv, weight = inputs(torch.bfloat16)
    mixed = attend(qkv, torch.zeros(B, 1, L, L, dtype=torch.bool), 0.0)
    mixed.backward(weight)
    assert mixed.isfinite().all() and qkv.grad.isfinite().all()


def test_long_rows_take_torchs_kernel(monkeypatch):
    monkeypatch.setattr(attention, "LONGEST", L - 1)
    qkv, _ = inputs()
    torch.testing.assert_close(attend(qkv, None, 0.0), reference(qkv, None))
