"""Words and shingles of whole batches of texts as 64-bit hashes, straight from the bytes of an Arrow column.

A word is a run of letters and digits, lower-cased, punctuation left out; in scripts without spaces between words
(`UNSPACED`) a character is a word. A shingle is some consecutive words. No Python loop touches a word: every byte gets
the value of its character from a table (0 where no word is), a running sum of value * base^place is taken once over a
piece of text, and a word's hash is the difference of two of its entries times base^-start, so that it does not depend
on where the word stands. Characters beyond ASCII are decoded only where they are. The hashes are the same on every
machine, in every process and for every cut into pieces.

Price: some 3 ns a byte of English on one core, three times that for Chinese; 30 bytes of memory for each byte of a piece,
8 for each word of what is asked for. A word of more than `PIECE_BYTES` counts as several.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pyarrow as pa

PIECE_BYTES = 1 << 17
"""Text that is hashed at a time: its arrays stay in the cache of a core."""

_WORD_BASE = np.uint64(0x9E3779B97F4A7C15)
_SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Odd multipliers: the golden ratio's, and those of splitmix64 (Steele et al. 2014)."""

# Punctuation and symbols beyond ASCII: they stand between words.
_PUNCTUATION = (
    "\u00a0-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7\u2000-\u200b\u200e-\u2064\u2190-\u2bff"
    "\u3000-\u3004\u3008-\u3020\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufffd"
)
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
UNSPACED = re.compile(f"([{_UNSPACED}])")
"""Characters of scripts that put no spaces between words (Thai, Lao, Burmese, Khmer, Chinese, Japanese), and Hangul."""
WORD = re.compile(f"[{_UNSPACED}]|(?:[0-9A-Za-z]|[^\x00-\x7f{_PUNCTUATION}{_UNSPACED}])+")
"""The same words as `word_hashes` sees, found in the text as it stands: for the few texts where places are asked for."""

_BETWEEN, _LETTER, _ALONE = range(3)
"""What a character is: no part of a word, part of a word, a word by itself."""

_LAST_CASED = 0x1E943
"""The last character that has a lower-case form (Adlam, Unicode 16)."""


def powers(base: np.uint64, count: int) -> np.ndarray:
    """base^1 … base^count modulo 2^64: uint64 [count]."""
    with np.errstate(over="ignore"):
        return np.multiply.accumulate(np.full(count, base, dtype=np.uint64))


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: spreads every bit of uint64 `values` over all others."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def _ranges(characters: str) -> Iterator[slice]:
    """The ranges of a character class, as slices of a table by code point."""
    for first, last in re.findall("(.)-(.)", characters) + [(one, one) for one in re.sub(".-.", "", characters)]:
        yield slice(ord(first), ord(last) + 1)


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """By code point: what a character is (uint8), and its value in a word's hash (uint64, 0 between words)."""
    kinds = np.full(0x110000, _LETTER, dtype=np.uint8)
    kinds[:128] = [_LETTER if chr(code).isalnum() else _BETWEEN for code in range(128)]
    for where in _ranges(_PUNCTUATION):
        kinds[where] = _BETWEEN
    for where in _ranges(_UNSPACED):
        kinds[where] = _ALONE
    small = np.arange(0x110000, dtype=np.uint64)
    lowered = [chr(code).lower() for code in range(_LAST_CASED + 1)]
    small[: len(lowered)] = [ord(low) if len(low) == 1 else code for code, low in enumerate(lowered)]
    small[ord("ς")] = ord("σ")  # a sigma at the end of a word is one in the middle of its capitals
    values = mix((small + np.uint64(1)) * _WORD_BASE) | np.uint64(1)
    values[kinds == _BETWEEN] = 0
    return kinds, values


@lru_cache(maxsize=1)
def _byte_values() -> np.ndarray:
    """Values of ASCII characters by byte; 0 for the bytes of others: uint64 [256]."""
    return np.concatenate([_tables()[1][:128], np.zeros(128, np.uint64)])


@lru_cache(maxsize=1)
def _place_powers() -> tuple[np.ndarray, np.ndarray]:
    """base^place, and its inverse modulo 2^64, for every place in a piece."""
    inverse = np.uint64(pow(int(_WORD_BASE), -1, 1 << 64))
    return powers(_WORD_BASE, PIECE_BYTES), powers(inverse, PIECE_BYTES)


def text_column(texts: Sequence[str] | pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Texts as Arrow keeps them: their UTF-8 in one array (uint8), and where each begins and the last ends (int64)."""
    column = texts if isinstance(texts, pa.StringArray) else pa.array(texts, pa.string())
    if not len(column):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, places, content = column.buffers()
    bounds = np.frombuffer(places, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    data = np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8)
    return data[bounds[0] : bounds[-1]], bounds - bounds[0]


def _piece_ends(data: np.ndarray, bounds: np.ndarray) -> list[int]:
    """Where pieces of at most `PIECE_BYTES` end: between texts; a longer text is cut by itself, between words.

    So the cuts inside a text depend on that text alone.
    """
    ends, first = [], 0
    while first < len(bounds) - 1:
        begin = int(bounds[first])
        last = int(np.searchsorted(bounds, begin + PIECE_BYTES, side="right")) - 1
        if last > first:
            ends.append(int(bounds[last]))
            first = last
            continue
        first, end = first + 1, int(bounds[first + 1])
        while end - begin > PIECE_BYTES:
            window = data[begin : begin + PIECE_BYTES]
            gaps = np.flatnonzero((window < 128) & (_byte_values()[window] == 0))
            if len(gaps):
                begin += int(gaps[-1]) + 1
            else:  # not inside a character: continuation bytes are 10xxxxxx
                begin += int(np.flatnonzero((window & 0xC0) != 0x80)[-1])
            ends.append(begin)
        ends.append(end)
    return ends


def _piece(data: np.ndarray, text_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of a piece's words, and the places of their first bytes. A word ends where a text does."""
    size = len(data)
    terms = np.take(_byte_values(), data, mode="clip")  # a byte is never outside; numpy need not look
    inside = terms != 0
    alone: list[tuple[np.ndarray, int]] = []
    if data.max() >= 128:
        alone = _beyond_ascii(data, terms, inside)
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    begins[text_starts] = inside[text_starts]
    for places, width in alone:
        begins[places] = True
        after = places + width
        after = after[after < size]
        begins[after] = inside[after]
    starts = np.flatnonzero(begins)

    place_powers, inverse = _place_powers()
    running = np.zeros(size + 1, np.uint64)
    terms *= place_powers[:size]
    np.cumsum(terms, out=running[1:])
    hashes = np.diff(running[starts], append=running[-1:])
    hashes *= inverse[starts]
    return mix(hashes), starts


def _beyond_ascii(data: np.ndarray, terms: np.ndarray, inside: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Fills in the characters of several bytes: their value at the first byte, all their bytes inside a word or not.

    Returns:
        Places and bytes of the characters that are words by themselves, one entry a width.
    """
    kinds, values = _tables()
    alone = []
    for width, low, high in ((2, 0xC0, 0xE0), (3, 0xE0, 0xF0), (4, 0xF0, 0xF8)):  # first bytes of UTF-8, RFC 3629
        places = np.flatnonzero((data >= low) & (data < high))
        if not len(places):
            continue
        codes = (data[places] & (0x7F >> width)).astype(np.intp)
        for offset in range(1, width):
            codes = (codes << 6) | (data[places + offset] & 0x3F)
        kind = kinds[codes]
        terms[places] = values[codes]
        in_word = kind != _BETWEEN
        for offset in range(width):
            inside[places + offset] = in_word
        alone.append((places[kind == _ALONE], width))
    return alone


def word_hashes(texts: Sequence[str] | pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all words of the texts, in order.

    Returns:
        hashes: uint64 [words].
        counts: int64 [texts], words a text.
    """
    data, bounds = text_column(texts)
    hashes, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for begin, end in pairwise([0, *_piece_ends(data, bounds)]):
        if begin < end:
            inner = bounds[np.searchsorted(bounds, begin) : np.searchsorted(bounds, end)]
            found, starts = _piece(data[begin:end], inner - begin)
            hashes.append(found)
            places.append(starts + begin)
    return np.concatenate(hashes), np.diff(np.searchsorted(np.concatenate(places), bounds))


def shingle_hashes(texts: Sequence[str] | pa.StringArray, shingle_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all shingles of the texts, in order, repeats included.

    A text of fewer than `shingle_words` words has one shingle of all its words; one without words has none.

    Returns:
        hashes: uint64 [shingles].
        counts: int64 [texts], shingles a text.
    """
    words, word_counts = word_hashes(texts)
    sums, padded = np.zeros(len(words), np.uint64), np.concatenate([words, np.zeros(shingle_words, np.uint64)])
    factors = powers(_SHINGLE_BASE, shingle_words)
    for offset, factor in enumerate(factors):
        sums += padded[offset : offset + len(words)] * factor

    filled = word_counts > 0
    ends = np.cumsum(word_counts)[filled]
    starts, sizes = ends - word_counts[filled], word_counts[filled]
    whole = np.ones(len(words), dtype=bool)  # from which words on a shingle is whole: not from the last ones of a text
    for offset in range(1, shingle_words):
        whole[np.maximum(ends - offset, starts)] = False
    whole[starts] = True
    short = sizes < shingle_words
    if short.any():
        heads, sizes = starts[short], sizes[short]
        sums[heads] = 0
        for offset, factor in enumerate(factors):
            there = sizes > offset
            sums[heads[there]] += words[heads[there] + offset] * factor
    counts = np.where(filled, np.maximum(word_counts - shingle_words + 1, 1), 0)
    return mix(sums[whole]), counts


def gram_hashes(words: np.ndarray, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """For every length up to `longest`: the hash of the words from each place on, as `shingle_hashes` gives it.

    Args:
        words: uint64 [words] of `word_hashes`. Texts are not kept apart, and past the end stand zeros: the caller leaves
            out what runs over.

    Yields:
        length, uint64 [words].
    """
    padded = np.concatenate([words, np.zeros(longest, np.uint64)])
    sums = np.zeros(len(words), dtype=np.uint64)
    for offset, factor in enumerate(powers(_SHINGLE_BASE, longest)):
        sums += padded[offset : offset + len(words)] * factor
        yield offset + 1, mix(sums)


def blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of texts of about `PIECE_BYTES` characters each, one text at least."""
    start = size = 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= PIECE_BYTES or index == len(texts) - 1:
            yield texts[start : index + 1]
            start, size = index + 1, 0
