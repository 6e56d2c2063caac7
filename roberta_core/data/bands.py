"""Locality-sensitive hashing: documents whose signatures agree in a whole band, found out of core.

One pass over the signatures, a part of the corpus a unit of work, writes the keys of all bands to files: 8 bytes a band
and document. Then band by band the documents with equal keys are brought together; where there are more than
`PARTITION_DOCUMENTS`, in several passes over the band's keys, each for the keys with one remainder. Memory: 24 bytes for
each document of a partition, whatever the size of the corpus.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from roberta_core.data.corpus import Corpus
from roberta_core.data.documents import open_shard
from roberta_core.data.minhash import EMPTY
from roberta_core.data.words import mix, powers
from roberta_core.executor import map_shards

RECALL_AT_THRESHOLD = 0.99
"""Chance that a pair exactly at the threshold is proposed by at least one band."""

PARTITION_DOCUMENTS = 1 << 23
"""Documents whose keys are brought together at a time: 200 MB."""

FEW_DOCUMENTS = 1 << 18
"""Up to here the keys are made in this process: in the half second that it takes, workers have hardly begun."""

_KEY_BASE = np.uint64(0xA24BAED4963EE407)


def bands_and_rows(num_hashes: int, threshold: float, recall: float = RECALL_AT_THRESHOLD) -> tuple[int, int]:
    """Bands and rows a band: the most rows with which 1 - (1 - t^rows)^bands still reaches `recall` at t = threshold.

    More rows propose fewer unlike pairs. With the defaults, 112 and 0.8, it is 18 bands of 6 rows.
    """
    for rows in range(num_hashes, 1, -1):
        bands = num_hashes // rows
        if 1 - (1 - threshold**rows) ** bands >= recall:
            return bands, rows
    return num_hashes, 1


def signatures_in(batch: pa.RecordBatch) -> np.ndarray:
    """A view of a batch's signatures: uint32 [rows, num_hashes], no copy."""
    column = batch.column("minhash")
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), -1)


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Keys of all bands: uint64 [bands, documents], contiguous by band; 0 for a document without words."""
    picked = signatures[:, : bands * rows].reshape(len(signatures), bands, rows)
    keys = np.zeros((len(signatures), bands), np.uint64)
    for row, factor in enumerate(powers(_KEY_BASE, rows)):
        keys += (picked[:, :, row].astype(np.uint64) + np.uint64(1)) * factor
    keys = mix(keys) | np.uint64(1)
    keys[(signatures == EMPTY).all(axis=1)] = 0
    return np.ascontiguousarray(keys.T)


def _part_keys(work: tuple[int, Path], folder: Path, bands: int, rows: int) -> None:
    """Writes the keys of one part's documents: uint64 [bands, documents], and nothing else."""
    part, path = work
    reader = open_shard(path)
    keys = [
        band_keys(signatures_in(reader.get_batch(index)), bands, rows) for index in range(reader.num_record_batches)
    ]
    np.concatenate([np.zeros((bands, 0), np.uint64), *keys], axis=1).tofile(folder / f"{part:06d}.keys")


class Bands:
    """The keys of all bands of a corpus, in files under `folder`.

    Args:
        chosen: bool [documents]; the others are left out.
    """

    def __init__(
        self, corpus: Corpus, num_hashes: int, threshold: float, chosen: np.ndarray, folder: Path, workers: int
    ):
        self.count, rows = bands_and_rows(num_hashes, threshold)
        self._chosen, self._starts = chosen, corpus.starts
        write = partial(_part_keys, folder=folder, bands=self.count, rows=rows)
        parts = enumerate(corpus.signatures)
        for _ in map(write, parts) if corpus.size <= FEW_DOCUMENTS else map_shards(write, parts, workers):
            pass
        self._files = [folder / f"{part:06d}.keys" for part in range(len(corpus.signatures))]
        self.partitions = int(chosen.sum()) // PARTITION_DOCUMENTS + 1

    def groups(self, band: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Groups of two or more documents with one key, a partition at a time.

        Yields:
            members: int64 [members], group after group, each ascending.
            starts: int64 [groups], the place of each group's first member.
        """
        for partition in range(self.partitions):
            keys, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
            for file, start, stop in zip(self._files, self._starts, self._starts[1:]):
                rows = int(stop - start)
                mine = np.fromfile(file, np.uint64, count=rows, offset=band * rows * 8)
                wanted = self._chosen[start:stop] & (mine != 0)
                if self.partitions > 1:
                    wanted &= (mine >> np.uint64(1)) % np.uint64(self.partitions) == partition  # the last bit is set
                chosen = np.flatnonzero(wanted)
                keys.append(mine[chosen])
                numbers.append(chosen + int(start))
            yield grouped(np.concatenate(keys), np.concatenate(numbers))


def grouped(keys: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `Bands.groups`, of keys and the documents that have them."""
    order = np.argsort(keys)  # not stable, and five times as fast for it; groups are few, and sorted below
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    edge = np.concatenate([[False], same, [False]])
    inside = edge[1:] | edge[:-1]
    numbers, keys = numbers[order[inside]], keys[inside]
    by_key = np.lexsort((numbers, keys))
    numbers, keys = numbers[by_key], keys[by_key]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = keys[1:] != keys[:-1]
    return numbers, np.flatnonzero(fresh)
