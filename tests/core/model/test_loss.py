"""The tiled loss equals torch's cross-entropy on the whole logits: value, right predictions, and all three gradients."""

import pytest
import torch
from torch.nn import functional as F

from roberta_core.model import RobertaConfig, RobertaForMaskedLM, loss
from roberta_core.model.loss import linear_cross_entropy

N, D, V, PADDED = 37, 24, 101, 128


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    labels = torch.randint(0, V, (N,), generator=generator)
    labels[[3, 20, N - 1]] = -100
    return draw(N, D), draw(PADDED, D), draw(V), labels


def both(hidden, embedding, bias, labels, weight: float = 0.3):
    """(loss, right, gradients) of the tiled loss and of torch's."""
    found = []
    for tiled in (True, False):
        leaves = [each.detach().clone().requires_grad_() for each in (hidden, embedding, bias)]
        if tiled:
            total, right = linear_cross_entropy(*leaves, labels)
        else:
            logits = (leaves[0] @ leaves[1].t())[:, :V] + leaves[2]
            total = F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
            right = (logits.argmax(-1) == labels).sum()
        (total * weight).backward()
        found.append((total.detach(), right, [leaf.grad for leaf in leaves]))
    return found


@pytest.mark.parametrize(("tile", "block"), [(1 << 21, 1 << 27), (5 * PADDED, 1 << 27), (5 * PADDED, 16 * PADDED)])
def test_equals_torch_whatever_the_tiles(monkeypatch, tile, block):
    monkeypatch.setitem(loss.TILE_ELEMENTS, "cpu", tile)
    monkeypatch.setattr(loss, "BLOCK_ELEMENTS", block)
    ours, theirs = both(*inputs())
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-4, rtol=1e-6)
    assert ours[1] == theirs[1]
    for mine, their in zip(ours[2], theirs[2]):
        torch.testing.assert_close(mine, their, atol=1e-5, rtol=1e-5)
    assert not ours[2][1][V:].any()


def test_bfloat16_is_as_near_to_float32_as_torchs():
    hidden, embedding, bias, labels = inputs(torch.bfloat16)
    (mine, _, my_grads), (theirs, _, their_grads) = both(hidden * 0.2, embedding, bias, labels)
    (exact, _, exact_grads), _ = both(*(each.float() for each in (hidden * 0.2, embedding, bias)), labels)
    assert abs(mine - exact) <= abs(theirs - exact) + 2e-3 * exact
    for my, their, true in zip(my_grads, their_grads, exact_grads):
        assert (my - true).norm() <= 1.5 * (their - true).norm() + 1e-3 * true.norm()


def test_extreme_logits_keep_their_loss():
    """A label far below the rest: its probability underflows in float32, its loss does not."""
    hidden, embedding = torch.tensor([[400.0], [400.0]]), torch.tensor([[1.0], [-1.0]])
    total, right = linear_cross_entropy(hidden, embedding, torch.zeros(2), torch.tensor([1, 0]))
    assert total == 800.0 and right == 1


def test_of_equal_largest_logits_the_first_is_the_prediction():
    hidden, embedding = torch.ones(3, 1), torch.tensor([[1.0], [2.0], [2.0], [2.0]])
    _, right = linear_cross_entropy(hidden, embedding, torch.zeros(4), torch.tensor([1, 2, 3]))
    assert right == 1


def test_what_runs_on_a_gpu_gives_the_same(monkeypatch):
    """There the place of the maximum is looked for in every row, and rows without a label stay."""
    hidden, embedding, bias, labels = inputs(torch.bfloat16)
    (total, right, gradients), _ = both(hidden, embedding, bias, labels)
    monkeypatch.setattr(loss, "_drops_unused", lambda labels: False)
    (other_total, other_right, other_gradients), _ = both(hidden, embedding, bias, labels)
    assert right == other_right
    torch.testing.assert_close(total, other_total)
    torch.testing.assert_close(gradients, other_gradients, atol=2e-2, rtol=2e-2)


def test_no_gradient_is_made_where_none_is_wanted(monkeypatch):
    hidden, embedding, bias, labels = inputs()
    asked = []
    real = loss._tile
    monkeypatch.setattr(loss, "_tile", lambda *args: asked.append(args[3]) or real(*args))
    with torch.no_grad():
        total, _ = linear_cross_entropy(hidden, embedding, bias, labels)
    assert asked == [None] and not total.requires_grad


def test_the_models_loss_is_that_of_its_logits():
    model = RobertaForMaskedLM(RobertaConfig.named("tiny", 301, 24, 0.0), seed=1)
    ids = torch.randint(4, 300, (3, 24))
    positions, labels = torch.tensor([2, 9, 30, 60]), torch.tensor([7, -100, 250, 8])
    logits = model(ids, positions=positions)
    total, right = model(ids, positions=positions, labels=labels)
    torch.testing.assert_close(total, F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
    assert right == (logits.argmax(-1) == labels).sum()
