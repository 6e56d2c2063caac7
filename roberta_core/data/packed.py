"""Packed rows, read at the speed of memory: Arrow files mapped, record batches seen as numpy arrays without a copy.

`table.take` and row-wise readers are 10 to 40 times slower on random rows (docs/decisions.md); here a row number is
looked up among the chunks' first rows, and numpy copies the rows out.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from roberta_core.atomic import read_json
from roberta_core.errors import BadInput


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
        self._chunks: list[np.ndarray] = []
        for file in files:
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(file)))
                batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            except (pa.ArrowInvalid, OSError) as error:
                raise BadInput(f"{file} is damaged ({error}).", "Run the pack stage again.") from None
            for batch in batches:
                column = batch.column("input_ids")
                width = column.type.list_size
                self._chunks.append(column.flatten().to_numpy(zero_copy_only=True).reshape(-1, width))
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)])
        if not len(self):
            raise BadInput(f"{folder} holds no rows.", "Give the corpus more text, or set pack.max_length lower.")
        self.max_length = self._chunks[0].shape[1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Token ids of the rows `numbers` (int64 [N]) in that order: int64 [N, max_length]."""
        result = np.empty((len(numbers), self.max_length), np.int64)
        chunks = np.searchsorted(self._starts, numbers, side="right") - 1
        for chunk in np.unique(chunks):
            here = np.flatnonzero(chunks == chunk)
            result[here] = self._chunks[chunk][numbers[here] - self._starts[chunk]]
        return result
