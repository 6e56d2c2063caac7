"""The recipe's options against hand-written oracles: one update of AdamW by layer, drawn layers, weights of labels, words."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from roberta_core.data.tokenizer import load_tokenizer
from roberta_core.device import autocast
from roberta_core.errors import BadInput, BadParams
from roberta_core.finetune import Classification, Rows, Watch, augmented, balanced_weights, derive, finetune, predict
from roberta_core.finetune.augment import augment
from roberta_core.finetune.rows import batches
from roberta_core.finetune.state import Keeper
from roberta_core.model import RobertaForMaskedLM
from roberta_core.train.checkpoint import Checkpoints
from tests.core.finetune.test_loop import CPU, RECIPE, SST2, one_word_decides, rows_of
from tests.core.glue.tiny_encoder import write_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.set_num_threads(1)
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def one_update(encoder, rows, recipe, seed, objective=SST2):
    """The weights after one update, by the formulas of AdamW (Loshchilov and Hutter 2019) alone; and those before."""
    model = objective.build(encoder, recipe, seed)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model.train()
    chosen = batches([len(each) for each in rows.ids], recipe.batch_size, seed, 0)[0]
    torch.manual_seed(derive(seed, 0))
    batch = objective.collate(rows, chosen, CPU)
    with autocast(CPU, recipe.precision):
        objective.loss(model, batch).backward()
    return before, {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, {0: 1, 1: 1, 2: 1, 3: 1}),
        ({"layer_decay": 0.5}, {0: 0.125, 1: 0.25, 2: 0.5, 3: 1}),
        ({"layer_decay": 0.5, "frozen_layers": 1}, {0: 0, 1: 0, 2: 0.5, 3: 1}),
        ({"frozen_layers": 0}, {0: 0, 1: 1, 2: 1, 3: 1}),
        ({"clip_norm": 1e-5}, {0: 1, 1: 1, 2: 1, 3: 1}),
    ],
)
def test_one_update_is_adamw_with_each_layers_rate(encoder, options, shares):
    rows = rows_of(encoder, one_word_decides(32, 0))
    recipe = replace(RECIPE, epochs=1, max_steps=1, warmup_ratio=0.0, **options)
    before, gradients = one_update(encoder, rows, recipe, 3)
    model = finetune(encoder, SST2, rows, recipe, 3, CPU)
    trained = {name: each for name, each in gradients.items() if shares[depth(name)]}
    norm = math.sqrt(sum(float((each.double() ** 2).sum()) for each in trained.values()))
    clip = min(1.0, recipe.clip_norm / norm) if recipe.clip_norm else 1.0
    for name, weight in model.named_parameters():
        rate = recipe.peak_lr * shares[depth(name)]
        gradient = gradients[name] * clip
        decay = recipe.weight_decay if weight.ndim > 1 else 0.0
        wanted = before[name] * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-6)
        assert torch.allclose(weight, wanted, atol=2e-6), name
        assert torch.equal(weight, before[name]) == (not rate or not gradient.any()), name  # none: the last key's bias


def depth(name):
    if "embeddings" in name:
        return 0
    return 1 + int(name.split(".")[3]) if "encoder.layer" in name else 3


def test_the_top_layers_are_drawn_anew_and_nothing_else(encoder):
    rows = rows_of(encoder, one_word_decides(16, 0))
    recipe = replace(RECIPE, epochs=1, peak_lr=1e-12, weight_decay=0.0, reinit_layers=1)
    model, other = (dict(finetune(encoder, SST2, rows, recipe, seed, CPU).saved_weights()) for seed in (1, 2))
    old = dict(RobertaForMaskedLM.from_pretrained(encoder).saved_weights())
    for name, weight in model.items():
        if name.startswith("roberta."):
            changed = name.startswith("roberta.encoder.layer.1.") and weight.ndim > 1
            assert torch.allclose(weight, old[name], atol=1e-9) != changed, name
            assert torch.allclose(weight, other[name], atol=1e-9) != changed, "each seed draws its own"
    drawn = model["roberta.encoder.layer.1.intermediate.dense.weight"]
    assert float(drawn.std()) == pytest.approx(0.02, rel=0.05) and abs(float(drawn.mean())) < 1e-3
    with pytest.raises(BadParams, match="2 layers are to be frozen and 1 to be drawn anew; the encoder has 2"):
        finetune(encoder, SST2, rows, replace(recipe, frozen_layers=2), 1, CPU)


def test_weights_of_labels_are_scikit_learns_and_the_loss_is_their_weighted_mean(encoder):
    from sklearn.utils.class_weight import compute_class_weight

    labels = [0] * 5 + [1] * 15 + [2] * 40
    weights = balanced_weights(labels, 3)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    assert weights == pytest.approx(wanted.tolist())
    with pytest.raises(BadParams, match="Label number 1 has no row"):
        balanced_weights([0, 2], 3)
    objective = Classification("three", ("a", "b", "c"), weights)
    rows = Rows([[0, 5, 2]] * 4, [0, 1, 2, 2], 0)
    model = objective.build(encoder, RECIPE, 1)
    batch = objective.collate(rows, range(4), CPU)
    chance = F.log_softmax(model(batch.input_ids), -1)
    hand = sum(-weights[label] * chance[row, label] for row, label in enumerate(rows.labels))
    assert objective.loss(model, batch).item() == pytest.approx(hand.item() / sum(weights[x] for x in rows.labels))


def test_words_go_and_change_places_as_drawn():
    words = [f"w{number}" for number in range(40)]
    text = " ".join(words)
    swapped = augment(text, np.random.default_rng(0), 0.0, 0.1)
    assert Counter(swapped.split()) == Counter(words)
    assert 2 <= sum(a != b for a, b in zip(swapped.split(), words)) <= 8, "four swaps move at most eight words"
    lengths = []
    for seed in range(200):
        left = augment(text, np.random.default_rng(seed), 0.25, 0.0).split()
        assert left == [word for word in words if word in left], "the others keep their order"
        lengths.append(len(left))
    assert np.mean(lengths) == pytest.approx(30, abs=0.7)
    assert augment("a b", np.random.default_rng(0), 1.0, 0.0) in ("a", "b"), "one word stays"
    assert augment("字字字", np.random.default_rng(0), 0.5, 0.5) == "字字字"
    assert augment("", np.random.default_rng(0), 0.5, 0.5) == ""
    rows = augmented([(text, "x y z"), ("one two three",)], 7, 0.2, 0.2)
    assert rows(3) == rows(3) != rows(4) and rows(0) != augmented([(text, "x y z")], 8, 0.2, 0.2)(0)
    alone = augmented([("",), ("one two three",)], 7, 0.2, 0.2)
    assert alone(3)[1] == rows(3)[1], "a row's draw does not depend on the others"


def test_each_epoch_has_its_own_rows(encoder):
    split = one_word_decides(32, 0)
    seen = []

    def rows_of_epoch(epoch):
        seen.append(epoch)
        split.texts = augmented(split.texts, 1, 0.3, 0.0)(epoch)
        return rows_of(encoder, split)

    rows = rows_of(encoder, split)
    finetune(encoder, SST2, rows, replace(RECIPE, epochs=3), 1, CPU, rows_of_epoch=rows_of_epoch)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([0.1, 0.9, 0.3, 0.2, 0.1], 0, 5, 2),
        ([0.1, 0.9, 0.3, 0.2, 0.95], 2, 4, 2),
        ([0.5, 0.5, 0.5], 0, 3, 1),
        ([0.1, 0.2, 0.3], 1, 3, 3),
    ],
)
def test_the_best_epoch_is_kept_and_patience_ends_the_run(encoder, scores, patience, epochs, best):
    rows, dev = rows_of(encoder, one_word_decides(32, 0)), rows_of(encoder, one_word_decides(8, 1))
    found, told = [], []

    def score(outputs):
        found.append(np.stack(outputs))
        return scores[len(found) - 1]

    recipe = replace(RECIPE, epochs=len(scores), keep_best=True, patience=patience)
    watch = Watch(dev, score)
    model = finetune(encoder, SST2, rows, recipe, 1, CPU, watch=watch, on_epoch=lambda *each: told.append(each))
    assert told == list(enumerate(scores[:epochs], 1))
    assert np.array_equal(np.stack(predict(SST2, model, dev)), found[best - 1])
    assert not np.array_equal(found[0], found[1])


def test_a_score_that_is_no_number_is_told(encoder):
    rows = rows_of(encoder, one_word_decides(16, 0))
    watch = Watch(rows, lambda outputs: math.nan)
    with pytest.raises(BadInput, match="SST-2: the score on dev is nan after epoch 1"):
        finetune(encoder, SST2, rows, replace(RECIPE, keep_best=True), 1, CPU, watch=watch)


def test_no_rows_and_outputs_that_are_no_numbers_are_told(encoder):
    with pytest.raises(BadInput, match="SST-2 has no training rows"):
        finetune(encoder, SST2, Rows([], [], 0), RECIPE, 1, CPU)
    model = SST2.build(encoder, RECIPE, 1)
    model.classifier.out_proj.bias.data.fill_(math.nan)
    with pytest.raises(BadParams, match="SST-2: its outputs are not numbers"):
        predict(SST2, model, rows_of(encoder, one_word_decides(2, 0)))


class Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [3, 8, 9, 15])
def test_a_killed_run_goes_on_to_the_same_bits_twice(encoder, tmp_path, kill_at):
    """Eight updates an epoch, killed within one, at its end and after it; then killed again."""
    rows, dev = rows_of(encoder, one_word_decides(128, 0)), rows_of(encoder, one_word_decides(16, 1))
    recipe = replace(RECIPE, epochs=3, keep_best=True, layer_decay=0.9)
    watch = Watch(dev, lambda outputs: float(np.stack(outputs)[:, 0].sum()) % 0.1)
    whole = {}
    finished = finetune(
        encoder, SST2, rows, recipe, 1, CPU, watch=watch, on_epoch=lambda epoch, score: whole.update({epoch: score})
    )

    def attempt(until):
        steps, scores = [], {}

        def on_step(step, loss, lr):
            steps.append(step)
            if step == until:
                raise Killed

        keeper = Keeper(Checkpoints(tmp_path, "same", 1), 0.0)
        model = finetune(
            encoder, SST2, rows, recipe, 1, CPU, on_step, watch=watch, keeper=keeper,
            on_epoch=lambda epoch, score: scores.update({epoch: score}),
        )  # fmt: skip
        return model, steps, scores

    for until in (kill_at, kill_at + 4):
        with pytest.raises(Killed):
            attempt(until)
    model, steps, scores = attempt(None)
    assert steps[0] == kill_at + 4 and steps[-1] == 24, "the state of the start of the killed update was there"
    assert scores == whole
    for name, weight in finished.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name


def test_a_damaged_state_begins_anew(encoder, tmp_path, capsys):
    rows = rows_of(encoder, one_word_decides(32, 0))
    keeper = Keeper(Checkpoints(tmp_path, "same", 1), 0.0)
    recipe = replace(RECIPE, epochs=2)
    wanted = finetune(encoder, SST2, rows, recipe, 1, CPU, keeper=keeper).state_dict()
    (newest,) = tmp_path.glob("step-*")
    (newest / "model.safetensors").write_bytes(b"no")
    steps = []
    model = finetune(encoder, SST2, rows, recipe, 1, CPU, lambda step, *_: steps.append(step), keeper=keeper)
    assert steps == [1, 2, 3, 4] and "begins anew" in capsys.readouterr().out
    assert all(torch.equal(weight, wanted[name]) for name, weight in model.state_dict().items())


def test_the_tokenizer_sees_the_changed_text(encoder):
    tokenizer = load_tokenizer(encoder)
    split = one_word_decides(4, 0)
    changed = augmented(split.texts, 1, 0.5, 0.0)(0)
    from roberta_core.finetune import tokenise

    rows = tokenise(tokenizer, changed, split.labels, 32)
    assert [tokenizer.decode(list(ids)) for ids in rows.ids] == [text for (text,) in changed]
