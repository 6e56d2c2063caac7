"""MinHash signatures of whole batches of texts, in numpy from bytes to minima.

Two documents agree in one entry of their signatures with the probability that is the Jaccard similarity of their sets
of shingles (Broder 1997). A shingle is `shingle_words` consecutive words, lower-cased, punctuation left out; in scripts
without spaces between words (`UNSPACED`) a character counts as a word. A batch's texts are joined and hashed as one
array of bytes: words by a polynomial over their bytes, shingles by one over their words, in uint64 with wrap-around.
So no Python loop touches a word, and the hashes are the same on every machine and in every process. Price: 4 bytes an
entry and document (448 at 112), and arrays of some 60 bytes for each byte of the block of texts under way.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

BLOCK_BYTES = 1 << 18
"""Text that is hashed at a time: its arrays stay in the cache of a core."""

BLOCK_SHINGLES = 1 << 14
"""Shingles that the hash functions run over at a time: 64 kB of uint32."""

_SEED = 0x5EED_0F_11A5
_WORD_BASE = np.uint64(0x9E3779B97F4A7C15)
_SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Odd multipliers: the golden ratio's, and those of splitmix64 (Steele et al. 2014)."""

# Punctuation and symbols beyond ASCII: they become spaces.
_PUNCTUATION = re.compile(
    r"[\u00a0-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7\u2000-\u200b\u200e-\u2064\u2190-\u2bff\u3000-\u3004\u3008-\u3020\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufffd]"
)
UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f])"
)
"""Characters of scripts that put no spaces between words (Thai, Lao, Burmese, Khmer, Chinese, Japanese), and Hangul."""

_IS_WORD = np.zeros(256, dtype=bool)
_IS_WORD[[code for code in range(128) if chr(code).isalnum()]] = True
_IS_WORD[128:] = True


def powers(base: np.uint64, count: int) -> np.ndarray:
    """base^1 … base^count modulo 2^64: uint64 [count]."""
    with np.errstate(over="ignore"):
        return np.multiply.accumulate(np.full(count, base, dtype=np.uint64))


_WORD_POWERS = powers(_WORD_BASE, 1 << 10)


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: spreads every bit of uint64 `values` over all others."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def words_of(text: str) -> bytes:
    """The text as the hasher sees it: lower case, words apart by bytes that are neither ASCII letters nor digits."""
    text = text.lower()
    if not text.isascii():
        text = UNSPACED.sub(r" \1 ", _PUNCTUATION.sub(" ", text))
    return text.encode("utf8")


WORD = re.compile(
    f"{UNSPACED.pattern}|(?:[0-9A-Za-z]|[^\x00-\x7f{_PUNCTUATION.pattern[1:-1]}{UNSPACED.pattern[2:-2]}])+"
)
"""The same words as `word_hashes` sees, found in the text as it stands: for the few texts where places are asked for."""


def word_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all words of the texts, in order.

    Returns:
        hashes: uint64 [words].
        counts: int64 [texts], words a text.
    """
    encoded = [words_of(text) for text in texts]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    data = np.frombuffer(b"\n".join([*encoded, b"\n"]), dtype=np.uint8)
    starts_of_text = np.concatenate([[0], np.cumsum(lengths + 1)])[:-1]

    inside = _IS_WORD[data]
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    if inside[0]:
        edges = np.concatenate([[0], edges])
    starts, ends = edges[::2], edges[1::2]  # data ends outside a word, so edges come in pairs
    if not len(starts):
        return np.zeros(0, np.uint64), np.zeros(len(texts), np.int64)
    sizes = ends - starts

    # Each word: sum of (byte + 1) * base^(place in word), as differences of one running sum.
    place = np.arange(len(data)) - np.repeat(
        np.concatenate([[0], starts]), np.diff(np.concatenate([[0], starts, [len(data)]]))
    )
    terms = (data.astype(np.uint64) + np.uint64(1)) * _WORD_POWERS[place & (len(_WORD_POWERS) - 1)]
    terms[~inside] = 0
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    words = mix((running[ends] - running[starts]) + sizes.astype(np.uint64))
    return words, np.diff(np.searchsorted(starts, np.concatenate([starts_of_text, [len(data)]])))


def shingle_hashes(texts: Sequence[str], shingle_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all shingles of the texts, in order, repeats included.

    A text of fewer than `shingle_words` words has one shingle of all its words; one without words has none.

    Returns:
        hashes: uint64 [shingles].
        counts: int64 [texts], shingles a text.
    """
    words, word_counts = word_hashes(texts)
    counts = np.where(word_counts > 0, np.maximum(word_counts - shingle_words + 1, 1), 0)
    first_words = np.cumsum(word_counts) - word_counts
    first_shingles = np.cumsum(counts) - counts
    heads = np.arange(counts.sum()) + np.repeat(first_words - first_shingles, counts)

    padded = np.concatenate([words, np.zeros(shingle_words, np.uint64)])
    factors = powers(_SHINGLE_BASE, shingle_words)
    sums = np.zeros(len(heads), dtype=np.uint64)
    short = np.repeat(word_counts, counts)  # only texts shorter than a shingle end before its last word
    limited = bool((word_counts < shingle_words).any())
    for offset in range(shingle_words):
        term = padded[heads + offset] * factors[offset]
        if limited:
            term[short <= offset] = 0
        sums += term
    return mix(sums), counts


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


class MinHasher:
    """Signatures of batches of texts: `hasher(texts)` gives uint32 [texts, num_hashes].

    The hash functions are x -> a*x + b modulo 2^32 over the folded shingle hash, a odd; a and b come from a fixed
    seed. A text without words has a signature of all ones bits.
    """

    def __init__(self, num_hashes: int = 112, shingle_words: int = 5):
        self.num_hashes, self.shingle_words = num_hashes, shingle_words
        drawn = mix(np.arange(1, 2 * num_hashes + 1, dtype=np.uint64) * _WORD_BASE + np.uint64(_SEED)).astype(
            np.uint32
        )
        self._factors, self._offsets = drawn[:num_hashes] | np.uint32(1), drawn[num_hashes:]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        signatures = np.full((len(texts), self.num_hashes), 0xFFFFFFFF, dtype=np.uint32)
        start = size = 0
        for index, text in enumerate(texts):
            size += len(text)
            if size >= BLOCK_BYTES or index == len(texts) - 1:
                self._block(texts[start : index + 1], signatures[start : index + 1])
                start, size = index + 1, 0
        return signatures

    def _block(self, texts: Sequence[str], out: np.ndarray) -> None:
        hashes, counts = shingle_hashes(texts, self.shingle_words)
        folded = (hashes ^ (hashes >> np.uint64(32))).astype(np.uint32)
        rows = np.flatnonzero(counts)
        ends = np.cumsum(counts[rows])
        begin = 0
        while begin < len(rows):
            first = int(ends[begin - 1]) if begin else 0
            stop = max(int(np.searchsorted(ends, first + BLOCK_SHINGLES, side="right")), begin + 1)
            block = folded[first : ends[stop - 1]]
            segments = np.concatenate([[0], ends[begin : stop - 1] - first]).astype(np.intp)
            hashed = np.empty_like(block)
            minima = np.empty((self.num_hashes, stop - begin), dtype=np.uint32)
            for number in range(self.num_hashes):
                np.multiply(block, self._factors[number], out=hashed)
                np.add(hashed, self._offsets[number], out=hashed)
                np.minimum.reduceat(hashed, segments, out=minima[number])
            out[rows[begin:stop]] = minima.T
            begin = stop
