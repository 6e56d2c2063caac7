"""How alike pairs of documents are: estimated from their signatures, and exactly, from their texts' shingles.

Both go pair by chunk of pairs, and read only the rows they need. Memory: `PAIRS_AT_ONCE` pairs of signatures (58 MB at 112
entries), or `CHUNK_BYTES` of text and as much again for its shingles, whatever the number of pairs.
"""

from functools import partial

import numpy as np
import pyarrow as pa

from roberta_core.data.bands import signatures_in
from roberta_core.data.corpus import Corpus, holding
from roberta_core.data.documents import text_bytes
from roberta_core.data.words import shingle_hashes
from roberta_core.executor import map_shards

PAIRS_AT_ONCE = 1 << 16
"""Pairs whose signatures are held at a time."""

SAMPLE = 256
"""Signatures that stand for those of a group."""

CHUNK_PAIRS, CHUNK_BYTES = 4096, 32 << 20
"""Pairs that one unit of work compares, and the text that it holds at a time (one pair may have more)."""


def estimates(corpus: Corpus, pairs: np.ndarray) -> np.ndarray:
    """Shares of entries in which the signatures of pairs (int64 [pairs, 2]) agree: float64 [pairs]."""
    result = np.empty(len(pairs))
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        chunk = pairs[start : start + PAIRS_AT_ONCE]
        numbers, places = np.unique(chunk, return_inverse=True)
        found: np.ndarray | None = None
        for batch, rows, where in holding(corpus, corpus.signatures, numbers):
            signatures = signatures_in(batch)
            if found is None:
                found = np.empty((len(numbers), signatures.shape[1]), signatures.dtype)
            found[where] = signatures[rows]
        first, second = places.reshape(-1, 2).T
        result[start : start + len(chunk)] = (found[first] == found[second]).mean(axis=1)
    return result


def central(corpus: Corpus, numbers: np.ndarray) -> int:
    """The place in `numbers` (ascending) of the document whose signature has most in common with those of the others.

    The others are a sample, seen as one signature: in each entry the middle one of the values, which is the most
    frequent one where more than half of them agree. Of several the first.
    """
    sample = numbers[:: len(numbers) // SAMPLE + 1]
    drawn = np.concatenate(
        [signatures_in(batch)[rows] for batch, rows, _ in holding(corpus, corpus.signatures, sample)]
    )
    middle = np.sort(drawn, axis=0)[len(drawn) // 2]
    agree = np.empty(len(numbers), np.int64)
    for batch, rows, where in holding(corpus, corpus.signatures, numbers):
        agree[where] = (signatures_in(batch)[rows] == middle).sum(axis=1)
    return int(agree.argmax())


def _shingle_set(hashes: np.ndarray) -> np.ndarray:
    hashes = np.sort(hashes)
    fresh = np.ones(len(hashes), dtype=bool)
    np.not_equal(hashes[1:], hashes[:-1], out=fresh[1:])
    return hashes[fresh]


def shingle_sets(texts: pa.StringArray, shingle_words: int) -> list[np.ndarray]:
    """The set of shingle hashes of each text: ascending uint64 arrays without repeats."""
    hashes, counts = shingle_hashes(texts, shingle_words)
    ends = np.cumsum(counts)
    return [_shingle_set(hashes[end - count : end]) for end, count in zip(ends.tolist(), counts.tolist())]


def _jaccard_chunk(pairs: np.ndarray, corpus: Corpus, shingle_words: int) -> np.ndarray:
    numbers, places = np.unique(pairs, return_inverse=True)
    held = list(holding(corpus, corpus.texts, numbers))
    size = sum(int(text_bytes(batch.column("text"))[rows].sum()) for batch, rows, _ in held)
    if size > CHUNK_BYTES and len(pairs) > 1:
        halves = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
        return np.concatenate([_jaccard_chunk(half, corpus, shingle_words) for half in halves])
    sets: list[np.ndarray] = []
    for batch, rows, _ in held:
        sets += shingle_sets(batch.column("text").take(pa.array(rows)), shingle_words)
    result = np.empty(len(pairs))
    for index, (first, second) in enumerate(places.reshape(-1, 2).tolist()):
        both = np.concatenate([sets[first], sets[second]])
        both.sort()
        common = np.count_nonzero(both[1:] == both[:-1])
        result[index] = common / max(len(both) - common, 1)
    return result


def jaccard(corpus: Corpus, pairs: np.ndarray, shingle_words: int, workers: int) -> np.ndarray:
    """True Jaccard similarity of the shingle sets of each pair (int64 [pairs, 2]): float64 [pairs]. Texts without words: 0."""
    chunks = [pairs[start : start + CHUNK_PAIRS] for start in range(0, len(pairs), CHUNK_PAIRS)]
    compare = partial(_jaccard_chunk, corpus=corpus, shingle_words=shingle_words)
    return np.concatenate([np.zeros(0), *map_shards(compare, chunks, workers)])
