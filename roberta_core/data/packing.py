"""Documents to rows of a fixed length (Liu et al. 2019, section 4.2).

- `full-sentences`: all documents of a shard are joined, an extra `</s>` between two, and cut every `max_length - 2` tokens; a
  row is `<s>` + cut + `</s>`. Rows cross documents; only the last row of a shard is padded. The cut does not look for the end
  of a sentence: that would cost padding in every row, and readers of packed data gain nothing from it.
- `doc-sentences`: the same within each document: no row holds two documents, and every document's last row is padded.
- `best-fit`: documents, cut to pieces of `max_length - 2` tokens, each piece as `<s>` + piece + `</s>`; several pieces
  share a row (`roberta_core.data.best_fit`). Made for attention that stays within a document: what a model sees is what
  `doc-sentences` shows it, without the padding.

Each token of each document appears exactly once, in order within its piece; rows are padded, never dropped, so nothing is
lost. `doc_starts` of a row lists the places where a document begins: its first token, in `best-fit` the `<s>` of each piece.
Each document shard is packed by itself, so the result does not depend on the number of workers.

A row may also tell where words begin (`word_starts`): the flag of a token then travels as the highest bit of its id, so
that no mode has to know about it, and is parted from it when the row is written.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from roberta_core.atomic import atomic_file
from roberta_core.data.best_fit import fit

BOS, PAD, EOS = 0, 1, 2
ROWS_A_BATCH = 8192
WORD_START = np.uint32(1 << 31)
"""Flag of a token that begins a word, in ids of type uint32: no vocabulary comes near it."""
WINDOW_TOKENS = 1 << 22
"""Tokens that best-fit looks at together: memory of some 60 MB, and a loss of a few rows a window."""


def token_type(vocab_size: int) -> np.dtype:
    """uint16 where the vocabulary fits into it, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def packed_schema(max_length: int, vocab_size: int, words: bool = False) -> pa.Schema:
    """Columns of a packed shard; `words` adds `word_starts`."""
    tokens = pa.from_numpy_dtype(token_type(vocab_size))
    fields = [("input_ids", pa.list_(tokens, max_length)), ("doc_starts", pa.list_(pa.uint16()))]
    return pa.schema(fields + ([("word_starts", pa.list_(pa.bool_(), max_length))] if words else []))


@dataclass(frozen=True)
class Rows:
    """Some packed rows: `ids` [N, max_length], and the `doc_starts` of all, joined, with their `counts` (int64 [N]) a row."""

    ids: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    def part(self, start: int, stop: int) -> "Rows":
        """The rows `start` … `stop - 1`."""
        first, last = int(self.counts[:start].sum()), int(self.counts[:stop].sum())
        return Rows(self.ids[start:stop], self.starts[first:last], self.counts[start:stop])

    @staticmethod
    def joined(parts: list["Rows"]) -> "Rows":
        """The rows of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "starts", "counts")))


class Packer:
    """Takes token ids of documents, gives rows. Holds at most one batch of documents; with `best-fit` at most one window.

    Args:
        mode: `full-sentences`, `doc-sentences` or `best-fit`.
        max_length: tokens a row, `<s>` and `</s>` included.
        dtype: of the ids.
        window: best-fit: documents are fitted together until they have this many tokens.
    """

    def __init__(self, mode: str, max_length: int, dtype: np.dtype, window: int = WINDOW_TOKENS):
        self.mode, self.max_length, self.dtype, self.window = mode, max_length, dtype, window
        self.documents = self.tokens = self.rows = self.padding = 0
        self._rest = np.empty(0, self.dtype)  # full-sentences: the stream that has not filled a row yet
        self._rest_starts = np.empty(0, np.int64)
        self._held: list[np.ndarray] = []  # best-fit: the documents of the window
        self._held_tokens = 0

    def add(self, documents: Iterable[np.ndarray]) -> Rows:
        """Adds documents (token ids, no specials). Returns the rows that are full."""
        documents = [each for each in documents if len(each)]
        self.documents += len(documents)
        self.tokens += sum(map(len, documents))
        if self.mode == "doc-sentences":
            return self._pieces(documents)
        if self.mode == "full-sentences":
            return self._stream(documents)
        full = [self._pieces([])]
        for document in documents:
            self._held.append(document)
            self._held_tokens += len(document)
            if self._held_tokens >= self.window:  # document by document: batches must not change the rows
                full.append(self._pieces(self._held))
                self._held, self._held_tokens = [], 0
        return Rows.joined(full)

    def finish(self) -> Rows:
        """What is still held: the last row of full-sentences, padded; the last window of best-fit."""
        if self.mode == "best-fit":
            held, self._held, self._held_tokens = self._held, [], 0
            return self._pieces(held)
        rest, begins = self._rest, self._rest_starts
        self._rest, self._rest_starts = rest[:0], begins[:0]
        # The separator after the last document stands alone, or at the end of the last row: its own </s> replaces it.
        if len(rest) and rest[-1] == EOS:
            rest = rest[:-1]
        if not len(rest):
            return self._pieces([])
        row = np.full((1, self.max_length), PAD, self.dtype)
        row[0, 0] = BOS
        row[0, 1 : len(rest) + 1] = rest
        row[0, len(rest) + 1] = EOS
        self.rows += 1
        self.padding += self.max_length - 2 - len(rest)
        return self._starts(row, begins)

    def _stream(self, documents: list[np.ndarray]) -> Rows:
        """full-sentences: the rows that these documents fill."""
        content = self.max_length - 2
        separator = np.array([EOS], self.dtype)
        stream = np.concatenate(
            [self._rest, *(part for each in documents for part in (each.astype(self.dtype, copy=False), separator))]
        )
        lengths = np.array([len(each) + 1 for each in documents], np.int64)
        begins = np.concatenate([self._rest_starts, len(self._rest) + np.cumsum(lengths) - lengths])
        full = len(stream) // content
        rows = np.empty((full, self.max_length), self.dtype)
        rows[:, 0], rows[:, 1:-1], rows[:, -1] = BOS, stream[: full * content].reshape(full, content), EOS
        self.rows += full
        self._rest = stream[full * content :].copy()
        self._rest_starts = begins[begins >= full * content] - full * content
        return self._starts(rows, begins)

    def _starts(self, rows: np.ndarray, begins: np.ndarray) -> Rows:
        """`rows` with the documents that begin at the places `begins` of the stream they hold."""
        row, place = np.divmod(begins[begins < len(rows) * (self.max_length - 2)], self.max_length - 2)
        return Rows(rows, (place + 1).astype(np.uint16), np.bincount(row, minlength=len(rows)))

    def _pieces(self, documents: list[np.ndarray]) -> Rows:
        """Rows of pieces, each `<s>` … `</s>`: one a row in doc-sentences, as many as fit in best-fit."""
        content = self.max_length - 2
        sizes = np.array([len(each) for each in documents], np.int64)
        pieces = -(-sizes // content)  # of each document
        last = np.cumsum(pieces) - 1
        lengths = np.full(pieces.sum(), content, np.int64)
        lengths[last] = sizes - (pieces - 1) * content
        if self.mode == "best-fit":
            row, offset = fit(lengths + 2, self.max_length)
            order = np.lexsort((offset, row))
            counts, starts = np.bincount(row), offset[order]
        else:
            row, offset = np.arange(len(lengths)), np.zeros(len(lengths), np.int64)
            counts = np.zeros(len(lengths), np.int64)
            counts[last - pieces + 1] = 1
            starts = np.ones(len(documents), np.int64)
        rows = np.full((len(counts), self.max_length), PAD, self.dtype)
        flat = rows.reshape(-1)
        begins = row * self.max_length + offset
        flat[begins] = BOS
        flat[begins + 1 + lengths] = EOS
        before = np.cumsum(lengths) - lengths
        places = np.repeat(begins + 1 - before, lengths)
        places += np.arange(len(places))
        flat[places] = np.concatenate([np.empty(0, self.dtype), *documents])
        self.rows += len(rows)
        self.padding += rows.size - int(lengths.sum()) - 2 * len(lengths)
        return Rows(rows, starts.astype(np.uint16), counts)

    def counts(self) -> dict[str, int]:
        """documents, tokens (of documents, no specials), rows, padding (pad tokens)."""
        return {"documents": self.documents, "tokens": self.tokens, "rows": self.rows, "padding": self.padding}


def write_packed(
    batches: Iterator[list[np.ndarray]], file: Path, mode: str, max_length: int, vocab_size: int, words: bool = False
) -> dict[str, int]:
    """Packs batches of documents into one Arrow IPC file. Memory: what `Packer` holds, and 8,192 rows.

    Args:
        batches: token ids of documents, no specials; with `words` of type uint32, `WORD_START` added where a word begins.
        file: what is written.
        mode, max_length: see `Packer`.
        vocab_size: decides the integer type of the ids.
        words: write `word_starts`.

    Returns:
        The counts of `Packer.counts`.
    """
    dtype = token_type(vocab_size)
    packer = Packer(mode, max_length, np.dtype(np.uint32) if words else dtype)
    schema = packed_schema(max_length, vocab_size, words)
    with atomic_file(file, "wb") as handle, pa.ipc.new_file(handle, schema) as writer:

        def write(rows: Rows) -> None:
            for at in range(0, len(rows.ids), ROWS_A_BATCH):
                part = rows.part(at, at + ROWS_A_BATCH)
                ids = (part.ids & ~WORD_START).astype(dtype) if words else part.ids
                offsets = np.concatenate([[0], np.cumsum(part.counts)])
                columns = [
                    pa.FixedSizeListArray.from_arrays(pa.array(ids.reshape(-1)), max_length),
                    pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(part.starts, pa.uint16())),
                ]
                if words:
                    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(_words(part.ids)), max_length))
                writer.write_batch(pa.record_batch(columns, schema=schema))

        held: list[Rows] = []
        count = 0
        for batch in batches:
            held.append(packer.add(batch))
            count += len(held[-1].ids)
            if count >= ROWS_A_BATCH:  # whole batches to the file, so that readers see few, large chunks
                joined = Rows.joined(held)
                cut = count // ROWS_A_BATCH * ROWS_A_BATCH
                write(joined.part(0, cut))
                held, count = [joined.part(cut, count)], count - cut
        write(Rows.joined([*held, packer.finish()]))
    return packer.counts()


def _words(ids: np.ndarray) -> np.ndarray:
    """Where a word begins, by the flags in `ids` [N, max_length]: bool [N · max_length].

    Special tokens are words of their own, and so is what follows one: the beginning of a word that was cut is in another row.
    """
    special = ids <= EOS
    starts = special | (ids >= WORD_START)
    starts[:, 1:] |= special[:, :-1]
    return starts.reshape(-1)
