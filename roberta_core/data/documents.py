"""Document shards: the one format that text travels in from download to packing.

A folder of Arrow IPC *files* `part-00000.arrow`, `part-00001.arrow`, … with the columns of `SCHEMA`. Uncompressed, so
that a reader maps them into memory and touches only the pages it reads; the price is disk, about the size of the text.
A part is cut by the bytes of its text alone, never by time or by worker, so that the same documents give the same
bytes. Writing holds one record batch in memory (some MB), reading none.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from roberta_core.errors import BadInput

SCHEMA = pa.schema([("text", pa.string()), ("source", pa.string()), ("doc_id", pa.string()), ("meta", pa.string())])
"""text: the document. source: its name in params. doc_id: see `doc_id`. meta: a JSON object, for example {"title": …}."""

BATCH_DOCS = 1024
BATCH_BYTES = 4 << 20
"""A record batch ends at either bound: big enough for vectorised work, small enough for many workers' memory."""


@dataclass(slots=True)
class Document:
    """One document; `meta` is a JSON object as text."""

    text: str
    source: str
    doc_id: str
    meta: str = "{}"


def doc_id(source: str, text: str) -> str:
    """A stable name: 32 hex digits of a hash of the source's name and the text as downloaded."""
    return hashlib.blake2b(text.encode("utf8"), digest_size=16, key=source.encode("utf8")[:64]).hexdigest()


def text_bytes(column: pa.Array) -> np.ndarray:
    """UTF-8 bytes of each text of a string column without nulls: int64 [rows], read off the offsets, no text touched."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    return np.diff(offsets).astype(np.int64)


class Cutter:
    """Where a stream of documents is cut into parts of at most `shard_mb` MB of text each (one document at least)."""

    def __init__(self, shard_mb: float):
        self.budget = int(shard_mb * 1e6)
        self._part = self._used = 0

    def cut(self, sizes: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """The next documents, by the bytes of each (int [documents]): the part, and the first and the end of those in it."""
        ends = np.cumsum(sizes, dtype=np.int64)
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            stop = int(np.searchsorted(ends, before + self.budget - self._used, side="right"))
            if stop <= start and self._used:
                self._part, self._used = self._part + 1, 0
                continue
            stop = max(stop, start + 1)
            self._used += int(ends[stop - 1]) - before
            yield self._part, start, stop
            start = stop


def part_name(number: int) -> str:
    """The file of a part."""
    return f"part-{number:05d}.arrow"


class ShardWriter:
    """Writes record batches of documents into parts, as `Cutter` cuts them.

    A context manager: the open part is closed on leaving. `paths` lists the parts written so far.
    """

    def __init__(self, folder: Path, shard_mb: float, schema: pa.Schema = SCHEMA):
        self.folder, self.schema = Path(folder), schema
        self.paths: list[Path] = []
        self._cutter = Cutter(shard_mb)
        self._writer: pa.RecordBatchFileWriter | None = None
        self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
        self._writer = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends the rows of `batch`, going on to a new part where the budget is full."""
        for part, start, stop in self._cutter.cut(text_bytes(batch.column("text"))):
            if part == len(self.paths):
                self._close()
                self.paths.append(self.folder / part_name(part))
                self._writer = pa.ipc.new_file(self.paths[-1], self.schema)
            self._writer.write_batch(batch.slice(start, stop - start))


def batches(documents: Iterable[Document]) -> Iterator[pa.RecordBatch]:
    """Groups documents into record batches of `SCHEMA`, bounded by `BATCH_DOCS` and `BATCH_BYTES`."""
    held: list[Document] = []
    size = 0
    for document in documents:
        held.append(document)
        size += len(document.text)
        if len(held) >= BATCH_DOCS or size >= BATCH_BYTES:
            yield to_batch(held)
            held, size = [], 0
    if held:
        yield to_batch(held)


def to_batch(documents: Sequence[Document]) -> pa.RecordBatch:
    """Documents as one record batch of `SCHEMA`."""
    columns = [[getattr(document, name) for document in documents] for name in SCHEMA.names]
    return pa.record_batch([pa.array(column, pa.string()) for column in columns], schema=SCHEMA)


def write_shards(documents: Iterable[Document], folder: Path, shard_mb: float) -> list[Path]:
    """Streams documents into parts of `shard_mb` MB of text (1 MB is 10^6 bytes). Returns the parts, in order."""
    with ShardWriter(folder, shard_mb) as writer:
        for batch in batches(documents):
            writer.write(batch)
    return writer.paths


def shard_paths(folder: Path, prefix: str = "part") -> list[Path]:
    """The parts of a folder, in order: empty where it has none.

    Raises:
        BadInput: the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}.", "Run the stage that makes it: dvc repro")
    return sorted(folder.glob(f"{prefix}-*.arrow"))


def open_shard(path: Path) -> pa.RecordBatchFileReader:
    """Opens one part memory-mapped.

    Raises:
        BadInput: the file is not an Arrow IPC file.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except pa.ArrowInvalid:
        raise BadInput(
            f"{path} is not a whole Arrow file.", "Remove it and run the stage that makes it again."
        ) from None


def read_shards(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Streams the record batches of a folder's parts in order, memory-mapped; `columns` picks some, None all."""
    for path in shard_paths(folder):
        reader = open_shard(path)
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            yield batch.select(list(columns)) if columns is not None else batch
