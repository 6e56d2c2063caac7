"""Deduplication against brute force, on planted near-duplicates, and on real articles with a known truth."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.data.bands import bands_and_rows
from roberta_core.data.cleaning import Rules, clean_shard
from roberta_core.data.clusters import join
from roberta_core.data.corpus import open_corpus, read_rows
from roberta_core.data.dedup import NearSearch, Verdict, deduplicate, first_of_equals
from roberta_core.data.documents import Document, doc_id, shard_paths, write_shards
from roberta_core.data.minhash import MinHasher
from roberta_core.errors import BadInput

NEARDUP = Path(__file__).parents[3].parent / "shared" / "data" / "neardup"


def clean_folder(folder: Path, source: str, texts: list[str], part_mb: float = 0.05, shingle_words: int = 5) -> None:
    """Writes texts as a clean source in several parts."""
    raw = folder / f"raw-{source}"
    write_shards((Document(text, source, doc_id(source, text)) for text in texts), raw, part_mb)
    (folder / source).mkdir()
    for part in shard_paths(raw):
        clean_shard(part, folder / source, Rules(0, 1, 0, 1e9, 1), MinHasher(112, shingle_words))


def verdict_on(folder: Path, *sources: str, threshold: float = 0.8, exact=True, near=True, shingle_words=5) -> Verdict:
    return deduplicate(open_corpus(folder, sources), exact, near, threshold, 112, shingle_words, workers=1)


def shingle_set(text: str, words: int = 5) -> set:
    found = re.findall(r"[^\W_]+", text.lower())
    return {tuple(found[i : i + words]) for i in range(max(1, len(found) - words + 1))}


def similarity(one: set, two: set) -> float:
    return len(one & two) / len(one | two)


def planted(count: int, seed: int) -> list[str]:
    """Random articles, and noised copies of half of them with 1 to 12 words changed."""
    draw = np.random.default_rng(seed)
    vocabulary = np.array([f"w{n}" for n in range(3000)])
    texts = []
    for _ in range(count):
        words = draw.choice(vocabulary, draw.integers(60, 200))
        texts.append(" ".join(words))
        for _ in range(draw.integers(0, 3)):
            other = words.copy()
            other[draw.integers(0, len(other), draw.integers(1, 12))] = "changed"
            texts.append(" ".join(other))
    return [texts[place] for place in draw.permutation(len(texts))]


def test_planted_near_duplicates_against_brute_force(tmp_path):
    texts = planted(150, seed=3)
    clean_folder(tmp_path, "s", texts)
    corpus = open_corpus(tmp_path, ["s"])
    assert len(corpus.texts) > 2
    sets = [shingle_set(text) for text in texts]
    true = {pair for pair in combinations(range(len(texts)), 2) if similarity(sets[pair[0]], sets[pair[1]]) >= 0.8}
    search = NearSearch(corpus, np.ones(len(texts), bool), 0.8, 112, 5, workers=1)
    search.run()
    pairs = [divmod(code, len(texts)) for code in search.compared.codes.tolist()]
    expected_similarity = [similarity(sets[a], sets[b]) for a, b in pairs]
    np.testing.assert_allclose(search.compared.similarity, expected_similarity, atol=1e-12)

    expected = join(len(texts), np.array(sorted(true)))
    verdict = verdict_on(tmp_path, "s")
    gone, should_go = set(np.flatnonzero(~verdict.keep)), set(np.flatnonzero(expected != np.arange(len(texts))))
    assert len(should_go) > 40
    assert len(gone & should_go) / len(should_go) >= 0.95 and len(gone & should_go) / len(gone) >= 0.99


@pytest.mark.skipif(not NEARDUP.is_dir(), reason="the real articles are not here")
def test_real_articles_with_a_known_truth(tmp_path):
    lines = [line.split(" ", 1) for line in (NEARDUP / "articles_1000.train").read_text(encoding="utf8").splitlines()]
    truth = {frozenset(line.split()) for line in (NEARDUP / "articles_1000.truth").read_text().splitlines()}
    names, texts = [name for name, _ in lines], [text for _, text in lines]
    clean_folder(tmp_path, "s", texts, part_mb=0.5)
    verdict = verdict_on(tmp_path, "s", threshold=0.5)
    found = {frozenset((names[number], names[verdict.kept_for[number]])) for number in np.flatnonzero(~verdict.keep)}
    assert found == truth

    sets = [shingle_set(text) for text in texts]
    for number in np.flatnonzero(~verdict.keep):
        assert verdict.similarity[number] == pytest.approx(
            similarity(sets[number], sets[verdict.kept_for[number]]), abs=1e-12
        )


def test_the_first_source_wins_and_the_order_is_the_one_asked_for(tmp_path):
    texts = [" ".join(f"word{start * 100 + n}" for n in range(50)) for start in range(20)]
    clean_folder(tmp_path, "a", [*texts, texts[0]])
    clean_folder(tmp_path, "b", [texts[3], "Only here, and short.", texts[5] + " end"])
    corpus = open_corpus(tmp_path, ["a", "b"])
    first = verdict_on(tmp_path, "a", "b")
    assert first.keep[corpus.rows_of("b")].tolist() == [False, True, False]
    assert first.exact[corpus.rows_of("b")].tolist() == [True, False, False] and not first.keep[20]
    turned = verdict_on(tmp_path, "b", "a")
    assert turned.keep[:3].all() and (~turned.keep).sum() == (~first.keep).sum()


def test_exact_and_near_can_be_switched_off(tmp_path):
    base = " ".join(f"word{n}" for n in range(100))
    clean_folder(tmp_path, "s", [base, base, base + " end", "!!! ???", "!!! ???", "...", "-- --"])
    assert verdict_on(tmp_path, "s").keep.tolist() == [True, False, False, True, False, True, True]
    assert verdict_on(tmp_path, "s", near=False).keep.tolist() == [True, False, True, True, False, True, True]
    assert verdict_on(tmp_path, "s", exact=False).keep.tolist() == [True, False, False, True, True, True, True]
    assert verdict_on(tmp_path, "s", exact=False, near=False).keep.all()


def test_a_copy_of_a_near_duplicate_is_told_as_near(tmp_path):
    base = " ".join(f"word{n}" for n in range(100))
    clean_folder(tmp_path, "s", [base, base + " end", base + " end"])
    verdict = verdict_on(tmp_path, "s")
    assert verdict.kept_for.tolist() == [0, 0, 0] and not verdict.exact.any()
    assert verdict.similarity.tolist() == pytest.approx([1, 96 / 97, 96 / 97])


def test_many_alike_in_one_band_are_found_without_comparing_all(tmp_path):
    base = [f"word{n}" for n in range(200)]
    clean_folder(tmp_path, "s", [" ".join([*base, str(n)]) for n in range(400)])
    verdict = verdict_on(tmp_path, "s")
    assert verdict.keep.sum() == 1 and verdict.keep[0]
    assert verdict.candidates < 5000


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_reach_their_recall_at_the_threshold(threshold):
    bands, rows = bands_and_rows(112, threshold)
    assert bands * rows <= 112 and 1 - (1 - threshold**rows) ** bands >= 0.99


def test_a_threshold_of_one_keeps_all_but_equal_sets(tmp_path):
    base = " ".join(f"word{n}" for n in range(100))
    clean_folder(tmp_path, "s", [base, base.upper(), base + " end"])
    assert verdict_on(tmp_path, "s", threshold=1.0).keep.tolist() == [True, False, True]


def naive_clusters(size: int, pairs) -> list[int]:
    label = list(range(size))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            low = min(label[a], label[b])
            if label[a] != low or label[b] != low:
                label[a] = label[b] = low
                changed = True
    return label


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_join_gives_the_first_of_each_cluster_whatever_the_order_of_pairs(case):
    size, pairs = case
    expected = naive_clusters(size, pairs)
    assert join(size, np.array(pairs, dtype=np.int64).reshape(-1, 2)).tolist() == expected
    assert join(size, np.array(pairs[::-1], dtype=np.int64).reshape(-1, 2)).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=0, max_size=40))
def test_first_of_equals(rows):
    found = first_of_equals(np.array(rows, dtype=np.uint64).reshape(-1, 2))
    assert found.tolist() == [rows.index(row) for row in rows]


def test_read_rows_over_parts_and_batches(tmp_path):
    texts = [f"text number {n} " * 30 for n in range(3000)]
    clean_folder(tmp_path, "s", texts, part_mb=0.7)
    corpus = open_corpus(tmp_path, ["s"])
    wanted = [2999, 0, 5, 5, 1023, 1024, 1500]
    assert read_rows(corpus, wanted) == {number: texts[number].strip() for number in wanted}


def test_signatures_that_do_not_match_are_refused(tmp_path):
    clean_folder(tmp_path, "s", ["one two three", "four five six"])
    clean_folder(tmp_path, "t", ["one two three"])
    (tmp_path / "t" / "signatures-00000.arrow").replace(tmp_path / "s" / "signatures-00000.arrow")
    with pytest.raises(BadInput, match="do not match"):
        open_corpus(tmp_path, ["s"])
