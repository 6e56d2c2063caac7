"""What two processes can give on this machine at all: the work of the stages without the stages.

Each kernel runs in one process over all of the work, and in two over half of it each, in turns; the texts are in memory
before the clock starts, nothing is written, and no process waits for another. Two virtual cores often are one real one, and
share its caches, so this ratio may be well below 2. `clean`: rules, hashes and signatures (Python's strings, numpy).
`encode`: text to token ids (numpy, the table of words).
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

BATCHES = 24
"""Record batches of work: some 60 to 100 MB of text."""


def _clean() -> Callable[[pa.RecordBatch], None]:
    from roberta_core.data.cleaning import Rules, clean_batch, content_hash
    from roberta_core.data.funnel import Funnel
    from roberta_core.data.minhash import MinHasher

    hasher = MinHasher()

    def work(batch: pa.RecordBatch) -> None:
        clean = clean_batch(batch, Rules(), Funnel())
        for text in clean.column("text").to_pylist():
            content_hash(text)
        hasher(clean.column("text"))

    return work


def _encode() -> Callable[[pa.RecordBatch], None]:
    from roberta_core.data.encoders import encoder_of

    encoder = encoder_of(Path("models/tokenizer"), "", False)
    return lambda batch: encoder.encode(batch.column("text"))


KERNELS = {"clean": (_clean, "data/raw/books"), "encode": (_encode, "data/shards/train")}


def run_kernel(name: str, share: int, of: int) -> None:
    """One process: gets ready, waits for a line, works, and says so."""
    from roberta_core.data.documents import read_shards

    make, folder = KERNELS[name]
    batches = [batch for batch, _ in zip(read_shards(Path(folder)), range(BATCHES))][share::of]
    for batch in batches:
        batch.column("text").buffers()[2].to_pybytes()  # from the disk into memory
    work = make()
    print("ready", flush=True)
    sys.stdin.readline()
    for batch in batches:
        work(batch)
    print("done", flush=True)


def seconds_of(name: str, processes: int, folder: Path) -> float:
    """Wall clock from the word to go until the last process is done."""
    command = [sys.executable, __file__, name]
    running = [
        subprocess.Popen(
            [*command, str(share), str(processes)],
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for share in range(processes)
    ]  # fmt: skip
    assert all(each.stdout.readline() == "ready\n" for each in running)
    started = time.monotonic()
    for each in running:
        each.stdin.write("\n")
        each.stdin.flush()
    assert all(each.stdout.readline() == "done\n" for each in running)
    seconds = time.monotonic() - started
    for each in running:
        each.communicate()
    return seconds


def ceilings(folder: Path, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds of one process and of two, by kernel: medians of `rounds`, in turns. `folder` is of a project that has packed."""
    found = {name: ([], []) for name in KERNELS}
    for _ in range(rounds):
        for name, both in found.items():
            for processes, seconds in enumerate(both, 1):
                seconds.append(seconds_of(name, processes, folder))
    return {name: tuple(sorted(each)[len(each) // 2] for each in both) for name, both in found.items()}


if __name__ == "__main__":
    run_kernel(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
