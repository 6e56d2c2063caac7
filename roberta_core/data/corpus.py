"""All clean documents under one numbering, without reading them.

Deduplication and sharding speak of documents by number: sources in the order of params, then parts, then rows. The
texts and signatures stay in memory-mapped files; only what is asked for is read. Costs 8 bytes a record batch, and
whatever a caller keeps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from roberta_core.data.cleaning import HASH_BYTES
from roberta_core.data.documents import open_shard, shard_paths
from roberta_core.errors import BadInput


@dataclass
class Corpus:
    """Documents of several clean folders under one numbering: `starts[k]` is the number of the first row of part k.

    `batch_rows` has, for each file, the first row of each of its record batches, and at the end its rows.
    """

    texts: list[Path] = field(default_factory=list)
    signatures: list[Path] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    batch_rows: dict[Path, np.ndarray] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Documents in all."""
        return int(self.starts[-1])

    def rows_of(self, source: str) -> slice:
        """The numbers of a source's documents (they are contiguous)."""
        parts = [part for part, name in enumerate(self.sources) if name == source]
        return slice(int(self.starts[parts[0]]), int(self.starts[parts[-1] + 1])) if parts else slice(0, 0)


def _batch_rows(path: Path) -> np.ndarray:
    reader = open_shard(path)
    rows = [reader.get_batch(index).num_rows for index in range(reader.num_record_batches)]
    return np.concatenate([[0], np.cumsum(np.array(rows, dtype=np.int64))])


def open_corpus(clean: Path, sources: Sequence[str]) -> Corpus:
    """The clean documents of `sources`, in that order; folders of other sources are left alone.

    Raises:
        BadInput: a source has not been cleaned, or its texts and signatures do not match.
    """
    corpus, counts = Corpus(), []
    for source in sources:
        texts, signatures = shard_paths(clean / source), shard_paths(clean / source, "signatures")
        corpus.batch_rows |= {path: _batch_rows(path) for path in [*texts, *signatures]}
        rows = [int(corpus.batch_rows[path][-1]) for path in texts]
        if rows != [int(corpus.batch_rows[path][-1]) for path in signatures]:
            raise BadInput(
                f"Texts and signatures in {clean / source} do not match.",
                f"Clean that source again: dvc repro -f clean@{source}",
            )
        corpus.texts += texts
        corpus.signatures += signatures
        corpus.sources += [source] * len(texts)
        counts += rows
    corpus.starts = np.concatenate([[0], np.cumsum(np.array(counts, dtype=np.int64))])
    return corpus


def holding(
    corpus: Corpus, paths: list[Path], numbers: np.ndarray
) -> Iterator[tuple[pa.RecordBatch, np.ndarray, slice]]:
    """Record batches that hold the documents `numbers` (ascending): with their rows in it, and their places in `numbers`."""
    bounds = np.searchsorted(numbers, corpus.starts)
    for part in np.flatnonzero(np.diff(bounds)):
        reader, path, begin = open_shard(paths[part]), paths[part], int(bounds[part])
        rows = numbers[begin : bounds[part + 1]] - corpus.starts[part]
        firsts = corpus.batch_rows[path]
        cuts = np.searchsorted(rows, firsts)
        for index in np.flatnonzero(np.diff(cuts)):
            mine = slice(int(cuts[index]), int(cuts[index + 1]))
            yield (
                reader.get_batch(int(index)),
                rows[mine] - firsts[index],
                slice(begin + mine.start, begin + mine.stop),
            )


def read_rows(corpus: Corpus, numbers: Sequence[int] | np.ndarray, column: str = "text") -> dict[int, str]:
    """One column of some documents, by number, ascending; only their pages are read."""
    wanted = np.unique(np.asarray(numbers, dtype=np.int64))
    found: list[str] = []
    for batch, rows, _ in holding(corpus, corpus.texts, wanted):
        found += batch.column(column).take(pa.array(rows)).to_pylist()
    return dict(zip(wanted.tolist(), found))


def content_hashes(corpus: Corpus) -> np.ndarray:
    """The content hashes of all documents: uint64 [documents, 2]."""
    hashes = np.empty((corpus.size, HASH_BYTES // 8), dtype=np.uint64)
    for path, start in zip(corpus.signatures, corpus.starts):
        reader = open_shard(path)
        for index in range(reader.num_record_batches):
            column = reader.get_batch(index).column("hash")
            raw = np.frombuffer(column.buffers()[1], dtype=np.uint64).reshape(-1, HASH_BYTES // 8)[
                column.offset : column.offset + len(column)
            ]
            hashes[start : start + len(raw)] = raw
            start += len(raw)
    return hashes
