"""A layer as one function gives what its modules give, forward and backward; its gradients are those of differences, too."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from roberta_core.model import RobertaConfig, layer_function
from roberta_core.model.attention import LONGEST
from roberta_core.model.dropout import dropped_share, keep_mask
from roberta_core.model.encoder import Layer
from roberta_core.model.isolation import isolate

B, L = 4, 20
CONFIG = RobertaConfig.named("tiny", 99, LONGEST + 1, 0.1)
WIDTH = CONFIG.hidden_size
NO_EFFECT = "attention.self.key.bias"
"""It moves all scores of a query alike, so its gradient is 0 but for rounding."""


def layer_of(config: RobertaConfig) -> Layer:
    """With biases and norms away from 0 and 1, so that one left out shows."""
    layer = Layer(config).train()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(torch.empty(weight.shape).normal_(0, 0.1, generator=generator))
    return layer


def masks() -> dict[str, torch.Tensor | None]:
    lengths = torch.tensor([L, 12, 5, 1])
    document = torch.arange(L) // 7
    return {
        "dense": None,
        "padded": (torch.arange(L) < lengths[:, None])[:, None, None, :],
        "blocks": (document[:, None] == document)[None, None].expand(B, 1, L, L),
    }


def by_modules(layer: Layer, hidden: torch.Tensor, seen: torch.Tensor | None, first: bool) -> torch.Tensor:
    between = layer.attention.first(hidden, seen) if first else layer.attention(hidden, seen)
    return layer.output(layer.intermediate(between), between)


@pytest.fixture
def one_by_one(monkeypatch):
    """Masks are drawn as the modules draw them, which is not together."""
    monkeypatch.setattr(
        layer_function, "keep_masks", lambda shapes, p, dtype: [keep_mask(shape, p, dtype) for shape in shapes]
    )


def both(
    layer: Layer, seen: torch.Tensor | None, dtype: torch.dtype, first: bool = False, expected: Callable | None = None
) -> list[dict]:
    """Output and gradients of the function and of the modules (or of `expected`), from the same input, draws and gradient."""
    expected = expected or (lambda *each: by_modules(layer, *each, first))
    generator = torch.Generator().manual_seed(1)
    given = torch.randn(B, L, WIDTH, generator=generator).to(dtype)
    weight = torch.randn(B, 1 if first else L, WIDTH, generator=generator).to(dtype)
    found = []
    for run in (layer.first if first else layer, expected):
        hidden = given.clone().requires_grad_()
        layer.zero_grad()
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            result = run(hidden, seen)
        result.backward(weight)
        gradients = {name: each.grad for name, each in layer.named_parameters() if name != NO_EFFECT}
        found.append({"output": result.detach(), "hidden": hidden.grad, **gradients})
    return found


def expect_alike(found: list[dict], tolerance: float) -> None:
    ours, theirs = found
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype, name
        error = (ours[name].float() - expected.float()).norm() / expected.float().norm()
        assert error < tolerance, f"{name}: {error}"


@pytest.mark.parametrize("seen", ["dense", "padded", "blocks"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_all_tokens(one_by_one, seen, dtype, tolerance):
    expect_alike(both(layer_of(CONFIG), masks()[seen], dtype), tolerance)


@pytest.mark.parametrize(("probs", "hidden"), [(0.0, 0.1), (0.1, 0.0), (0.1, 0.3)])
def test_unequal_shares_of_dropout(probs, hidden):
    """Masks are then drawn one by one, as the modules do it."""
    config = replace(CONFIG, attention_probs_dropout_prob=probs, hidden_dropout_prob=hidden)
    expect_alike(both(layer_of(config), masks()["padded"], torch.float32), 2e-6)


def test_masks_of_any_shape_that_broadcasts():
    """A mask for each head, one for all rows, a square one, and a batch without rows."""
    layer = layer_of(replace(CONFIG, attention_probs_dropout_prob=0.0))
    heads = CONFIG.num_attention_heads
    draw = torch.rand(B, heads, L, L, generator=torch.Generator().manual_seed(8)) > 0.4
    draw[..., 0] = True
    for mask in (draw, draw[:1], draw[0, 0]):
        expect_alike(both(layer, mask, torch.float32), 2e-6)
    expect_alike(both(layer, draw[:, :, :1], torch.float32, True), 2e-6)
    nobody = torch.zeros(0, L, WIDTH)
    assert layer(nobody, draw[:0]).shape == (0, L, WIDTH) and layer.first(nobody, draw[:0, :, :1]).shape == (
        0,
        1,
        WIDTH,
    )


def test_a_module_that_is_replaced_is_the_one_that_learns():
    layer = layer_of(replace(CONFIG, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0))
    layer.attention.self.query = torch.nn.Linear(WIDTH, WIDTH)
    expect_alike(both(layer, None, torch.float32), 2e-6)


@pytest.mark.parametrize("seen", ["dense", "padded"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_the_first_token(seen, dtype, tolerance):
    """Without dropout of the probabilities, which torch's attention draws in its own way there."""
    expect_alike(
        both(layer_of(replace(CONFIG, attention_probs_dropout_prob=0.0)), masks()[seen], dtype, True), tolerance
    )


@pytest.mark.parametrize("seen", ["dense", "padded"])
def test_the_first_token_with_dropout(monkeypatch, seen):
    """With given masks, the modules' own steps around attention by hand."""
    layer, heads = layer_of(CONFIG), CONFIG.num_attention_heads
    torch.manual_seed(6)
    probs_kept, *kept = (keep_mask(shape, 0.3, torch.float32) for shape in ((B * heads, 1, L), (B, WIDTH), (B, WIDTH)))
    monkeypatch.setattr(layer_function, "_masks", lambda *each: [probs_kept, *kept])
    scale = 1 / (1 - dropped_share(0.1))  # of the configured share, whatever the masks drop

    def by_hand(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        own, out = layer.attention.self, layer.attention.output
        query, key, value = (
            part(hidden).view(B, L, heads, -1).transpose(1, 2) for part in (own.query, own.key, own.value)
        )
        scores = query[:, :, :1] @ key.mT * key.shape[-1] ** -0.5
        probs = torch.softmax(scores if mask is None else scores.masked_fill(~mask, -torch.inf), -1)
        mixed = (probs * probs_kept.ne(0).view(probs.shape) * scale @ value).transpose(1, 2).reshape(B, WIDTH)
        between = out.LayerNorm(out.dense(mixed) * kept[0].ne(0) * scale + hidden[:, 0])
        result = layer.output.dense(layer.intermediate(between)) * kept[1].ne(0) * scale
        return layer.output.LayerNorm(result + between)[:, None]

    expect_alike(both(layer, masks()[seen], torch.float32, True, by_hand), 2e-6)


def test_an_isolation_and_its_mask_are_the_same():
    layer = layer_of(replace(CONFIG, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0))
    hidden = torch.randn(B, L, WIDTH)
    apart = isolate((torch.arange(L) // 6).expand(B, L), 1)
    assert torch.equal(layer(hidden, apart), layer(hidden, apart.mask))
    with pytest.raises(NotImplementedError):  # torch's kernel for documents of any length, which a CPU has not
        layer(hidden, isolate((torch.arange(L) // 6).expand(B, L), 1, varlen=True))


@pytest.mark.parametrize("first", [False, True])
def test_gradients_are_those_of_differences(first):
    """In float64, which only a test asks for."""
    width, settings = 8, layer_function.Settings(2, 0.0, 0.0, 0.0, 1e-5)
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    square, vector = (width, width), (width,)
    wide = [(12, width), (12,), (width, 12), vector]
    weights = [drawn(*shape) for shape in [*[square, vector] * 4, vector, vector, *wide, vector, vector]]
    seen = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1e4]], dtype=torch.float64)[:, None, None, :]
    assert torch.autograd.gradcheck(
        lambda hidden, *each: layer_function.apply(hidden, seen, settings, list(each), first),
        (drawn(2, 3, width), *weights),
    )


def test_frozen_weights_and_an_input_that_asks_for_nothing():
    """The lowest trained layer above frozen ones: its input needs no gradient, and its weights' are the same."""
    layer = layer_of(replace(CONFIG, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0))
    hidden = torch.randn(B, L, WIDTH)
    layer(hidden, None).square().sum().backward()
    without = [weight.grad for weight in layer.parameters()]
    layer.zero_grad()
    layer(hidden.requires_grad_(), None).square().sum().backward()
    assert all(torch.equal(a, weight.grad) for a, weight in zip(without, layer.parameters(), strict=True))
    layer.requires_grad_(False)
    assert layer(hidden, None).requires_grad and not layer(hidden.detach(), None).requires_grad


def test_what_takes_the_function(monkeypatch):
    taken = []
    apply = layer_function.apply
    monkeypatch.setattr(layer_function, "apply", lambda *each, **more: taken.append(1) or apply(*each, **more))

    def takes(layer: Layer, hidden: torch.Tensor) -> bool:
        taken.clear()
        layer(hidden, None)
        return bool(taken)

    layer, short, long = layer_of(CONFIG), torch.randn(1, L, WIDTH), torch.randn(1, LONGEST + 1, WIDTH)
    assert takes(layer, short)
    assert not takes(layer, long)
    assert not takes(layer.eval(), short)
    layer.train()
    with torch.no_grad():
        assert not takes(layer, short)
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes(layer, short) and takes(layer, short.bfloat16())
    assert not takes(layer_of(replace(CONFIG, hidden_dropout_prob=1.0)), short)  # nothing is kept: torch's own
