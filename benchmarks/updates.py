"""What the parts of an update cost on this machine: optimizers, the gradient norm, the guard, a larger mask rate.

    python -m benchmarks.updates [--size mini] [--rounds 7]

Made-up rows, the real loop: each contender is a `Pretraining` of its own, and rounds are interleaved, so that a machine that
slows down slows all of them. Medians of the rounds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from roberta_core.atomic import write_json
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import write_packed
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.train.checkpoint import Checkpoints
from roberta_core.train.evaluate import HeldOut
from roberta_core.train.loop import Pretraining, RunConfig, TrainConfig
from roberta_core.train.recipes import recipe

VOCAB, LENGTH, BATCH = 16_384, 128, 32
CONTENDERS = {
    "adamw": {},
    "stable-adamw": {"optimizer": "stable-adamw"},
    "muon": {"optimizer": "muon"},
    "adamw, clipping": {"clip_norm": 1.0},
    "adamw, no dropout": {"dropout": 0.0},
    "adamw, 30 % masked": {"mask_prob": 0.3},
}


def build(folder: Path, size: str, changed: dict) -> Pretraining:
    """A run of `size` with the paper's recipe and `changed`."""
    changed = dict(changed)
    mask_prob = changed.pop("mask_prob", 0.15)
    chosen = recipe("paper", size, 1000, **changed)
    config = TrainConfig(1000, BATCH, mask_prob, chosen, "bf16", 1, 1000, 1, 1000)
    model = RobertaForMaskedLM(RobertaConfig.named(size, VOCAB, LENGTH, chosen.dropout))
    rows = PackedRows(folder)
    device = torch.device("cpu")
    return Pretraining(
        model, rows, HeldOut(rows, 1, VOCAB), config, RunConfig(device), Checkpoints(folder / "none", "", 1)
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="mini")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        docs = [np.random.default_rng(0).integers(4, VOCAB - 1, 500 * LENGTH).astype(np.uint16)]
        write_packed(iter([docs]), folder / "part-00000.arrow", "full-sentences", LENGTH, VOCAB)
        write_json(folder / "manifest.json", {})
        runs = {name: build(folder, asked.size, changed) for name, changed in CONTENDERS.items()}
        taken: dict[str, list[float]] = {name: [] for name in [*runs, "guard", "gradient norm"]}
        one = torch.tensor(1.0)
        gradients = [torch.randn_like(each) for each in runs["adamw"].model.parameters()]

        def timed(name: str, act) -> None:
            started = time.perf_counter()
            act()
            taken[name].append(time.perf_counter() - started)

        for round_number in range(asked.rounds + 1):
            for name, training in runs.items():
                timed(name, lambda training=training: training.update(1e-4))
            timed("guard", lambda: runs["adamw"].guard.judge(one, one))
            timed("gradient norm", lambda: torch.nn.utils.get_total_norm(gradients))
            if not round_number:
                for each in taken.values():
                    each.clear()
    base = statistics.median(taken["adamw"])
    print(f"{asked.size}, vocabulary {VOCAB}, batch {BATCH} x {LENGTH}, bf16, 2 threads, {asked.rounds} rounds")
    for name, each in taken.items():
        median = statistics.median(each)
        print(f"{name:20} {1000 * median:8.2f} ms  {median / base:6.3f} of an update with adamw")


if __name__ == "__main__":
    main()
