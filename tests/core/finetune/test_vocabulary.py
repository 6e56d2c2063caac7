"""The small table gives the weights of the whole one, at every moment when they are looked at; and <s> alone its last layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from roberta_core.finetune import Rows, Watch, finetune
from roberta_core.finetune.vocabulary import UsedVocabulary
from roberta_core.model import RobertaForSequenceClassification
from tests.core.finetune.test_loop import CPU, RECIPE, SST2, one_word_decides, rows_of
from tests.core.glue.tiny_encoder import write_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.set_num_threads(1)
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.mark.parametrize("layer_decay", [1.0, 0.8])
def test_the_weights_are_those_of_training_on_the_whole_table(encoder, layer_decay):
    rows, dev = rows_of(encoder, one_word_decides(48, 0)), rows_of(encoder, one_word_decides(8, 1))
    recipe = replace(RECIPE, epochs=3, keep_best=True, layer_decay=layer_decay, clip_norm=1.0)
    seen = {"small": [], "whole": []}

    def run(side, **more):
        def score(outputs):
            seen[side].append(np.stack(outputs))
            return float(len(seen[side]))

        return finetune(encoder, SST2, rows, recipe, 1, CPU, watch=Watch(dev, score), **more).state_dict()

    small = run("small")
    whole = run("whole", rows_of_epoch=lambda epoch: rows)  # the path for rows that change: the table stays whole
    start = SST2.build(encoder, recipe, 1).state_dict()
    name = "roberta.embeddings.word_embeddings.weight"
    used = sorted({token for ids in rows.ids for token in ids})
    others = sorted(set(range(len(whole[name]))) - set(used))
    assert len(others) > 50
    for key, weight in whole.items():
        assert torch.allclose(small[key], weight, atol=1e-7), key
    assert not torch.allclose(small[name][used], start[name][used], atol=1e-4)
    assert np.allclose(seen["small"], seen["whole"], atol=1e-6), "dev is scored with every word"
    rates = [recipe.peak_lr * share for share in ([1.0] + [(9 - step) / 8 for step in range(1, 9)])]
    left = np.prod([1 - lr * layer_decay**3 * recipe.weight_decay for lr in rates])
    assert torch.allclose(small[name][others], start[name][others] * left, atol=1e-7), "decayed by hand"


def test_padding_keeps_its_number_and_every_token_its_vector(encoder):
    model = SST2.build(encoder, RECIPE, 1)
    table = model.roberta.embeddings.word_embeddings.weight
    before = table.detach().clone()
    rows = Rows([[0, 50, 9, 2], [0, 300, 2]], [0, 1], 0)
    vocabulary = UsedVocabulary(model, rows, 0.1)
    small = vocabulary.numbered(rows)
    assert [list(ids) for ids in small.ids] == [[0, 4, 3, 2], [0, 5, 2]] and small.pad == 1
    assert torch.equal(table[4], before[50]) and torch.equal(table[1], before[1]) and len(table) == 6
    with vocabulary.whole():
        assert torch.equal(table, before)
    assert len(table) == 6
    vocabulary.decayed([0.5])
    vocabulary.restore()
    assert torch.equal(table[300], before[300]) and torch.allclose(table[301], before[301] * 0.95)


@pytest.mark.parametrize("padded", [False, True])
def test_the_first_token_alone_is_the_first_of_all(encoder, padded):
    model = RobertaForSequenceClassification.from_pretrained(encoder, num_labels=2)
    ids = torch.tensor([[0, 20, 30, 40, 2], [0, 21, 2, 1, 1]])
    mask = ids.ne(1) if padded else None
    with torch.inference_mode():
        every = model.roberta(ids, mask)[:, :1]
        assert torch.allclose(model.roberta(ids, mask, first_only=True), every, atol=1e-6)
    model.roberta(ids, mask)[:, 0].square().sum().backward()
    gradients = {name: each.grad.clone() for name, each in model.roberta.named_parameters()}
    model.zero_grad()
    model.roberta(ids, mask, first_only=True)[:, 0].square().sum().backward()
    for name, each in model.roberta.named_parameters():
        assert torch.allclose(each.grad, gradients[name], atol=1e-4, rtol=1e-4), name
