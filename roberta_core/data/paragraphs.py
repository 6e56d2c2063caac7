"""Exact deduplication of paragraphs: the first stays, in the order of the corpus; later ones go, in any document.

A paragraph is a line of at least so many characters (as in CCNet, Wenzek et al. 2020; shorter ones are headings, verse
and hard-wrapped text). Each kept document's paragraphs are hashed part by part on all workers, and the hashes written
to files by their first bits, so that all equal ones lie in one file; then file by file is sorted. Memory: one such file
(some `PARTITION_BYTES`), and 12 bytes a paragraph that goes. Two different paragraphs share a 64-bit hash once in 10^10
paragraphs, in a corpus of 10^9.
"""

import hashlib
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from roberta_core.data.corpus import Corpus
from roberta_core.data.documents import open_shard
from roberta_core.executor import map_shards
from roberta_core.progress import Progress

PARTITION_BYTES = 256 << 20
"""Text whose paragraphs come to one file: at 100 characters each, 50 MB of hashes."""

ENTRY = np.dtype([("hash", "<u8"), ("number", "<i8"), ("place", "<i4")])
REPEAT = np.dtype([("number", "<i8"), ("place", "<i4")])
"""number: of the document in the corpus. place: of the line in its text."""

Repeats = dict[int, np.ndarray]
"""By row of a part: the places of the lines that go, ascending."""


def _entries(text: str, min_chars: int) -> list[tuple[int, int]]:
    """Hash and place of each paragraph of a text."""
    return [
        (int.from_bytes(hashlib.blake2b(line.encode("utf8"), digest_size=8).digest(), "little"), place)
        for place, line in enumerate(text.split("\n"))
        if len(line) >= min_chars
    ]


def _hash_part(work: tuple[int, Path, int, np.ndarray], folder: Path, partitions: int, min_chars: int) -> None:
    """Writes the entries of one part's kept documents, a file a partition."""
    part, path, start, keep = work
    reader, at, found = open_shard(path), 0, []
    for index in range(reader.num_record_batches):
        texts = reader.get_batch(index).column("text")
        for row in np.flatnonzero(keep[at : at + len(texts)]):
            found += [
                (key, start + at + int(row), place) for key, place in _entries(texts[int(row)].as_py(), min_chars)
            ]
        at += len(texts)
    entries = np.array(found, dtype=ENTRY)
    belongs = (entries["hash"] % np.uint64(partitions)).astype(np.int64)
    for partition in np.unique(belongs):
        np.save(folder / f"{partition:06d}-{part:06d}.npy", entries[belongs == partition])


def repeated_paragraphs(corpus: Corpus, keep: np.ndarray, min_chars: int, workers: int, folder: Path) -> np.ndarray:
    """The paragraphs of kept documents that stand earlier in the corpus: `REPEAT` [paragraphs], in order.

    Args:
        keep: bool [documents].
        folder: where temporary files may lie.
    """
    size = sum(path.stat().st_size for path in corpus.texts)
    partitions = size // PARTITION_BYTES + 1
    work = [
        (part, path, int(start), keep[start:stop])
        for part, (path, start, stop) in enumerate(zip(corpus.texts, corpus.starts[:-1], corpus.starts[1:]))
    ]
    repeats = [np.zeros(0, dtype=REPEAT)]
    with tempfile.TemporaryDirectory(prefix=".paragraphs-", dir=folder) as temporary:
        progress = Progress("paragraphs", len(work), "parts")
        hashed = partial(_hash_part, folder=Path(temporary), partitions=partitions, min_chars=min_chars)
        for _ in map_shards(hashed, work, workers):
            progress.advance()
        for partition in range(partitions):
            files = sorted(Path(temporary).glob(f"{partition:06d}-*.npy"))
            if not files:
                continue
            # parts come in their order, so a stable sort leaves the first of equals first
            entries = np.concatenate([np.load(path) for path in files])
            order = np.argsort(entries["hash"], kind="stable")
            keys = entries["hash"][order]
            again = order[1:][keys[1:] == keys[:-1]]
            repeats.append(entries[["number", "place"]][again].astype(REPEAT))
        found = np.sort(np.concatenate(repeats), order=["number", "place"])
        progress.finish(f"{len(found)} stand earlier")
    return found


def repeats_of(numbers: np.ndarray, places: np.ndarray, start: int, stop: int) -> Repeats:
    """The repeated paragraphs (as `repeated_paragraphs` gives them) of the documents from `start` to `stop`, by row."""
    low, high = np.searchsorted(numbers, [start, stop])
    mine, firsts = np.unique(numbers[low:high], return_index=True)
    return dict(zip((mine - start).tolist(), np.split(places[low:high], firsts[1:])))


def without_paragraphs(text: str, places: np.ndarray) -> str:
    """The text without the lines at these places; "" where nothing is left."""
    gone = set(places.tolist())
    kept: list[str] = []
    for place, line in enumerate(text.split("\n")):
        if place not in gone and (line or (kept and kept[-1])):
            kept.append(line)
    return "\n".join(kept).strip()
