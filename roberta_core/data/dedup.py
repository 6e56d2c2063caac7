"""Deduplication over all sources: exact by content hash, near by MinHash LSH with every candidate verified.

Documents are numbered in the order of preference (sources as in params, then parts, then rows). Bands of a signature
propose pairs; a pair counts when the true Jaccard similarity of the two texts' shingle sets reaches the threshold, so
the signatures decide only what is looked at. Pairs join into clusters, and of each cluster the first document stays.
Bands and rows are chosen so that a pair right at the threshold is proposed with a chance of 99 %.

Memory: per document 16 bytes for its hash, 1 byte for the verdict, and, one band at a time, 24 bytes for the band's
key and its order; per candidate pair 24 bytes. Signatures and texts stay in memory-mapped files: each band reads the
signatures once, and only the texts of candidates are read. Nothing is quadratic but the comparison of signatures
inside a group of documents that share a band and are not alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from roberta_core.data.corpus import Corpus, content_hashes, holding, read_rows
from roberta_core.data.documents import open_shard
from roberta_core.data.words import blocks, mix, powers, shingle_hashes
from roberta_core.executor import map_shards
from roberta_core.progress import Progress

RECALL_AT_THRESHOLD = 0.99
"""Chance that a pair exactly at the threshold is proposed by at least one band."""

PAIRS_A_CHUNK = 4096
"""Candidate pairs that one unit of work verifies."""

GATHERED = 1 << 16
"""Documents whose signatures are held at a time (29 MB at 112 hashes)."""

_KEY_BASE = np.uint64(0xA24BAED4963EE407)


# -- exact --------------------------------------------------------------------------------------------------------------


def first_of_equals(hashes: np.ndarray) -> np.ndarray:
    """For each row of `hashes` (uint64 [n, 2]) the number of the first row equal to it: int64 [n]."""
    order = np.lexsort((np.arange(len(hashes)), hashes[:, 1], hashes[:, 0]))
    fresh = np.ones(len(hashes), dtype=bool)
    fresh[1:] = (hashes[order][1:] != hashes[order][:-1]).any(axis=1)
    firsts = np.empty(len(hashes), dtype=np.int64)
    firsts[order] = order[np.flatnonzero(fresh)[np.cumsum(fresh) - 1]]
    return firsts


# -- near ---------------------------------------------------------------------------------------------------------------


def bands_and_rows(num_hashes: int, threshold: float, recall: float = RECALL_AT_THRESHOLD) -> tuple[int, int]:
    """Bands and rows a band: the most rows with which 1 - (1 - t^rows)^bands still reaches `recall` at t = threshold.

    More rows propose fewer unlike pairs. With the defaults, 112 and 0.8, it is 18 bands of 6 rows.
    """
    for rows in range(num_hashes, 1, -1):
        bands = num_hashes // rows
        if 1 - (1 - threshold**rows) ** bands >= recall:
            return bands, rows
    return num_hashes, 1


def _minhash(batch: pa.RecordBatch) -> np.ndarray:
    """A view of a batch's signatures: uint32 [rows, num_hashes], no copy."""
    column = batch.column("minhash")
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), -1)


def _signatures_of(corpus: Corpus, numbers: np.ndarray, num_hashes: int) -> np.ndarray:
    """Signatures of some documents (numbers ascending): uint32 [len(numbers), num_hashes]."""
    found = np.empty((len(numbers), num_hashes), dtype=np.uint32)
    for batch, rows, places in holding(corpus, corpus.signatures, numbers):
        found[places] = _minhash(batch)[rows]
    return found


def _band_keys(corpus: Corpus, band: int, rows: int) -> np.ndarray:
    """One band's key of every document: uint64 [documents]; 0 for a document without words."""
    keys = np.empty(corpus.size, dtype=np.uint64)
    factors = powers(_KEY_BASE, rows)
    for path, start in zip(corpus.signatures, corpus.starts):
        reader = open_shard(path)
        for index in range(reader.num_record_batches):
            picked = _minhash(reader.get_batch(index))[:, band * rows : (band + 1) * rows]
            key = mix((picked.astype(np.uint64) + np.uint64(1)) @ factors) | np.uint64(1)
            key[(picked == 0xFFFFFFFF).all(axis=1)] = 0
            keys[start : start + len(key)] = key
            start += len(key)
    return keys


def _groups(keys: np.ndarray, numbers: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Groups of two or more documents with one key, each ascending; some `GATHERED` documents at a time."""
    numbers = numbers[keys[numbers] != 0]
    order = numbers[np.argsort(keys[numbers], kind="stable")]
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    bounds = np.concatenate([[0], edges, [len(order)]])
    held: list[np.ndarray] = []
    size = 0
    for index in np.flatnonzero(np.diff(bounds) > 1):
        held.append(order[bounds[index] : bounds[index + 1]])
        size += len(held[-1])
        if size >= GATHERED:
            yield held
            held, size = [], 0
    if held:
        yield held


def _pairs_in(group: np.ndarray, signatures: np.ndarray, low: float, high: float) -> Iterator[tuple[int, int]]:
    """Candidate pairs of a group: each first document with those whose estimate is at least `low`.

    Documents that are surely like the first one (`high`) do not lead pairs of their own: the cluster needs one edge.
    """
    while len(group) > 1:
        estimate = (signatures[1:] == signatures[0]).mean(axis=1)
        for other in group[1:][estimate >= low]:
            yield int(group[0]), int(other)
        left = np.flatnonzero(estimate < high) + 1
        group, signatures = group[left], signatures[left]


def candidates(corpus: Corpus, numbers: np.ndarray, num_hashes: int, threshold: float) -> np.ndarray:
    """Pairs that share a band and whose signatures do not speak against them: int64 [pairs, 2], first < second, sorted.

    Args:
        numbers: the documents to compare, ascending.
    """
    bands, rows = bands_and_rows(num_hashes, threshold)
    deviation = float(np.sqrt(threshold * (1 - threshold) / num_hashes))
    low, high = threshold - 4 * deviation, min(threshold + 4 * deviation, 0.999)
    found: set[int] = set()
    progress = Progress("near-duplicates", bands, "bands")
    for band in range(bands):
        for groups in _groups(_band_keys(corpus, band, rows), numbers):
            members = np.unique(np.concatenate(groups))
            signatures = _signatures_of(corpus, members, num_hashes)
            for group in groups:
                for first, second in _pairs_in(group, signatures[np.searchsorted(members, group)], low, high):
                    found.add(first * corpus.size + second)
        progress.advance(1, f"{len(found)} candidate pairs")
    progress.finish(f"{len(found)} candidate pairs")
    encoded = np.sort(np.fromiter(found, dtype=np.int64, count=len(found)))
    return np.stack([encoded // max(corpus.size, 1), encoded % max(corpus.size, 1)], axis=1)


def shingle_sets(texts: Sequence[str], shingle_words: int) -> list[np.ndarray]:
    """The set of shingle hashes of each text: sorted uint64 arrays without repeats."""
    sets: list[np.ndarray] = []
    for block in blocks(texts):
        hashes, counts = shingle_hashes(block, shingle_words)
        sets += [np.unique(part) for part in np.split(hashes, np.cumsum(counts)[:-1])]
    return sets


def _jaccard_chunk(pairs: np.ndarray, corpus: Corpus, shingle_words: int) -> np.ndarray:
    """Jaccard similarities of pairs of documents: float64 [pairs]."""
    texts = read_rows(corpus, np.unique(pairs))
    sets = dict(zip(texts, shingle_sets(list(texts.values()), shingle_words)))
    result = np.empty(len(pairs))
    for index, (first, second) in enumerate(pairs):
        a, b = sets[int(first)], sets[int(second)]
        common = len(np.intersect1d(a, b, assume_unique=True))
        result[index] = common / max(len(a) + len(b) - common, 1)
    return result


def jaccard(corpus: Corpus, pairs: np.ndarray, shingle_words: int, workers: int) -> np.ndarray:
    """True Jaccard similarity of the shingle sets of each pair: float64 [pairs]. Texts are read from the clean parts."""
    chunks = [pairs[start : start + PAIRS_A_CHUNK] for start in range(0, len(pairs), PAIRS_A_CHUNK)]
    done = list(map_shards(partial(_jaccard_chunk, corpus=corpus, shingle_words=shingle_words), chunks, workers))
    return np.concatenate([np.zeros(0), *done])


# -- clusters -----------------------------------------------------------------------------------------------------------


def join(size: int, pairs: np.ndarray) -> np.ndarray:
    """Union-find: for each of `size` documents the smallest number in its cluster: int64 [size]."""
    parent = np.arange(size, dtype=np.int64)

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = int(parent[number])
        return number

    for first, second in pairs:
        a, b = root(int(first)), root(int(second))
        if a != b:
            parent[max(a, b)] = min(a, b)
    # A parent is never a larger number: following all of them until nothing moves flattens every chain.
    while (flat := parent[parent]).tobytes() != parent.tobytes():
        parent = flat
    return parent


@dataclass(frozen=True)
class Verdict:
    """What dedup decided, by document number.

    Attributes:
        kept_for: int64 [documents]; the document that stays for this one, itself where it stays.
        exact: bool [documents]; dropped for a document with the same text (the others that are dropped: near).
        similarity: float64 [documents]; Jaccard similarity to the one that stays, 1 where it is itself or equal.
        candidates: pairs proposed by the bands.
        confirmed: of these, pairs at or above the threshold.
    """

    kept_for: np.ndarray
    exact: np.ndarray
    similarity: np.ndarray
    candidates: int
    confirmed: int

    @property
    def keep(self) -> np.ndarray:
        """bool [documents]: who stays."""
        return self.kept_for == np.arange(len(self.kept_for))


def deduplicate(
    corpus: Corpus, exact: bool, near: bool, threshold: float, num_hashes: int, shingle_words: int, workers: int
) -> Verdict:
    """Finds exact and near duplicates. Of a cluster the first document stays; see the module's docstring.

    A cluster is transitive: a document may be dropped for one that it is like only through a third; `similarity` tells.
    """
    numbers = np.arange(corpus.size, dtype=np.int64)
    firsts = first_of_equals(content_hashes(corpus)) if exact else numbers
    roots = numbers
    proposed = confirmed = 0
    if near:
        pairs = candidates(corpus, numbers[firsts == numbers], num_hashes, threshold)
        alike = jaccard(corpus, pairs, shingle_words, workers) >= threshold
        proposed, confirmed = len(pairs), int(alike.sum())
        roots = join(corpus.size, pairs[alike])
    kept_for = roots[firsts]
    similarity = np.ones(corpus.size)
    dropped = np.flatnonzero((kept_for != numbers) & (kept_for != firsts))
    similarity[dropped] = jaccard(
        corpus, np.stack([kept_for[dropped], firsts[dropped]], axis=1), shingle_words, workers
    )
    return Verdict(kept_for, (firsts != numbers) & (kept_for == firsts), similarity, proposed, confirmed)
