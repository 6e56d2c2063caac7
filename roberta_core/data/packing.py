"""Documents to rows of a fixed length (Liu et al. 2019, section 4.2).

- `full-sentences`: all documents of a shard are joined, an extra `</s>` between two, and cut every `max_length - 2` tokens; a
  row is `<s>` + cut + `</s>`. Rows cross documents; only the last row of a shard is padded. The cut does not look for the end
  of a sentence: that would cost padding in every row, and readers of packed data gain nothing from it.
- `doc-sentences`: the same within each document: no row holds two documents, and every document's last row is padded.

Each token of each document appears exactly once, in order; the last row is padded, never dropped, so nothing is lost.
`doc_starts` of a row lists the places where a document begins. Each document shard is packed by itself, so the result does
not depend on the number of workers.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from roberta_core.atomic import atomic_file

BOS, PAD, EOS = 0, 1, 2
ROWS_A_BATCH = 8192


def token_type(vocab_size: int) -> np.dtype:
    """uint16 where the vocabulary fits into it, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def packed_schema(max_length: int, vocab_size: int) -> pa.Schema:
    """Columns of a packed shard."""
    tokens = pa.from_numpy_dtype(token_type(vocab_size))
    return pa.schema([("input_ids", pa.list_(tokens, max_length)), ("doc_starts", pa.list_(pa.uint16()))])


class Packer:
    """Takes token ids of documents, gives rows. Holds at most one batch of documents.

    Args:
        mode: `full-sentences` or `doc-sentences`.
        max_length: tokens a row, `<s>` and `</s>` included.
        vocab_size: decides the integer type.
    """

    def __init__(self, mode: str, max_length: int, vocab_size: int):
        self.mode, self.max_length = mode, max_length
        self.dtype = token_type(vocab_size)
        self.documents = self.tokens = self.rows = self.padding = 0
        self._rest = np.empty(0, self.dtype)  # the stream that has not filled a row yet
        self._rest_starts = np.empty(0, np.int64)

    def add(self, documents: Iterable[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Adds documents (token ids, no specials). Returns the rows that are full: [N, max_length] and `doc_starts` of each."""
        documents = [each for each in documents if len(each)]
        self.documents += len(documents)
        self.tokens += sum(map(len, documents))
        content = self.max_length - 2
        if self.mode == "doc-sentences":
            pieces = [each[at : at + content] for each in documents for at in range(0, len(each), content)]
            starts = [
                np.array([1] if at == 0 else [], np.uint16)
                for each in documents
                for at in range(0, len(each), content)
            ]
            rows = np.full((len(pieces), self.max_length), PAD, self.dtype)
            rows[:, 0] = BOS
            for row, piece in zip(rows, pieces):
                row[1 : len(piece) + 1] = piece
                row[len(piece) + 1] = EOS
                self.padding += content - len(piece)
            self.rows += len(rows)
            return rows, starts
        if not documents:
            return self._rows(np.empty((0, content), self.dtype)), []
        separator = np.array([EOS], self.dtype)
        stream = np.concatenate(
            [self._rest, *(part for each in documents for part in (each.astype(self.dtype, copy=False), separator))]
        )
        lengths = np.array([len(each) + 1 for each in documents], np.int64)
        begins = np.concatenate([self._rest_starts, len(self._rest) + np.cumsum(lengths) - lengths])
        full = len(stream) // content
        rows = self._rows(stream[: full * content].reshape(full, content))
        starts = self._starts(begins, full)
        self._rest, self._rest_starts = (
            stream[full * content :].copy(),
            begins[begins >= full * content] - full * content,
        )
        return rows, starts

    def finish(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The last row, padded, or none."""
        rest, begins = self._rest, self._rest_starts
        self._rest, self._rest_starts = rest[:0], begins[:0]
        # The separator after the last document stands alone, or at the end of the last row: its own </s> replaces it.
        if len(rest) and rest[-1] == EOS:
            rest = rest[:-1]
        if not len(rest):
            return np.empty((0, self.max_length), self.dtype), []
        row = np.full((1, self.max_length), PAD, self.dtype)
        row[0, 0] = BOS
        row[0, 1 : len(rest) + 1] = rest
        row[0, len(rest) + 1] = EOS
        self.rows += 1
        self.padding += self.max_length - 2 - len(rest)
        return row, self._starts(begins, 1)

    def _rows(self, content: np.ndarray) -> np.ndarray:
        rows = np.empty((len(content), self.max_length), self.dtype)
        rows[:, 0], rows[:, 1:-1], rows[:, -1] = BOS, content, EOS
        self.rows += len(rows)
        return rows

    def _starts(self, begins: np.ndarray, rows: int) -> list[np.ndarray]:
        content = self.max_length - 2
        inside = begins[begins < rows * content]
        cuts = np.searchsorted(inside, np.arange(1, rows) * content)
        return [part.astype(np.uint16) for part in np.split(inside % content + 1, cuts)] if rows else []

    def counts(self) -> dict[str, int]:
        """documents, tokens (of documents, no specials), rows, padding (pad tokens)."""
        return {"documents": self.documents, "tokens": self.tokens, "rows": self.rows, "padding": self.padding}


def write_packed(
    batches: Iterator[list[np.ndarray]], file: Path, mode: str, max_length: int, vocab_size: int
) -> dict[str, int]:
    """Packs batches of documents into one Arrow IPC file. Memory: one batch of documents and 8,192 rows.

    Returns:
        The counts of `Packer.counts`.
    """
    packer = Packer(mode, max_length, vocab_size)
    schema = packed_schema(max_length, vocab_size)
    with atomic_file(file, "wb") as handle, pa.ipc.new_file(handle, schema) as writer:

        def write(rows: np.ndarray, starts: list[np.ndarray]) -> None:
            for at in range(0, len(rows), ROWS_A_BATCH):
                part = rows[at : at + ROWS_A_BATCH]
                ids = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), max_length)
                offsets = np.cumsum([0, *map(len, starts[at : at + ROWS_A_BATCH])])
                flat = np.concatenate([np.empty(0, np.uint16), *starts[at : at + ROWS_A_BATCH]])
                lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat, pa.uint16()))
                writer.write_batch(pa.record_batch([ids, lists], schema=schema))

        held_rows: list[np.ndarray] = []
        held_starts: list[np.ndarray] = []
        held = 0
        for batch in batches:
            rows, starts = packer.add(batch)
            held_rows.append(rows)
            held_starts += starts
            held += len(rows)
            if held >= ROWS_A_BATCH:  # whole batches to the file, so that readers see few, large chunks
                joined = np.concatenate(held_rows)
                cut = held // ROWS_A_BATCH * ROWS_A_BATCH
                write(joined[:cut], held_starts[:cut])
                held_rows, held_starts, held = [joined[cut:]], held_starts[cut:], held - cut
        rows, starts = packer.finish()
        held_rows.append(rows)
        write(np.concatenate(held_rows), held_starts + starts)
    return packer.counts()
