"""Deduplication over all sources: exact by content hash, near by MinHash LSH with every candidate verified.

Documents are numbered in the order of preference (sources as in params, then parts, then rows). Bands of a signature
propose pairs (`bands`); a pair counts when the true Jaccard similarity of the two texts' shingle sets reaches the
threshold (`similarity`), so the signatures decide only what is looked at. Pairs join into clusters (`clusters`), and of
each cluster the first document stays.

A group of documents that share a band is compared by leaders: its first document with all others, then the second with
those that are left, and so on; pairs that are in one cluster already are passed over. In a group of more than `SMALL`
documents the one in its middle leads (`similarity.central`), those that joined its cluster are left out of the following
rounds, and the group is left to the other bands when few of the texts that a leader was compared with are like it. So the
work is linear in the documents, also where a million of them are alike.

Memory: per document 16 bytes for its hash, 8 for its cluster and 2 for marks, and what `bands` and `similarity` say;
per candidate pair 16. Signatures and texts stay in memory-mapped files; only the texts of candidates are read.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from roberta_core.data.bands import Bands
from roberta_core.data.clusters import Clusters
from roberta_core.data.corpus import Corpus, content_hashes
from roberta_core.data.similarity import central, estimates, jaccard
from roberta_core.progress import Progress

SMALL = 64
"""Groups of at most this size are compared in full."""

LEADERS = 64
"""Documents of a larger group that are compared with the rest of it, in each band, at most."""

FRUITFUL = 1 / 16
"""Share of the texts that a leader of a larger group must be like for the group to have another."""


def first_of_equals(hashes: np.ndarray) -> np.ndarray:
    """For each row of `hashes` (uint64 [n, 2]) the number of the first row equal to it: int64 [n]."""
    order = np.lexsort((np.arange(len(hashes)), hashes[:, 1], hashes[:, 0]))
    fresh = np.ones(len(hashes), dtype=bool)
    fresh[1:] = (hashes[order][1:] != hashes[order][:-1]).any(axis=1)
    firsts = np.empty(len(hashes), dtype=np.int64)
    firsts[order] = order[np.flatnonzero(fresh)[np.cumsum(fresh) - 1]]
    return firsts


# -- near ---------------------------------------------------------------------------------------------------------------


@dataclass
class Pairs:
    """Pairs of documents that were compared: codes (`first * size + second`), ascending, and their similarities."""

    size: int
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    similarity: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def code(self, pairs: np.ndarray) -> np.ndarray:
        """The codes of pairs (int64 [pairs, 2], first < second)."""
        return pairs[:, 0] * self.size + pairs[:, 1]

    def add(self, pairs: np.ndarray, similarity: np.ndarray) -> None:
        """Takes in pairs that are not here yet."""
        codes = np.concatenate([self.codes, self.code(pairs)])
        order = np.argsort(codes, kind="stable")
        self.codes, self.similarity = codes[order], np.concatenate([self.similarity, similarity])[order]

    def look_up(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each pair is here (bool), and its similarity (NaN where it is not)."""
        if not len(self.codes):
            return np.zeros(len(pairs), bool), np.full(len(pairs), np.nan)
        codes = self.code(pairs)
        places = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        known = self.codes[places] == codes
        return known, np.where(known, self.similarity[places], np.nan)


class NearSearch:
    """Clusters of near-duplicates among the documents of a corpus. `run` fills `clusters` and `compared`.

    Args:
        chosen: bool [documents]; only these are compared.
        folder: where temporary files may lie.
    """

    def __init__(
        self,
        corpus: Corpus,
        chosen: np.ndarray,
        threshold: float,
        num_hashes: int,
        shingle_words: int,
        workers: int,
        folder: Path | None = None,
    ):
        self.corpus, self.chosen, self.threshold = corpus, chosen, threshold
        self.num_hashes, self.shingle_words, self.workers, self.folder = num_hashes, shingle_words, workers, folder
        # An estimate has a binomial error: below `low` a pair is surely unlike, from `high` on surely alike.
        deviation = float(np.sqrt(threshold * (1 - threshold) / num_hashes))
        self.low, self.high = threshold - 4 * deviation, min(threshold + 4 * deviation, 0.999)
        self.clusters = Clusters(corpus.size)
        self.compared = Pairs(corpus.size)
        self.left_alone = 0

    def run(self) -> None:
        """Goes through all bands."""
        with tempfile.TemporaryDirectory(prefix=".bands-", dir=self.folder) as temporary:
            bands = Bands(self.corpus, self.num_hashes, self.threshold, self.chosen, Path(temporary), self.workers)
            progress = Progress("near-duplicates", bands.count, "bands")
            for band in range(bands.count):
                for members, starts in bands.groups(band):
                    self._search(members, starts)
                progress.advance(1, f"{len(self.compared.codes)} pairs compared")
            progress.finish(
                f"{len(self.compared.codes)} pairs compared"
                + (f", {self.left_alone} crowded groups not in full" if self.left_alone else "")
            )

    def _search(self, members: np.ndarray, starts: np.ndarray) -> None:
        """Compares the groups of one band; arguments as `Bands.groups` yields them."""
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(members)))
        crowded = np.bincount(group, minlength=len(starts)) > SMALL  # by group, as are the next two
        likely_pairs, alike_pairs = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int64)
        new_pairs, new_similarity = [], []
        for _ in range(LEADERS):
            fruitless = crowded & (likely_pairs > SMALL) & (alike_pairs < FRUITFUL * likely_pairs)
            members, group = self._unsettled(members, group, fruitless)
            if not len(members):
                break
            places = self._leaders(members, group, crowded)
            leads = np.zeros(len(members), dtype=bool)
            leads[places] = True
            leaders = members[places[np.cumsum(np.diff(group, prepend=-1) > 0) - 1]]
            asked = np.flatnonzero(~leads & (self.clusters.find(leaders) != self.clusters.find(members)))
            pairs = np.sort(np.stack([leaders[asked], members[asked]], axis=1), axis=1)
            fresh = ~self.compared.look_up(pairs)[0]
            asked, pairs = asked[fresh], pairs[fresh]
            estimate = estimates(self.corpus, pairs)
            likely = estimate >= self.low
            similarity = jaccard(self.corpus, pairs[likely], self.shingle_words, self.workers)
            alike = similarity >= self.threshold
            self.clusters.unite(*pairs[likely][alike].T)
            new_pairs.append(pairs[likely])
            new_similarity.append(similarity)
            likely_pairs = np.bincount(group[asked[likely]], minlength=len(starts))
            alike_pairs = np.bincount(group[asked[likely][alike]], minlength=len(starts))
            stays = ~leads
            stays[asked[estimate >= self.high]] = False
            stays &= ~(crowded[group] & (self.clusters.find(leaders) == self.clusters.find(members)))
            members, group = members[stays], group[stays]
        else:
            self.left_alone += len(np.unique(group))
        if new_pairs:  # within a band a pair comes once
            self.compared.add(np.concatenate(new_pairs), np.concatenate(new_similarity))

    def _leaders(self, members: np.ndarray, group: np.ndarray, crowded: np.ndarray) -> np.ndarray:
        """The place of each group's leader in `members`."""
        places = np.flatnonzero(np.diff(group, prepend=-1))
        ends = np.append(places[1:], len(members))
        for index in np.flatnonzero(crowded[group[places]]):
            places[index] += central(self.corpus, members[places[index] : ends[index]])
        return places

    def _unsettled(
        self, members: np.ndarray, group: np.ndarray, fruitless: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Without the groups whose documents are all in one cluster, those of one document among them, and those that
        are left alone: `fruitless`, bool [groups]."""
        if not len(members):
            return members, group
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        roots = self.clusters.find(members)
        done = np.minimum.reduceat(roots, starts) == np.maximum.reduceat(roots, starts)
        self.left_alone += int((fruitless[group[starts]] & ~done).sum())
        left = ~np.repeat(done | fruitless[group[starts]], np.diff(starts, append=len(members)))
        return members[left], group[left]


# -- verdict ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What dedup decided, by document number.

    Attributes:
        kept_for: int64 [documents]; the document that stays for this one, itself where it stays.
        exact: bool [documents]; dropped for a document with the same text (the others that are dropped: near).
        similarity: float64 [documents]; Jaccard similarity to the one that stays, 1 where it is itself or equal.
        candidates: pairs whose texts were compared.
        confirmed: of these, pairs at or above the threshold.
        left_alone: groups too crowded to be compared in full.
    """

    kept_for: np.ndarray
    exact: np.ndarray
    similarity: np.ndarray
    candidates: int
    confirmed: int
    left_alone: int

    @property
    def keep(self) -> np.ndarray:
        """bool [documents]: who stays."""
        return self.kept_for == np.arange(len(self.kept_for))


def deduplicate(
    corpus: Corpus,
    exact: bool,
    near: bool,
    threshold: float,
    num_hashes: int,
    shingle_words: int,
    workers: int,
    folder: Path | None = None,
) -> Verdict:
    """Finds exact and near duplicates. Of a cluster the first document stays; see the module's docstring.

    A cluster is transitive: a document may be dropped for one that it is like only through a third; `similarity` tells.

    Args:
        folder: where temporary files may lie (8 bytes a band and document); None: the system's place for them.
    """
    numbers = np.arange(corpus.size, dtype=np.int64)
    firsts = first_of_equals(content_hashes(corpus)) if exact else numbers
    search = NearSearch(corpus, firsts == numbers, threshold, num_hashes, shingle_words, workers, folder)
    if near:
        search.run()
    kept_for = search.clusters.roots()[firsts]
    similarity = np.ones(corpus.size)
    dropped = np.flatnonzero((kept_for != numbers) & (kept_for != firsts))
    pairs = np.stack([kept_for[dropped], firsts[dropped]], axis=1)
    known, similarity[dropped] = search.compared.look_up(pairs)
    similarity[dropped[~known]] = jaccard(corpus, pairs[~known], shingle_words, workers)
    confirmed = int((search.compared.similarity >= threshold).sum())
    return Verdict(
        kept_for,
        (firsts != numbers) & (kept_for == firsts),
        similarity,
        len(search.compared.codes),
        confirmed,
        search.left_alone,
    )
