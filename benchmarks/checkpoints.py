"""What a checkpoint costs a run: updates with and without one, in turns, in one process.

    python benchmarks/checkpoints.py                      # mini, 16 x 128, 12 rounds of 12 updates
    python benchmarks/checkpoints.py --size small --rounds 6

Each round runs the same number of updates four times, in an order that changes: without a checkpoint; with one written
in the background (as the loop does); with one that the training waits for; with one as the library's `save_file` would
write it from the background. A checkpoint's cost is the median over the rounds of what the updates with it took longer
than those without, in the same round; its share of a run is that over the time between two checkpoints.
"""

import argparse
import dataclasses
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from safetensors.torch import save_file  # noqa: E402

from roberta_core.atomic import digest_of, write_json  # noqa: E402
from roberta_core.data.packed import PackedRows  # noqa: E402
from roberta_core.data.packing import write_packed  # noqa: E402
from roberta_core.device import set_threads  # noqa: E402
from roberta_core.model import RobertaConfig, RobertaForMaskedLM  # noqa: E402
from roberta_core.train import checkpoint  # noqa: E402
from roberta_core.train.checkpoint import Checkpoints  # noqa: E402
from roberta_core.train.config import RunConfig, TrainConfig  # noqa: E402
from roberta_core.train.evaluate import HeldOut  # noqa: E402
from roberta_core.train.loop import Pretraining  # noqa: E402
from roberta_core.train.recipes import recipe  # noqa: E402

WAYS = ("none", "background", "waited for", "save_file")


def build(folder: Path, size: str, name: str, batch: int, length: int, vocab: int) -> Pretraining:
    rng = np.random.default_rng(1)
    (folder / "rows").mkdir()
    documents = [rng.integers(4, vocab - 1, 2000).astype(np.uint16) for _ in range(100)]
    write_packed(iter([documents]), folder / "rows" / "part-00000.arrow", "full-sentences", length, vocab)
    write_json(folder / "rows" / "manifest.json", {})
    rows = PackedRows(folder / "rows")
    values = recipe(name, size, 10**6)
    config = TrainConfig(10**6, batch, 0.15, values, "bf16", 1, 10**6, 64, 10**6)
    model = RobertaForMaskedLM(RobertaConfig.named(size, vocab, length, values.dropout), seed=1)
    checkpoints = Checkpoints(folder / "work", "benchmark", keep=2)
    return Pretraining(
        model, rows, HeldOut(rows, 64, vocab), config, RunConfig(torch.device("cpu"), checkpoint_s=1e9), checkpoints
    )


def by_the_library(file: Path, tensors: dict[str, torch.Tensor]) -> str:
    save_file(tensors, file, metadata={"format": "pt"})
    return digest_of(file)


def segment(training: Pretraining, updates: int, way: str) -> tuple[float, float]:
    """Seconds of `updates` updates with a checkpoint after the first, and seconds that the training stood still for it."""
    ours, stood = checkpoint.write_tensors, 0.0
    if way == "save_file":
        checkpoint.write_tensors = by_the_library
    started = time.perf_counter()
    for number in range(updates):
        training.update(1e-3)
        training.step += 1
        if not number and way != "none":
            begun = time.perf_counter()
            training.saver.save(training.step, {"history": dataclasses.asdict(training.history)})
            if way == "waited for":
                training.saver.wait()
            stood = time.perf_counter() - begun
    took = time.perf_counter() - started
    training.saver.wait()
    checkpoint.write_tensors = ours
    return took, stood


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="mini")
    parser.add_argument("--recipe", default="fast", choices=["fast", "paper"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--updates", type=int, default=12, help="a segment")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--interval", type=float, default=120.0, help="seconds between two checkpoints of a run")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: a temporary one")
    options = parser.parse_args()
    threads = set_threads(0)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        training = build(Path(folder), options.size, options.recipe, options.batch, options.length, options.vocab)
        for way in WAYS:  # warm: allocators, buffers of the copy
            segment(training, 2, way)
        took: dict[str, list[float]] = {way: [] for way in WAYS}
        stood: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(options.rounds):
            for way in WAYS[number % 4 :] + WAYS[: number % 4]:
                seconds, still = segment(training, options.updates, way)
                took[way].append(seconds)
                stood[way].append(still)
        size_mb = sum(file.stat().st_size for file in (training.checkpoints.latest() or Path()).rglob("*")) / 1e6
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {threads} threads")
    print(f"{vars(options)}; a checkpoint has {size_mb:.0f} MB")
    print(f"{'way':12} {'segment s':>10} {'stands s':>9} {'costs s':>8} {'of a run':>9}")
    for way in WAYS:
        costs = statistics.median(with_it - without for with_it, without in zip(took[way], took["none"]))
        print(
            f"{way:12} {statistics.median(took[way]):10.3f} {statistics.median(stood[way]):9.3f} "
            f"{costs:8.3f} {costs / options.interval:9.2%}"
        )


if __name__ == "__main__":
    main()
