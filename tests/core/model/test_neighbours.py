"""Heads that see their neighbours: what they attend to at birth, and that the model is a RoBERTa like any other."""

import pytest
import torch

from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.model.neighbours import offset_of, start_with_neighbours

VOCAB, LENGTH = 500, 64


@pytest.fixture(scope="module")
def model():
    model = RobertaForMaskedLM(RobertaConfig.named("mini", VOCAB, LENGTH, 0.0), seed=1).eval()
    start_with_neighbours(model, seed=1)
    return model


def attention(model: RobertaForMaskedLM, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """Attention weights [B, H, L, L] of a layer."""
    hidden = model.roberta.embeddings(ids, padded=False)
    for each in model.roberta.encoder.layer[:layer]:
        hidden = each(hidden, None)
    part = model.roberta.encoder.layer[layer].attention.self
    query, key = (
        projection(hidden).view(*ids.shape, part.heads, -1).transpose(1, 2) for projection in (part.query, part.key)
    )
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)


def test_offsets():
    assert [offset_of(head) for head in range(6)] == [-1, 1, -2, 2, -3, 3]


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_each_head_attends_most_to_its_own_neighbour(model, layer):
    ids = torch.randint(4, VOCAB - 1, (8, LENGTH), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        weights = attention(model, ids, layer)
    inner = torch.arange(6, LENGTH - 6)
    for head in range(4):
        by_offset = {
            offset: weights[:, head, inner, inner + offset].mean().item() for offset in range(-6, 7)
        }  # words that happen to look like a position add noise, which the mean takes out
        assert max(by_offset, key=by_offset.get) == offset_of(head), by_offset
        assert by_offset[offset_of(head)] > 5 / LENGTH


def test_positions_are_as_large_as_a_normal_draw(model):
    table = model.roberta.embeddings.position_embeddings.weight.detach()
    assert table.pow(2).mean().sqrt() == pytest.approx(model.config.initializer_range, rel=0.01)


def test_it_is_a_function_of_the_seed(model):
    again = RobertaForMaskedLM(model.config, seed=1)
    start_with_neighbours(again, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
