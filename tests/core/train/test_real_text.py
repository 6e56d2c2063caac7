"""On real text, the guard leaves every update alone, and catches a batch of noise under a broken learning rate."""

from pathlib import Path

import numpy as np
import pytest
import torch

from roberta_core.atomic import write_json
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import write_packed
from roberta_core.data.tokenizer import train_tokenizer
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.train.checkpoint import Checkpoints
from roberta_core.train.evaluate import HeldOut
from roberta_core.train.loop import Pretraining, RunConfig, TrainConfig
from roberta_core.train.recipes import recipe

WIKI = Path(__file__).parents[4] / "shared/data/wiki_en/text"
VOCAB, LENGTH, STEPS = 4096, 64, 600
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WIKI.is_dir(), reason="../shared/data/wiki_en is not there"),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> PackedRows:
    """2 MB of Wikipedia, packed."""
    folder = tmp_path_factory.mktemp("rows")
    text = "".join(file.read_text(encoding="utf8") for file in sorted(WIKI.rglob("*"))[:40] if file.is_file())[
        : 2 << 20
    ]
    docs = [part for part in text.split("\n\n") if len(part) > 200]
    tokenizer = train_tokenizer(docs, VOCAB, 2)
    ids = [np.array(each.ids, np.uint16) for each in tokenizer.encode_batch_fast(docs, add_special_tokens=False)]
    write_packed(iter([ids]), folder / "part-00000.arrow", "full-sentences", LENGTH, VOCAB)
    write_json(folder / "manifest.json", {})
    return PackedRows(folder)


def trained(rows: PackedRows, folder: Path, name: str, sigmas: float) -> Pretraining:
    chosen = recipe(name, "tiny", STEPS)
    config = TrainConfig(STEPS, 16, 0.15, chosen, "fp32", 1, STEPS, 64, 50, spike_sigmas=sigmas)
    model = RobertaForMaskedLM(RobertaConfig.named("tiny", VOCAB, LENGTH, chosen.dropout), seed=1)
    held_out = HeldOut(rows, 64, VOCAB)
    run = RunConfig(torch.device("cpu"), checkpoint_s=1e9)
    return Pretraining(model, rows, held_out, config, run, Checkpoints(folder, "", 1))


@pytest.mark.parametrize("name", ["fast", "paper"])
def test_an_undisturbed_run_is_left_alone_and_has_the_bits_of_a_run_without_a_guard(rows, tmp_path, name):
    curves = []
    for sigmas in (6.0, 0.0):
        training = trained(rows, tmp_path / str(sigmas), name, sigmas)
        training.train()
        assert training.skipped == 0
        curves.append((training.history.train, training.history.validation))
    assert curves[0] == curves[1] and curves[0][0][-1]["loss"] < curves[0][0][0]["loss"] - 0.5


def test_labels_that_make_no_sense_are_a_jump(rows, tmp_path):
    """Late in a run on the fast recipe, where the loss is far below that of a blind guess."""
    training = trained(rows, tmp_path, "fast", 6.0)
    take = training.batches.at

    def noisy(step, *args):
        batch = take(step, *args)
        if step not in (450, 500):
            return batch
        wrong = torch.where(batch.masked.labels >= 0, VOCAB - 2 - batch.masked.labels % 50, batch.masked.labels)
        return batch._replace(masked=batch.masked._replace(labels=wrong))

    training.batches.at = noisy
    training.train()
    assert training.skipped == 2
