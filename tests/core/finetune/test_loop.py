"""Fine-tuning: the same bytes twice, batches that are a pure function, truncation counted, and a task that is learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.data.tokenizer import load_tokenizer
from roberta_core.errors import BadParams
from roberta_core.finetune import Classification, Recipe, Rows, Watch, derive, finetune, plan, predict, tokenise
from roberta_core.finetune.rows import batches, pad_rows
from roberta_core.glue.layout import Split
from roberta_core.glue.objective import objective_of
from roberta_core.glue.tasks import TASKS
from roberta_core.model import RobertaForSequenceClassification
from tests.core.glue.tiny_encoder import WORDS, write_encoder

RECIPE = Recipe(
    max_length=32, epochs=4, max_steps=0, batch_size=16, peak_lr=2e-3, weight_decay=0.1, warmup_ratio=0.1, dropout=0.1,
    precision="fp32",
)  # fmt: skip
CPU = torch.device("cpu")
SST2, STSB = objective_of(TASKS["SST-2"]), objective_of(TASKS["STS-B"])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.set_num_threads(1)
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def rows_of(encoder, split, max_length=32):
    return tokenise(load_tokenizer(encoder), split.texts, split.labels, max_length)


def one_word_decides(rows, seed):
    """Positive where the text holds the word good, negative where it holds bad."""
    draw = np.random.default_rng(seed)
    labels = [row % 2 for row in range(rows)]
    texts = [[*draw.choice(WORDS, draw.integers(2, 9)), ("bad", "good")[label]] for label in labels]
    return Split([(" ".join(draw.permutation(words)),) for words in texts], labels)


def test_learns_that_one_word_decides(encoder):
    train, dev = one_word_decides(400, 0), one_word_decides(100, 1)
    losses = []
    model = finetune(
        encoder, SST2, rows_of(encoder, train), RECIPE, 1, CPU, lambda step, loss, lr: losses.append(loss)
    )
    assert len(losses) == plan(400, RECIPE) == 100
    assert np.mean(losses[:5]) > 0.5 > 0.2 > np.mean(losses[-5:])
    probabilities = np.stack(predict(SST2, model, rows_of(encoder, dev)))
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert (probabilities.argmax(axis=1) == dev.labels).mean() > 0.95
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_regression_speaks_in_scores_from_0_to_5(encoder, tmp_path):
    draw = np.random.default_rng(0)
    labels = [float(row % 6) for row in range(300)]
    texts = [
        (" ".join(["good"] * int(score) + ["bad"] * (5 - int(score))), str(draw.choice(WORDS))) for score in labels
    ]
    rows = rows_of(encoder, Split(texts, labels))
    losses = []
    model = finetune(encoder, STSB, rows, RECIPE, 1, CPU, lambda step, loss, lr: losses.append(loss))
    assert losses[0] < 1.5, "the error is one of score / 5, whose squares are below 1"
    guess = np.stack(predict(STSB, model, rows))
    assert guess.shape == (300, 1) and model.config.problem_type == "regression"
    assert np.abs(guess[:, 0] - labels).mean() < 0.7
    model.save_pretrained(tmp_path)
    again = RobertaForSequenceClassification.from_pretrained(tmp_path)
    with torch.inference_mode():
        raw = again(*pad_rows(rows.ids[:4], 1, CPU))
    assert raw[:, 0].numpy() * 5 == pytest.approx(guess[:4, 0], abs=1e-4), "the saved model gives score / 5"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_bytes_twice_and_other_bytes_for_another_seed(encoder, tmp_path, precision):
    rows = rows_of(encoder, one_word_decides(60, 0))
    recipe = replace(RECIPE, epochs=2, precision=precision)
    written = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(len(written) + 1)  # the state of torch's own generator must not matter
        finetune(encoder, SST2, rows, recipe, seed, CPU).save_pretrained(tmp_path / name)
        written.append((tmp_path / name / "model.safetensors").read_bytes())
    assert written[0] == written[1] != written[2]


def test_learning_rate_rises_then_falls_to_nothing_and_max_steps_stops(encoder):
    rows = rows_of(encoder, one_word_decides(64, 0))
    rates = []
    recipe = replace(RECIPE, epochs=5, warmup_ratio=0.2)
    finetune(encoder, SST2, rows, recipe, 1, CPU, lambda step, loss, lr: rates.append(lr))
    assert len(rates) == 20
    assert rates[:4] == pytest.approx([2e-3 * part / 4 for part in (1, 2, 3, 4)])
    assert rates[4:] == pytest.approx([2e-3 * part / 16 for part in range(16, 0, -1)])
    steps = []
    finetune(encoder, SST2, rows, replace(recipe, max_steps=3), 1, CPU, lambda step, loss, lr: steps.append(step))
    assert steps == [1, 2, 3]


def test_a_loss_that_is_no_number_is_told(encoder):
    rows = rows_of(encoder, one_word_decides(64, 0))
    with pytest.raises(BadParams, match=r"SST-2: the loss is .* Lower its peak_lr"):
        finetune(encoder, SST2, rows, replace(RECIPE, peak_lr=1e30, warmup_ratio=0.0), 1, CPU)


@pytest.mark.parametrize("keep_best", [False, True])
def test_weights_that_the_last_step_spoils_are_told_as_a_loss_is(encoder, keep_best):
    rows, losses = rows_of(encoder, one_word_decides(64, 0)), []

    class SpoiltLast(Classification):
        def loss(self, model, batch):
            found = super().loss(model, batch)
            if len(losses) == 3:  # a finite loss whose gradient is none: that of a root at 0
                found = found + (model.classifier.out_proj.weight * 0).sum().abs().sqrt()
            return found

    recipe = replace(RECIPE, max_steps=4, keep_best=keep_best)
    told = "SST-2: the weights are no finite numbers after step 4 of 4. Lower its peak_lr, or raise warmup_ratio."
    with pytest.raises(BadParams) as raised:
        finetune(
            encoder, SpoiltLast("SST-2", SST2.names), rows, recipe, 1, CPU, lambda step, loss, lr: losses.append(loss),
            watch=Watch(rows, lambda outputs: 1.0),
        )  # fmt: skip
    assert str(raised.value) == told and np.isfinite(losses).all() and len(losses) == 4


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=300), st.integers(1, 33), st.integers(0, 5), st.integers(0, 3)
)
def test_each_epoch_has_each_row_once_and_the_same_rows_for_the_same_seed(lengths, batch_size, seed, epoch):
    found = batches(lengths, batch_size, seed, epoch)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= batch_size for batch in found)
    assert len(found) == plan(len(lengths), replace(RECIPE, epochs=1, batch_size=batch_size))
    assert found == batches(lengths, batch_size, seed, epoch)


def test_bucketing_saves_most_of_the_padding_and_epochs_differ():
    lengths = np.random.default_rng(0).integers(5, 100, 2000).tolist()
    found = batches(lengths, 16, 1, 0)
    computed = sum(max(lengths[row] for row in batch) * len(batch) for batch in found)
    assert computed < 1.1 * sum(lengths)
    assert found != batches(lengths, 16, 1, 1)
    assert [len(batch) for batch in found] == [16] * 125


def test_truncation_takes_from_the_longer_text_and_is_counted(encoder):
    tokenizer = load_tokenizer(encoder)
    long, short = " ".join(WORDS * 3), "good"
    rows = tokenise(tokenizer, [(long, short), (short, short), (short, long)], [0, 1, 0], 16)
    assert rows.truncated == 2 and [len(ids) for ids in rows.ids] == [16, len(rows.ids[1]), 16]
    tail = rows.ids[1][rows.ids[1].index(2) :]
    assert rows.ids[0][-len(tail) :] == tail, "the short text stays whole"
    assert all(ids[0] == 0 and ids[-1] == 2 and ids.count(2) == 3 for ids in rows.ids), "<s> a </s></s> b </s>"
    single = tokenise(tokenizer, [(long,)], [0], 16)
    assert single.truncated == 1 and single.ids[0].count(2) == 1


def test_predictions_do_not_depend_on_the_company_of_a_row(encoder):
    rows = rows_of(encoder, one_word_decides(40, 0))
    model = finetune(encoder, SST2, rows, replace(RECIPE, epochs=1), 1, CPU)
    together = np.stack(predict(SST2, model, rows))
    alone = np.concatenate([predict(SST2, model, Rows([ids], [], 0)) for ids in rows.ids])
    assert together == pytest.approx(alone, abs=1e-6)


def test_a_batch_is_padded_to_the_longest_and_needs_no_mask_where_all_are_equal():
    ids, mask = pad_rows([[0, 5, 2], [0, 2]], 1, CPU)
    assert ids.tolist() == [[0, 5, 2], [0, 2, 1]] and mask.tolist() == [[True, True, True], [True, True, False]]
    assert pad_rows([[0, 2], [0, 2]], 1, CPU)[1] is None


def test_derived_seeds_are_fixed_numbers():
    assert derive(1907, "CoLA", 1) == derive(1907, "CoLA", 1) != derive(1907, "CoLA", 2)
    assert 0 <= derive("x") < 2**63
    assert derive(1, 23) != derive(12, 3)


def test_rows_hold_what_was_asked(encoder):
    rows = rows_of(encoder, one_word_decides(5, 0))
    assert isinstance(rows, Rows) and rows.truncated == 0 and list(rows.labels) == [0, 1, 0, 1, 0]
