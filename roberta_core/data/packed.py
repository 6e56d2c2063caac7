"""Packed rows, read at the speed of memory: Arrow files mapped, record batches seen as numpy arrays without a copy.

`table.take` and row-wise readers are 10 to 40 times slower on random rows (docs/decisions.md); here a row number is
looked up among the chunks' first rows, and numpy copies the rows out. The boundaries of documents and words come the same
way, and only when they are asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from roberta_core.atomic import read_json
from roberta_core.data.packing import PAD
from roberta_core.errors import BadInput


@dataclass(frozen=True)
class Chunk:
    """A record batch as numpy views."""

    ids: np.ndarray  # [N, max_length]
    starts: np.ndarray  # uint16, all `doc_starts` one after the other
    bounds: np.ndarray  # int32 [N + 1], where each row's begin in `starts`
    words: np.ndarray | None  # uint8, the bits of `word_starts` from the lowest on
    first_bit: int  # of the first row in `words`


def _view(batch: pa.RecordBatch) -> Chunk:
    ids = batch.column("input_ids")
    starts = batch.column("doc_starts")
    words, first_bit = None, 0
    if "word_starts" in batch.schema.names:
        flat = batch.column("word_starts").flatten()
        words, first_bit = np.frombuffer(flat.buffers()[1], np.uint8), flat.offset
    return Chunk(
        ids.flatten().to_numpy(zero_copy_only=True).reshape(-1, ids.type.list_size),
        starts.values.to_numpy(zero_copy_only=True),
        starts.offsets.to_numpy(zero_copy_only=True),
        words,
        first_bit,
    )


class PackedRows:
    """The rows of one split, by number.

    Args:
        folder: holds `part-*.arrow` files and `manifest.json`.

    Raises:
        BadInput: the folder is missing, empty or damaged.
    """

    def __init__(self, folder: Path | str):
        folder = Path(folder)
        files = sorted(folder.glob("part-*.arrow"))
        if not files:
            raise BadInput(f"{folder} holds no packed rows.", "Run the pack stage.")
        self.manifest = read_json(folder / "manifest.json")
        self._chunks: list[Chunk] = []
        for file in files:
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(file)))
                self._chunks += [_view(reader.get_batch(number)) for number in range(reader.num_record_batches)]
            except (pa.ArrowInvalid, OSError) as error:
                raise BadInput(f"{file} is damaged ({error}).", "Run the pack stage again.") from None
        self._starts = np.cumsum([0, *(len(chunk.ids) for chunk in self._chunks)])
        if not len(self):
            raise BadInput(f"{folder} holds no rows.", "Give the corpus more text, or set pack.max_length lower.")
        self.max_length = self._chunks[0].ids.shape[1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def isolated(self) -> bool:
        """Whether the documents of a row are packed for attention that stays within each (`pack.mode: best-fit`)."""
        return self.manifest.get("mode") == "best-fit"

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Token ids of the rows `numbers` (int64 [N]) in that order: int64 [N, max_length]."""
        result = np.empty((len(numbers), self.max_length), np.int64)
        for chunk, here, rows in self._found(numbers):
            result[here] = chunk.ids[rows]
        return result

    def documents(self, numbers: np.ndarray) -> np.ndarray:
        """The document of each token of the rows `numbers` (int64 [N]).

        Returns:
            int32 [N, max_length]: 0 for the first document (or piece of one) in a row, 1 for the second, …; -1 for padding.
            `<s>` and `</s>` belong to the document that they enclose; in rows of full-sentences a separator belongs to the
            document before it.
        """
        result = np.zeros((len(numbers), self.max_length), np.int32)
        for chunk, here, rows in self._found(numbers):
            first, count = chunk.bounds[rows], np.diff(chunk.bounds)[rows]
            places = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
            starts = chunk.starts[places]
            later = starts > 1  # place 0 or 1 begins the first document, of which <s> is part
            result[np.repeat(here, count)[later], starts[later]] = 1
        np.cumsum(result, axis=1, out=result)
        for chunk, here, rows in self._found(numbers):
            result[here] = np.where(chunk.ids[rows] == PAD, -1, result[here])
        return result

    def word_starts(self, numbers: np.ndarray) -> np.ndarray | None:
        """Where words begin in the rows `numbers` (int64 [N]): bool [N, max_length].

        True as well on special tokens, on padding and on the token after one. None where the pack stage stored no words
        (`pack.word_boundaries: bpe`): the vocabulary tells then.
        """
        if self._chunks[0].words is None:
            return None
        result = np.empty((len(numbers), self.max_length), bool)
        for chunk, here, rows in self._found(numbers):
            bits = (chunk.first_bit + rows * self.max_length)[:, None] + np.arange(self.max_length)
            result[here] = (chunk.words[bits >> 3] >> (bits & 7).astype(np.uint8)) & 1
        return result

    def _found(self, numbers: np.ndarray) -> Iterator[tuple[Chunk, np.ndarray, np.ndarray]]:
        """Each chunk that holds some of the rows: with their places in `numbers`, and their numbers in it."""
        chunks = np.searchsorted(self._starts, numbers, side="right") - 1
        for number in np.unique(chunks):
            here = np.flatnonzero(chunks == number)
            yield self._chunks[number], here, np.asarray(numbers)[here] - self._starts[number]
