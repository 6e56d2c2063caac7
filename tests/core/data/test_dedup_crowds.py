"""Crowds of equal and nearly equal documents: found whole, with work and memory that grow with the documents only."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.crowds import measured, search, write_case
from roberta_core.data import bands, similarity
from roberta_core.data.clusters import Clusters
from roberta_core.data.corpus import open_corpus
from roberta_core.data.dedup import deduplicate


def test_a_corpus_of_one_text(tmp_path):
    write_case(tmp_path, "identical", 20_000)
    found = search(tmp_path, "identical")
    assert found["kept"] == 1 and found["compared"] == 0
    found = search(tmp_path, "identical-near")
    assert found["kept"] == 1 and found["compared"] == 20_000 - 1


@pytest.mark.parametrize("kind", ["alike", "star"])
def test_variants_of_one_text_are_one_cluster_after_a_few_comparisons_each(tmp_path, kind):
    write_case(tmp_path, kind, 3000)
    found = search(tmp_path, kind)
    # not all pairs with the text in the middle reach the threshold, and each has a chance of 1 % to be missed
    assert found["kept"] <= 0.05 * 3000
    assert found["compared"] < 10 * 3000


def test_partitions_and_chunks_do_not_show(tmp_path, monkeypatch):
    write_case(tmp_path, "star", 300)
    write_case(tmp_path / "other", "different", 300)
    (tmp_path / "other" / "s").rename(tmp_path / "t")
    corpus = open_corpus(tmp_path, ["s", "t"])

    def verdict():
        return deduplicate(corpus, True, True, 0.8, 112, 5, 1, tmp_path)

    whole = verdict()
    monkeypatch.setattr(bands, "PARTITION_DOCUMENTS", 100)
    monkeypatch.setattr(similarity, "PAIRS_AT_ONCE", 100)
    monkeypatch.setattr(similarity, "CHUNK_PAIRS", 50)
    monkeypatch.setattr(similarity, "CHUNK_BYTES", 20_000)
    parts = verdict()
    np.testing.assert_array_equal(parts.kept_for, whole.kept_for)
    np.testing.assert_array_equal(parts.similarity, whole.similarity)
    assert 0 < whole.keep.sum() < 400 and whole.keep[300:].all()
    assert not list(tmp_path.glob(".bands-*"))


def test_a_chain_as_long_as_the_corpus_is_one_cluster():
    size = 200_000
    clusters = Clusters(size)
    order = np.random.default_rng(3).permutation(size - 1)
    for part in np.array_split(order, 10):
        clusters.unite(part, part + 1)
    assert not clusters.roots().any()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_documents_that_are_one(tmp_path: Path):
    found = measured("identical", 1_000_000, tmp_path)
    assert found["kept"] == 1 and found["anon_mb"] < 400


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_variants_of_one(tmp_path: Path):
    found = measured("star", 100_000, tmp_path)
    assert found["kept"] <= 0.05 * 100_000 and found["compared"] < 10 * 100_000 and found["anon_mb"] < 400


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_documents_that_have_nothing_in_common(tmp_path: Path):
    found = measured("different", 1_000_000, tmp_path)
    assert found["kept"] == 1_000_000 and found["compared"] < 1000 and found["anon_mb"] < 600
