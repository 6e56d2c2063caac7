"""Text to token ids, several times as fast as the tokenizer alone: a word that was met before is looked up, not encoded.

Byte-level BPE splits a text by a fixed pattern before it merges anything (Radford et al. 2019), and no merge crosses a split.
So a text can be cut at places where the pattern is sure to split, and the ids of the parts, joined, are the ids of the whole.
English has some five bytes a part, and only one part in twenty of 14 MB is new. Everything is done for a megabyte at a time in
numpy, on the bytes of the Arrow column: classes of bytes, cuts between classes, the part itself as a key of 16 bytes (no
hash stands for it, so nothing can be mistaken), and a table that knows the keys that were met. New parts, and parts longer
than a key, go to the tokenizer; where a part is a plain word or number, straight to its merges, in less than half the time.

The cuts are between bytes of ASCII, where the pattern's rule is plain, and before a space that follows a letter of another
script; wherever the pattern might not split, nothing is cut. Text without such places, as Chinese is, goes to the tokenizer
whole, and so does everything where the tokenizer is of another kind. Memory: 25 MB for the table, 50 MB for the work on a
megabyte.
"""

import json
import re
from itertools import chain

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

SECTION_BYTES = 1 << 20
"""Text that is cut together: its arrays stay near the processor."""
TABLE_BITS = 20
"""The table has 2^20 places and holds half as many parts; then it is emptied. Half full, most keys are found at once."""
KEY_BYTES = 15
"""Bytes of the longest part in the table; the sixteenth byte of a key is the part's length."""
LONG_SHARE = 0.25
"""Where parts that are too long have a larger share of the bytes, cutting does not pay."""

LETTER, DIGIT, SPACE, APOSTROPHE, SIGN, MAYBE_SPACE, HIGH, CONTROL = range(8)
"""Classes of bytes. MAYBE_SPACE: bytes that end a space of Unicode in UTF-8 (U+0085, U+00A0, U+1680, U+2000 …, U+3000), and
other characters too: nothing is cut there. Nor beside control characters, on which readers of Unicode disagree."""


def _classes() -> np.ndarray:
    table = np.full(256, HIGH, np.uint8)
    table[:33] = table[127] = CONTROL
    table[33:127] = SIGN
    table[list(b"\t\n\v\f\r ")] = SPACE
    table[ord("0") : ord("9") + 1] = DIGIT
    table[ord("A") : ord("Z") + 1] = table[ord("a") : ord("z") + 1] = LETTER
    table[ord("'")] = APOSTROPHE
    table[[*range(0x80, 0x8B), 0x9F, 0xA0, 0xA8, 0xA9, 0xAF]] = MAYBE_SPACE
    return table


def _cuts() -> np.ndarray:
    """bool [64]: whether the pattern splits between a byte of class `index >> 3` and one of class `index & 7`.

    Not after an apostrophe, as the pattern keeps `'s` and `'re` together; not within spaces, of which the last one may go
    with the word; not between other characters and ASCII, as the other may be a letter or a sign.
    """
    table = np.zeros((8, 8), bool)
    table[[LETTER, DIGIT, APOSTROPHE, SIGN, HIGH], SPACE] = True
    table[LETTER, [DIGIT, SIGN, APOSTROPHE]] = True
    table[DIGIT, [LETTER, SIGN, APOSTROPHE]] = True
    table[SIGN, [LETTER, DIGIT]] = True
    return table.reshape(-1)


PLAIN = re.compile(" ?(?:[A-Za-z]+|[0-9]+)")
"""A part that the pattern does not split any further, and that byte-level BPE spells as it is, but for the space."""
SPELLED_SPACE = "\u0120"
"""How byte-level BPE spells a space."""

CLASSES, CUTS = _classes(), _cuts()
_SHIFTED = CLASSES << 3
_LOW = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_MIX = tuple(np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93))
"""Odd numbers of 64 bits with no pattern: any would do."""


def splits_alike(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer splits by GPT-2's pattern and nothing else: no normaliser, no tokens that are found in plain text."""
    if not tokenizer.encode_special_tokens:
        return False
    made = json.loads(tokenizer.to_str())
    before, model = made["pre_tokenizer"] or {}, made["model"]
    return (
        made["normalizer"] is None
        and (before.get("type"), before.get("add_prefix_space"), before.get("use_regex")) == ("ByteLevel", False, True)
        and model["type"] == "BPE"
        and not any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and all(token["special"] for token in made["added_tokens"])
    )


class Encoder:
    """Gives the token ids of documents, exactly as the tokenizer does. Keeps what it met, from call to call.

    Args:
        tokenizer: as `load_tokenizer` gives it.
        dtype: of the ids.
    """

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype):
        self.tokenizer, self.dtype = tokenizer, dtype
        self.fast = splits_alike(tokenizer)
        if self.fast:
            self._table, self._model = PartTable(dtype), tokenizer.model

    def encode(self, column: pa.Array) -> list[np.ndarray]:
        """The ids of each text of a string column without nulls, no special tokens added."""
        if self.fast:
            flat = self._by_parts(column)
            if flat is not None:
                ids, bounds = flat
                return [ids[start:stop] for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist())]
        return [np.array(ids, self.dtype) for ids in self._encode(column.to_pylist())]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [each.ids for each in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _encode_parts(self, parts: list[str]) -> list[list[int]]:
        """As `_encode`. The tokenizer's own way makes seven lists a text, of which one is wanted."""
        ids: list[list[int]] = [[]] * len(parts)
        others = []
        for place, part in enumerate(parts):
            if PLAIN.fullmatch(part):
                ids[place] = [token.id for token in self._model.tokenize(part.replace(" ", SPELLED_SPACE))]
            else:
                others.append(place)
        for place, found in zip(others, self._encode([parts[place] for place in others])):
            ids[place] = found
        return ids

    def _by_parts(self, column: pa.Array) -> tuple[np.ndarray, np.ndarray] | None:
        """All ids in a row, and where each text's begin and end in them (int64 [texts + 1]); None where cutting does not pay."""
        _, offsets, data = column.buffers()
        documents = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
        text = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
        at, end = int(documents[0]), int(documents[-1])
        bounds = np.empty(len(documents), np.int64)
        ids: list[np.ndarray] = [np.empty(0, self.dtype)]
        total = 0
        while at < end:
            starts, stop = _parts(text, at, end, documents)
            if not total:
                lengths = np.diff(starts, append=stop)
                if lengths[lengths > KEY_BYTES].sum() > LONG_SHARE * (stop - at):
                    return None
            found, counts = self._ids(text[at:stop], starts - at)
            first, last = np.searchsorted(
                documents, [at, stop]
            )  # empty texts at `at` and before `stop` are among these
            before = np.concatenate([[0], np.cumsum(counts)])
            bounds[first:last] = total + before[np.searchsorted(starts, documents[first:last])]
            ids.append(found)
            total, at = total + len(found), stop
        bounds[documents == end] = total
        return np.concatenate(ids), bounds

    def _ids(self, text: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the parts of `text` (uint8) that begin at `starts`, joined; and how many each part has."""
        lengths = np.diff(starts, append=len(text))
        low, high = _keys(text, starts, lengths)
        table = self._table
        short = lengths <= KEY_BYTES
        slots = table.find(low, high)
        new = np.flatnonzero((slots < 0) & short)
        if len(new):
            if not table.has_room(len(new)):
                table.clear()
                new = np.flatnonzero(short)
            order = new[np.lexsort((high[new], low[new]))]
            once = np.ones(len(order), bool)
            once[1:] = (low[order][1:] != low[order][:-1]) | (high[order][1:] != high[order][:-1])
            one = order[once]
            table.add(low[one], high[one], self._encode_parts(_strings(text, starts[one], lengths[one])))
            slots[new] = table.find(low[new], high[new])
        long = np.flatnonzero(~short)
        places, counts = table.places[slots], table.counts[slots].astype(np.int64)
        pool = table.pool
        if len(long):
            encoded = self._encode_parts(_strings(text, starts[long], lengths[long]))
            counts[long] = [len(each) for each in encoded]
            places[long] = len(pool) + np.cumsum(counts[long]) - counts[long]
            pool = np.concatenate([pool, np.fromiter(chain.from_iterable(encoded), self.dtype)])
        where = np.repeat(places - np.cumsum(counts) + counts, counts)
        where += np.arange(len(where))
        return pool[where], counts


def _parts(text: np.ndarray, at: int, end: int, documents: np.ndarray) -> tuple[np.ndarray, int]:
    """Where the parts of a section begin (the first at `at`), and where the section stops: at a cut, or at `end`."""
    size = SECTION_BYTES
    while True:
        stop = min(at + size, end)
        piece = text[at:stop]
        cut = np.empty(len(piece) + 1, bool)
        cut[0] = True
        np.take(CUTS, _SHIFTED[piece[:-1]] | CLASSES[piece[1:]], out=cut[1:-1])
        cut[-1] = stop == end
        inside = documents[np.searchsorted(documents, at) : np.searchsorted(documents, stop, side="right")]
        cut[inside - at] = True
        starts = np.flatnonzero(cut) + at
        if len(starts) > 1:
            return starts[:-1], int(starts[-1])
        size *= 2  # not a single cut: look further


def _keys(text: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts as two uint64 each: bytes 0 to 7, and bytes 8 to 14 with the length above them. Long parts get no key of use."""
    padded = np.zeros(len(text) + 16, np.uint8)
    padded[: len(text)] = text
    eight = np.ndarray(len(text) + 8, np.dtype("<u8"), padded, strides=(1,))  # the eight bytes from each place on
    counts = np.minimum(lengths, KEY_BYTES + 1)
    low, high = eight[starts], eight[starts + 8 * (counts > 8)]
    low &= _LOW[np.minimum(counts, 8)]
    high &= _LOW[np.clip(counts - 8, 0, 7)]
    high |= counts.astype(np.uint64) << np.uint64(56)
    return low, high


def _strings(text: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Parts as strings; they are cut between characters, so each is valid UTF-8."""
    raw = text.tobytes()
    return [raw[start:stop].decode() for start, stop in zip(starts.tolist(), (starts + lengths).tolist())]


class PartTable:
    """Keys to ids: open addressing, each step for all keys at once.

    `pool` holds the ids of all parts; those of the part in slot s are `pool[places[s] : places[s] + counts[s]]`.
    """

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype
        size = 1 << TABLE_BITS
        self.places, self.counts = np.zeros(size, np.int64), np.zeros(size, np.uint8)
        self._low, self._high = np.zeros(size, np.uint64), np.zeros(size, np.uint64)  # high is never 0 where a key is
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._high[:] = 0
        self.used = 0
        self._pool, self._filled = np.empty(1 << 16, self.dtype), 0

    @property
    def pool(self) -> np.ndarray:
        """The ids of all parts, one part after the other."""
        return self._pool[: self._filled]

    def has_room(self, count: int) -> bool:
        """Whether `count` more keys leave the table at most half full."""
        return self.used + count <= 1 << (TABLE_BITS - 1)

    def find(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The slots of the keys, int64; -1 where a key is not known."""
        found = np.full(len(low), -1, np.int64)
        left, slots = np.arange(len(low)), _slots(low, high)
        while len(left):
            there = self._high[slots]
            same = (there == high) & (self._low[slots] == low)
            found[left[same]] = slots[same]
            further = np.flatnonzero(~same & (there != 0))
            left, low, high = left[further], low[further], high[further]
            slots = (slots[further] + 1) & ((1 << TABLE_BITS) - 1)
        return found

    def add(self, low: np.ndarray, high: np.ndarray, ids: list[list[int]]) -> None:
        """Adds keys that are not known, each once, with their ids."""
        counts = np.array([len(each) for each in ids], np.int64)
        flat = np.fromiter(chain.from_iterable(ids), self.dtype, int(counts.sum()))
        if self._filled + len(flat) > len(self._pool):
            self._pool = np.concatenate([self.pool, np.empty(self._filled + len(flat), self.dtype)])
        self._pool[self._filled : self._filled + len(flat)] = flat
        places = self._filled + np.cumsum(counts) - counts
        self._filled += len(flat)
        self.used += len(low)
        left, slots = np.arange(len(low)), _slots(low, high)
        while len(left):
            free = np.flatnonzero(self._high[slots] == 0)
            taken, first = np.unique(slots[free], return_index=True)  # of several keys for a slot, one gets it
            mine = left[free[first]]
            self._low[taken], self._high[taken] = low[mine], high[mine]
            self.places[taken], self.counts[taken] = places[mine], counts[mine]
            left = np.delete(left, free[first])
            slots = (np.delete(slots, free[first]) + 1) & ((1 << TABLE_BITS) - 1)


def _slots(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where the search for each key begins: int64."""
    mixed = low * _MIX[0] + high * _MIX[1]
    mixed ^= mixed >> np.uint64(32)
    return (mixed * _MIX[2] >> np.uint64(64 - TABLE_BITS)).astype(np.int64)
