"""A tiny pretraining, in this process (`build`) or as a process of its own, to share among ranks or to kill.

`python tiny_run.py '[{"folder": …, "world": 2, "stop": 5, …}]'` makes one run after the other; torch is imported once, the
ranks are forks. The options are those of `train` and `build`.
"""

import contextlib
import itertools
import json
import math
import os
import socket
import sys
import traceback
from pathlib import Path

import numpy as np
import torch

from roberta_core.atomic import write_json
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import write_packed
from roberta_core.errors import Preempted
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.train import batches as loop_batches
from roberta_core.train import gradients
from roberta_core.train.batches import Batches
from roberta_core.train.checkpoint import Checkpoints
from roberta_core.train.evaluate import HeldOut
from roberta_core.train.loop import Pretraining, RunConfig, TrainConfig
from roberta_core.train.recipes import recipe

VOCAB, LENGTH, STEPS, BATCH = 120, 32, 30, 8


def make_rows(folder: Path, documents: int = 75, seed: int = 1) -> PackedRows:
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
    batch_size: int = BATCH,
    checkpoint_s: float = 0.0,
    dropout: float = 0.1,
    milestone_steps: int = 0,
    shard: str = "none",
    checkpoint_share: float = 0.0,
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
    run = RunConfig(
        torch.device("cpu"),
        micro_batch,
        checkpoint_s=checkpoint_s,
        milestone_steps=milestone_steps,
        shard=shard,
        checkpoint_share=checkpoint_share,
    )
    checkpoints = Checkpoints(folder / "work", "fingerprint", keep=2)
    words = np.arange(VOCAB) % 3 == 0 if known.objective.needs_words else None
    held_out = HeldOut(validation, 64, VOCAB)
    return Pretraining(model, rows, held_out, known, run, checkpoints, should_stop=should_stop, word_table=words)


def log_rows(batches: Batches) -> dict[int, list[list[int]]]:
    """Notes, for each update, which (row, epoch) this rank has masked."""
    seen: dict[int, list[list[int]]] = {}
    mask, at = loop_batches.mask_batch, batches.at
    now = 0

    def noting_mask(ids, rows, epochs, *args):
        seen[now] = [list(pair) for pair in zip(rows.tolist(), epochs.tolist())]
        return mask(ids, rows, epochs, *args)

    def noting_at(step, *args):
        nonlocal now
        now = step
        return at(step, *args)

    loop_batches.mask_batch, batches.at = noting_mask, noting_at
    return seen


def spoil_loss(training: Pretraining, steps: set[int]) -> None:
    """Makes the loss of this rank's part no number in some updates."""
    forward = training._forward

    def spoiling(*args, **kwargs):
        loss, right = forward(*args, **kwargs)
        return loss * math.nan if training.step in steps else loss, right

    training._forward = spoiling


def train(folder: Path, stop: int = 0, **options: object) -> None:
    """One rank's run: to the end, or for `stop` updates; updates in `spoilt` fail on the last rank."""
    gradients.BUCKET_BYTES = options.pop("bucket_bytes", gradients.BUCKET_BYTES)
    updates = itertools.count(1)
    options = {"checkpoint_s": 1e9 if stop else 0.0} | options
    spoilt = set(options.pop("spoilt", ()))
    training = build(folder, should_stop=lambda: next(updates) == stop, **options)
    if training.ranks.rank == training.ranks.world - 1:
        spoil_loss(training, spoilt)
    seen = log_rows(training.batches)
    with contextlib.suppress(Preempted):
        training.train()
        weights = training.weights()
        if training.ranks.first:
            training.model.save_pretrained(folder / "done", weights)
            history = {"train": training.history.train, "validation": training.history.validation}
            write_json(folder / "done" / "history.json", history)
    training.ranks.close()
    write_json(folder / f"rows-{training.step}-{training.ranks.rank}.json", seen)


def fork_ranks(folder: Path, world: int, **options: object) -> None:
    """`world` forks of this process train together."""
    make_rows(folder / "train")
    make_rows(folder / "validation", 30, seed=2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in range(world):
        pids.append(os.fork())
        if not pids[-1]:
            code = 1
            try:
                shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world, "RANK": rank}
                os.environ.update({name: str(value) for name, value in shared.items()})
                train(folder, **options)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
    ended = [os.waitpid(pid, 0)[1] for pid in pids]
    assert not any(ended), f"{folder.name}: the ranks ended with {ended}"


if __name__ == "__main__":
    for each in json.loads(sys.argv[1]):
        fork_ranks(Path(each.pop("folder")), each.pop("world", 1), **each)
