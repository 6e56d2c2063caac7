"""MinHash signatures by one hash a shingle: one-permutation hashing, densified (Shrivastava 2017).

Two documents agree in one entry of their signatures with the probability that is the Jaccard similarity of their sets
of shingles (Broder 1997). The textbook takes the least of every one of `num_hashes` hash functions over all shingles.
Here one hash of a shingle names an entry and a value, and each entry keeps the least value that it was given. An entry
that no shingle named borrows from another one: entries are asked in an order drawn for it, the same in all documents,
until one has a value; so a short text's entries are draws from its own shingles again. One hash in place of 112 takes a
signature from 14 to 5 µs for a text of 250 words, at the same error (tests) and the same recall (docs/decisions.md).
Price: 4 bytes an entry and document (448 at 112).
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from roberta_core.data.words import PIECE_BYTES, mix, shingle_hashes

EMPTY = np.uint32(0xFFFFFFFF)
"""All entries of a text without words; no shingle has this value."""

ASKED = 32
"""Entries that are drawn for an empty one to ask. Where a text is so short that none of these has a value, the next
entries in order are asked, all round."""

_SEED = 0x5EED_0F_11A5
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class MinHasher:
    """Signatures of batches of texts: `hasher(texts)` gives uint32 [texts, num_hashes]."""

    def __init__(self, num_hashes: int = 112, shingle_words: int = 5):
        self.num_hashes, self.shingle_words = num_hashes, shingle_words
        drawn = mix(np.arange(1, ASKED * num_hashes + 1, dtype=np.uint64) * _GOLDEN + np.uint64(_SEED))
        in_order = np.add.outer(np.arange(1, num_hashes), np.arange(num_hashes))
        self._asked = np.concatenate([drawn.reshape(ASKED, -1).astype(np.int64), in_order]) % num_hashes

    def __call__(self, texts: Sequence[str] | pa.StringArray) -> np.ndarray:
        column = texts if isinstance(texts, pa.StringArray) else pa.array(texts, pa.string())
        signatures = np.full((len(column), self.num_hashes), EMPTY, dtype=np.uint32)
        if not len(column):
            return signatures
        ends = np.frombuffer(column.buffers()[1], np.int32)[column.offset :][: len(column) + 1]
        start = 0
        while start < len(column):
            stop = max(int(np.searchsorted(ends, ends[start] + PIECE_BYTES, side="right")) - 1, start + 1)
            self._fill(column.slice(start, stop - start), signatures[start:stop])
            start = stop
        return signatures

    def _fill(self, texts: pa.StringArray, out: np.ndarray) -> None:
        hashes, counts = shingle_hashes(texts, self.shingle_words)
        entries = ((hashes >> np.uint64(32)) * np.uint64(self.num_hashes)) >> np.uint64(32)
        entries = entries.astype(np.intp) + np.repeat(np.arange(len(texts)) * self.num_hashes, counts)
        np.minimum.at(out.reshape(-1), entries, np.minimum(hashes.astype(np.uint32), EMPTY - np.uint32(1)))
        self._borrow(out.reshape(-1), counts)

    def _borrow(self, entries: np.ndarray, counts: np.ndarray) -> None:
        """Fills the entries that no shingle named from others of their text; texts without shingles stay empty."""
        empty = np.flatnonzero(entries == EMPTY)
        text, entry = np.divmod(empty, self.num_hashes)
        has_words = counts[text] > 0
        empty, entry = empty[has_words], entry[has_words]
        given = []  # written at the end: what is borrowed is not lent on
        for asked in self._asked:
            if not len(empty):
                break
            values = entries[empty - entry + asked[entry]]
            found = values != EMPTY
            given.append((empty[found], values[found]))
            empty, entry = empty[~found], entry[~found]
        for places, values in given:
            entries[places] = values
