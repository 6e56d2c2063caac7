"""Deduplication of crowds: a corpus of one text over and over, of variants of one text, of nothing alike.

    python benchmarks/crowds.py                              # 100,000 and 1,000,000 documents of each kind
    python benchmarks/crowds.py --kinds identical star --documents 200000

Time must grow with the documents and not with their pairs, and memory stay at some bytes a document. Each search is a
process of its own, whose anonymous memory is watched; signatures and texts are mapped files, which the system may drop.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.watched import run  # noqa: E402
from roberta_core.data.cleaning import content_hash, signature_schema  # noqa: E402
from roberta_core.data.corpus import open_corpus  # noqa: E402
from roberta_core.data.dedup import deduplicate  # noqa: E402
from roberta_core.data.documents import BATCH_DOCS, SCHEMA  # noqa: E402
from roberta_core.data.minhash import MinHasher  # noqa: E402

KINDS = {
    "identical": "one text",
    "identical-near": "one text, with the search for exact duplicates off",
    "alike": "one text, a word of a hundred changed in each: 0.81 alike with one another",
    "star": "one text, two words changed in each: 0.81 alike with that text, 0.68 with one another",
    "different": "random words",
}
WORDS = 100
BATCHES_A_PART = 100


def texts_of(kind: str, count: int) -> Iterator[list[str]]:
    """The texts of a case, a record batch at a time."""
    draw = np.random.default_rng(11)
    base = np.array([f"word{number}" for number in range(WORDS)], dtype=object)
    changes = {"alike": 1, "star": 2}.get(kind, 0)
    for start in range(0, count, BATCH_DOCS):
        texts = []
        for number in range(start, min(start + BATCH_DOCS, count)):
            words = base.copy()
            if kind == "different":
                words = draw.integers(0, 1 << 20, WORDS).astype(str)
            elif changes and not (kind == "star" and number == count // 2):
                # far apart, and away from the ends, so that every change costs five shingles
                places = draw.integers(5, WORDS // 2 - 5, changes) + np.arange(changes) * (WORDS // 2)
                words[places] = [f"changed{value}" for value in draw.integers(0, 1 << 40, changes)]
            texts.append(" ".join(words))
        yield texts


def write_case(folder: Path, kind: str, count: int) -> None:
    """The case as a clean source `s` under `folder`."""
    (folder / "s").mkdir(parents=True)
    hasher, schema = MinHasher(), signature_schema(112)
    writers: list[pa.RecordBatchFileWriter] = []
    for number, texts in enumerate(texts_of(kind, count)):
        if number % BATCHES_A_PART == 0:
            for writer in writers:
                writer.close()
            name = f"{number // BATCHES_A_PART:05d}.arrow"
            writers = [
                pa.ipc.new_file(folder / "s" / f"part-{name}", SCHEMA),
                pa.ipc.new_file(folder / "s" / f"signatures-{name}", schema),
            ]
        column = pa.array(texts, pa.string())
        names = pa.array([str(number)] * len(texts))
        hashes = pa.array([content_hash(text) for text in texts], schema.field("hash").type)
        signatures = pa.FixedSizeListArray.from_arrays(pa.array(hasher(column).reshape(-1)), 112)
        writers[0].write_batch(pa.record_batch([column, names, names, names], schema=SCHEMA))
        writers[1].write_batch(pa.record_batch([hashes, signatures], schema=schema))
    for writer in writers:
        writer.close()


def search(folder: Path, kind: str) -> dict[str, float]:
    """Deduplicates the case in `folder`; what came of it."""
    corpus = open_corpus(folder, ["s"])
    started = time.process_time()
    verdict = deduplicate(corpus, kind != "identical-near", True, 0.8, 112, 5, 1, folder)
    return {
        "documents": corpus.size,
        "kept": int(verdict.keep.sum()),
        "compared": verdict.candidates,
        "left_alone": verdict.left_alone,
        "cpu_s": time.process_time() - started,
    }


def measured(kind: str, count: int, folder: Path) -> dict[str, float]:
    """Writes a case and searches it in a process of its own: the numbers of `search`, and `anon_mb`."""
    write_case(folder, kind, count)
    command = [sys.executable, str(Path(__file__).resolve()), "--search", str(folder), "--kinds", kind]
    watched = run(command, folder, dict(os.environ))
    return json.loads((folder / "found.json").read_text()) | {"anon_mb": watched.anon_mb}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    options.add_argument("--documents", nargs="+", type=int, default=[100_000, 1_000_000])
    options.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.search:
        (given.search / "found.json").write_text(json.dumps(search(given.search, given.kinds[0])))
        return
    print("| corpus | documents | kept | texts compared | crowded groups left | CPU seconds | anonymous memory, MB |")
    print("|---|---|---|---|---|---|---|")
    for kind in given.kinds:
        for count in given.documents:
            with tempfile.TemporaryDirectory() as folder:
                found = measured(kind, count, Path(folder))
            print(
                f"| {KINDS[kind]} | {count:,} | {found['kept']:,} | {found['compared']:,} | {found['left_alone']} "
                f"| {found['cpu_s']:.1f} | {found['anon_mb']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
