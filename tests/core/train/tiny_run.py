"""A whole tiny pretraining as a process, to kill or to share: `python tiny_run.py FOLDER [RECIPE [DROPOUT [STOP]]]`."""

import contextlib
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

from roberta_core.atomic import write_json
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import write_packed
from roberta_core.errors import Preempted
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.train.checkpoint import Checkpoints
from roberta_core.train.evaluate import HeldOut
from roberta_core.train.loop import Pretraining, RunConfig, TrainConfig
from roberta_core.train.recipes import recipe

VOCAB, LENGTH, STEPS = 120, 32, 30


def make_rows(folder: Path, documents: int = 150, seed: int = 1) -> PackedRows:
    """Rows of documents with three tokens each: which three is to be seen from their neighbours."""
    rng = np.random.default_rng(seed)
    docs = []
    for _ in range(documents):
        topic = rng.integers(4, 94)
        docs.append((topic + rng.integers(0, 3, rng.integers(40, 90))).astype(np.uint16))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "manifest.json").exists():
        write_packed(iter([docs]), folder / "part-00000.arrow", "full-sentences", LENGTH, VOCAB)
        write_json(folder / "manifest.json", {})
    return PackedRows(folder)


def build(
    folder: Path,
    name: str = "paper",
    steps: int = STEPS,
    micro_batch: int = 0,
    should_stop=lambda: False,
    batch_size: int = 8,
    checkpoint_s: float = 0.0,
    dropout: float = 0.1,
    milestone_steps: int = 0,
    optimizer: str | None = None,
    **config: object,
) -> Pretraining:
    """The run, resumed from its newest checkpoint; it writes one after every update. `config`: more of `TrainConfig`."""
    torch.set_num_threads(1)
    rows, validation = make_rows(folder / "train"), make_rows(folder / "validation", 30, seed=2)
    values = recipe(name, "tiny", steps, peak_lr=2e-3, dropout=dropout, optimizer=optimizer)
    known = TrainConfig(
        **{"max_steps": steps, "batch_size": batch_size, "mask_prob": 0.15, "recipe": values, "precision": "fp32"}
        | {"seed": 1, "eval_every": 10, "eval_rows": 64, "log_every": 4}
        | config
    )
    model = RobertaForMaskedLM(RobertaConfig.named("tiny", VOCAB, LENGTH, dropout), seed=1)
    run = RunConfig(torch.device("cpu"), micro_batch, checkpoint_s=checkpoint_s, milestone_steps=milestone_steps)
    checkpoints = Checkpoints(folder / "work", "fingerprint", keep=2)
    return Pretraining(model, rows, HeldOut(validation, 64, VOCAB), known, run, checkpoints, should_stop=should_stop)


if __name__ == "__main__":
    target, name, dropout, stop = [*sys.argv[1:], *["", "paper", "0.1", "0"][len(sys.argv) - 1 :]]
    updates = itertools.count(1)
    training = build(
        Path(target),
        name,
        dropout=float(dropout),
        should_stop=lambda: next(updates) == int(stop),
        checkpoint_s=1e9 if int(stop) else 0.0,
    )
    with contextlib.suppress(Preempted):
        training.train()
        weights = training.weights()
        if training.ranks.first:
            training.model.save_pretrained(Path(target) / "done", weights)
            history = {"train": training.history.train, "validation": training.history.validation}
            write_json(Path(target) / "done" / "history.json", history)
    training.ranks.close()
