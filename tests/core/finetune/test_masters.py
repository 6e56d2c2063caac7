"""Flat masters give the weights of single ones: the oracle is autocast over plain weights, with torch's clipping and AdamW."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from roberta_core.device import autocast
from roberta_core.finetune.masters import BETAS, EPS, Masters
from roberta_core.finetune.parameters import groups, prepare
from tests.core.finetune.test_loop import CPU, RECIPE, SST2, one_word_decides, rows_of
from tests.core.glue.tiny_encoder import write_encoder

RATES = [1e-3, 2e-3, 5e-4]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.set_num_threads(1)
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def build(encoder, recipe):
    model = SST2.build(encoder, recipe, 1)
    prepare(model, recipe, 1)
    return model.train()


def backward(model, encoder, step, precision):
    rows = rows_of(encoder, one_word_decides(8, step))
    torch.manual_seed(step)
    with autocast(CPU, precision):
        SST2.loss(model, SST2.collate(rows, range(8), CPU)).backward()


def train(model, masters, encoder, precision, steps=(0, 1, 2)):
    for step in steps:
        backward(model, encoder, step, precision)
        masters.step(RATES[step])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("more", [{}, {"layer_decay": 0.8}, {"frozen_layers": 1, "reinit_layers": 1}])
@pytest.mark.parametrize("clip_norm", [0.0, 0.1])
def test_the_weights_are_those_of_autocast_and_adamw(encoder, precision, more, clip_norm):
    recipe = replace(RECIPE, precision=precision, clip_norm=clip_norm, **more)
    start, plain, model = (build(encoder, recipe) for _ in range(3))
    optimizer = torch.optim.AdamW(groups(plain, recipe), betas=BETAS, eps=EPS, fused=True)
    for step, lr in enumerate(RATES):
        backward(plain, encoder, step, precision)
        if clip_norm:
            trained = [weight for weight in plain.parameters() if weight.requires_grad]
            assert torch.nn.utils.clip_grad_norm_(trained, clip_norm) > clip_norm, "there is something to clip"
        for group in optimizer.param_groups:
            group["lr"] = lr * group["share"]
        optimizer.step()
        optimizer.zero_grad()
    masters = Masters(model, groups(model, recipe), precision, clip_norm)
    train(model, masters, encoder, precision)
    masters.release()
    for name, weight in plain.named_parameters():
        found = model.get_parameter(name)
        assert found.dtype == torch.float32 and found.is_contiguous()
        if (
            clip_norm
        ):  # the norm is summed in another order, and what that turns in bfloat16 moves single elements more
            change = (weight - start.get_parameter(name)).norm()
            assert (found - weight).norm() <= (2e-3 if precision == "bf16" else 1e-4) * change + 1e-6, name
        else:
            assert torch.equal(found, weight), name


def test_linear_maps_are_rounded_while_training_and_exact_when_looked_at(encoder):
    recipe = replace(RECIPE, precision="bf16")
    model = build(encoder, recipe)
    before = deepcopy(model.state_dict())
    masters = Masters(model, groups(model, recipe), "bf16", 0.0)
    for name, weight in model.named_parameters():
        rounded = ".dense." in name or ".self." in name or "out_proj" in name
        assert weight.dtype == (torch.bfloat16 if rounded else torch.float32), name
        assert torch.equal(weight, before[name].to(weight.dtype)), name
    with masters.exact():
        assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
        model.classifier.dense.weight.data.fill_(1.0 + 2**-12)
    assert model.classifier.dense.weight.eq(1.0).all(), "what was put in is rounded"
    masters.release()
    assert model.classifier.dense.weight.eq(1.0 + 2**-12).all()


def test_it_goes_on_from_its_state_with_the_same_bits(encoder):
    recipe = replace(RECIPE, precision="bf16", layer_decay=0.9)
    model, other = build(encoder, recipe), build(encoder, recipe)
    masters, fresh = (Masters(each, groups(each, recipe), "bf16", 1.0) for each in (model, other))
    assert masters.state() == {}
    train(model, masters, encoder, "bf16", range(2))
    state = {name: tensor.clone() for name, tensor in masters.state().items()}
    assert set(state) == {
        f"{moment}.{name}" for moment in ("step", "exp_avg", "exp_avg_sq") for name, _ in model.named_parameters()
    }
    with masters.exact(), fresh.exact():
        other.load_state_dict(model.state_dict())
    fresh.load(state)
    train(model, masters, encoder, "bf16", [2])
    train(other, fresh, encoder, "bf16", [2])
    with masters.exact(), fresh.exact():
        assert all(torch.equal(each, other.state_dict()[name]) for name, each in model.state_dict().items())


def test_rows_of_the_table_are_cleared_that_the_last_batch_touched(encoder):
    """Gradients come as rows, then of other rows, then not at all, then whole: each time the place holds what autograd gives."""
    model, plain = build(encoder, RECIPE), build(encoder, RECIPE)
    masters = Masters(model, groups(model, RECIPE), "fp32", 0.0)
    table, expected = (each.roberta.embeddings.word_embeddings for each in (model, plain))
    assert table.sparse and not expected.sparse
    group, place = next(
        (group, place)
        for group in masters._groups
        for weight, place in zip(group.weights, group.gradients)
        if weight is table.weight
    )
    for ids in ([5, 7, 7], [7, 9], None, [3], "whole", [4, 4]):
        expected.weight.grad = None
        for part in (table, expected):
            if ids == "whole":
                part.weight.square().sum().backward()
            elif ids:
                part(torch.tensor(ids)).square().sum().backward()
        group.gather()
        assert torch.equal(place, torch.zeros_like(place) if ids is None else expected.weight.grad), ids
        assert table.weight.grad is None
    masters.release()
    assert not table.sparse


def test_a_weight_without_part_in_the_loss_stays(encoder):
    recipe = replace(RECIPE, weight_decay=0.0)
    model = build(encoder, recipe)
    masters = Masters(model, groups(model, recipe), "fp32", 0.0)
    start = model.classifier.dense.weight.detach().clone()
    for _ in range(2):
        model.classifier.out_proj.weight.square().sum().backward()
        masters.step(1e-2)
    assert torch.equal(model.classifier.dense.weight, start)
    assert model.classifier.out_proj.weight.grad is None, "gradients are dropped"
