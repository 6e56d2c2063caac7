"""The loop: it learns, a stopped run goes on as if nothing had been, and bad settings get one line."""

import json

import pytest
import torch

from roberta_core.errors import BadInput, BadParams, Preempted
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.train.batches import Batches
from roberta_core.train.checkpoint import Checkpoints, fingerprint
from roberta_core.train.loop import Pretraining
from roberta_core.train.masking import IGNORED, Masking, slots
from roberta_core.train.recipes import recipe
from tests.core.train.tiny_run import LENGTH, VOCAB, build


def test_stop_saves_and_resumes_between_points_of_the_curve(tmp_path):
    whole = build(tmp_path / "whole")
    whole.train()
    calls = iter(range(10**6))
    with pytest.raises(Preempted, match="Stopped after update 6"):  # the curve has a point every 4 updates
        build(tmp_path / "stopped", should_stop=lambda: next(calls) == 5).train()
    resumed = build(tmp_path / "stopped")
    assert resumed.step == 6
    resumed.train()
    assert resumed.history.train == whole.history.train and resumed.history.validation == whole.history.validation
    for run, folder in ((whole, tmp_path / "a"), (resumed, tmp_path / "b")):
        run.model.save_pretrained(folder)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("masking", ["whole-word", "spans"])
def test_every_objective_resumes_to_the_bit_and_is_scored_alike(tmp_path, masking):
    given = {"steps": 12, "masking": masking, "mask_prob": 0.4, "mask_prob_end": 0.15}
    whole, plain = build(tmp_path / "whole", **given), build(tmp_path / "plain")
    assert (whole.held_out.targets == plain.held_out.targets).all()  # the held-out masks are those of every run
    whole.train()
    calls = iter(range(10**6))
    with pytest.raises(Preempted):
        build(tmp_path / "stopped", should_stop=lambda: next(calls) == 4, **given).train()
    resumed = build(tmp_path / "stopped", **given)
    resumed.train()
    assert resumed.step == 12 and resumed.history.train == whole.history.train
    for run, folder in ((whole, tmp_path / "a"), (resumed, tmp_path / "b")):
        run.model.save_pretrained(folder)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_the_share_of_masked_tokens_falls_over_the_run(tmp_path):
    training = build(tmp_path, steps=20, mask_prob=0.4, mask_prob_end=0.1)
    shares = []
    for step in (0, 10, 19):
        batch = training.batches.at(step, training.ranks, step / 20)
        shares.append((batch.masked.labels != IGNORED).sum().item() / (8 * (LENGTH - 2)))
    assert shares == pytest.approx([0.4, 0.25, 0.115], abs=0.03)


def test_the_head_works_for_the_share_of_the_moment_and_in_a_compiled_model_for_the_largest(tmp_path):
    training = build(tmp_path, steps=20, mask_prob=0.4, mask_prob_end=0.15)
    known = (training.rows, training.config.batches, training.config.objective, VOCAB, 1, torch.device("cpu"))
    own, fixed = (Batches(*known, fixed_slots=each) for each in (False, True))
    for done, share in ((0.0, 0.4), (0.5, 0.275), (1.0, 0.15)):
        few, many = (each.at(3, training.ranks, done).masked for each in (own, fixed))
        assert len(few.labels) == 8 * slots(LENGTH, share) and len(many.labels) == 8 * slots(LENGTH, 0.4)
        assert torch.equal(few.input_ids, many.input_ids)
        assert torch.equal(few.labels[few.labels != IGNORED], many.labels[many.labels != IGNORED])


def test_masking_of_words_without_any_boundaries_is_refused(tmp_path):
    known = build(tmp_path)
    with pytest.raises(BadParams, match="where words begin"):
        Batches(known.rows, known.config.batches, Masking("spans", 0.15), VOCAB, 1, torch.device("cpu"))


@pytest.mark.parametrize(("name", "steps"), [("paper", 300), ("fast", 300)])
def test_it_learns(tmp_path, name, steps):
    training = build(tmp_path, name, steps, checkpoint_s=1e9)
    final = training.train()
    assert final.loss < training.held_out.unigram_entropy() - 0.5
    assert final.loss < training.history.validation[0]["loss"] and final.accuracy > 0.2


def test_micro_batches_give_the_same_curve(tmp_path):
    """Without dropout the sum over micro-batches is the batch, up to rounding."""
    runs = []
    for size in (0, 3):
        training = build(tmp_path / str(size), micro_batch=size, steps=8)
        for part in training.model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
            if hasattr(part, "dropout_prob"):
                part.dropout_prob = 0.0
        training.train()
        runs.append([point["loss"] for point in training.history.train])
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)


def test_only_the_newest_checkpoints_stay(tmp_path):
    build(tmp_path, steps=6).train()
    assert [path.name for path in sorted((tmp_path / "work").iterdir())] == ["step-000000005", "step-000000006"]


def test_rows_longer_than_the_model(tmp_path):
    training = build(tmp_path, steps=1)
    small = RobertaForMaskedLM(RobertaConfig.named("tiny", VOCAB, LENGTH - 1, 0.0))
    with pytest.raises(BadParams, match="positions for 31"):
        Pretraining(small, training.rows, training.held_out, training.config, training.run, training.checkpoints)


def test_divergence_is_told(tmp_path):
    training = build(tmp_path, steps=8)
    with torch.no_grad():
        training.model.lm_head.dense.weight.fill_(float("nan"))
    with pytest.raises(BadInput, match="diverged"):
        training.train()


def test_foreign_and_damaged_checkpoints_are_refused(tmp_path):
    build(tmp_path, steps=2).train()
    newest = Checkpoints(tmp_path / "work", "other", 2).latest()
    with pytest.raises(BadInput, match="another model, data or tokenizer"):
        Checkpoints(tmp_path / "work", "other", 2).load(newest)
    state = newest / "training" / "optimizer.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(BadInput, match="damaged"):
        build(tmp_path, steps=2)


def test_fingerprint_tells_apart():
    assert fingerprint(a=1, b="x") == fingerprint(b="x", a=1) != fingerprint(a=2, b="x")


def test_recipes_have_the_papers_values():
    base, large = recipe("paper", "base", 500_000), recipe("paper", "large", 500_000)
    assert (base.peak_lr, base.warmup_steps, large.peak_lr, large.warmup_steps) == (6e-4, 24_000, 4e-4, 30_000)
    assert (base.betas, base.eps, base.weight_decay, base.dropout, base.clip_norm) == (
        (0.9, 0.98),
        1e-6,
        0.01,
        0.1,
        0.0,
    )
    assert base.lr_at(0, 500_000) == pytest.approx(6e-4 / 24_000)
    assert base.lr_at(23_999, 500_000) == pytest.approx(6e-4)
    assert base.lr_at(262_000, 500_000) == pytest.approx(3e-4)  # half-way down
    assert base.lr_at(499_999, 500_000) < 2e-9
    assert recipe("fast", "mini", 1000, dropout=0.1).dropout == 0.1


def test_weights_that_are_not_decayed(tmp_path):
    training = build(tmp_path, steps=1)
    groups = training.optimizers._all[0].param_groups
    assert all(parameter.dim() == 2 for parameter in groups[0]["params"])
    assert groups[1]["weight_decay"] == 0.0 and all(parameter.dim() == 1 for parameter in groups[1]["params"])
    assert json.dumps(training.history.train) == "[]"
