"""MinHash: shingles as defined, estimates with the right error, the same for every batch, place and process."""

import re
import subprocess
import sys
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.data.minhash import MinHasher
from roberta_core.data.words import WORD, shingle_hashes, word_hashes


def shingles(text: str, words: int = 5) -> list[tuple[str, ...]]:
    """The definition, for ASCII texts."""
    found = re.findall(r"[a-z0-9]+", text.lower())
    return [tuple(found[i : i + words]) for i in range(max(len(found) - words + 1, min(len(found), 1)))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("abAB1 .,\n-"), max_size=80), min_size=1, max_size=8), st.integers(1, 6))
def test_hashes_are_equal_just_where_shingles_are(texts, words):
    hashes, counts = shingle_hashes(texts, words)
    defined = [shingle for text in texts for shingle in shingles(text, words)]
    assert counts.tolist() == [len(shingles(text, words)) for text in texts]
    # One to one: as many distinct pairs as distinct hashes as distinct shingles.
    assert len(set(zip(hashes.tolist(), defined))) == len(set(hashes.tolist())) == len(set(defined))


def test_a_signature_does_not_depend_on_its_batch():
    texts = [f"document {n} " + " ".join(str(n * k % 97) for k in range(n)) for n in range(120)] + [
        "",
        "...",
        "long " * 30000,
    ]
    hasher = MinHasher(64, 5)
    together = hasher(texts)
    np.testing.assert_array_equal(together, np.concatenate([hasher([text]) for text in texts]))
    assert (together[-3:-1] == 0xFFFFFFFF).all() and not (together[:-3] == 0xFFFFFFFF).all(axis=1).any()


def test_pieces_do_not_show(monkeypatch):
    texts = [f"{n} " * (n % 50 + 1) + "some words, très peu, that go on" + "for" * (n % 7) for n in range(200)]
    texts += ["白馬寺泰國風格佛殿" * 60, "", "…", "Привет, как дела? " * 40, "end"]
    whole, words = MinHasher(32, 3)(texts), word_hashes(texts)
    monkeypatch.setattr("roberta_core.data.words.PIECE_BYTES", 70)
    monkeypatch.setattr("roberta_core.data.minhash.PIECE_BYTES", 300)
    np.testing.assert_array_equal(whole, MinHasher(32, 3)(texts))
    np.testing.assert_array_equal(words[0], word_hashes(texts)[0])
    np.testing.assert_array_equal(words[1], word_hashes(texts)[1])


def test_a_slice_of_a_column_is_read_as_such():
    texts = ["zero words", "", "один два три четыре", "3 three", "", "五五五"]
    column = pa.array(texts).slice(2, 3)
    for mine, theirs in zip(word_hashes(column), word_hashes(texts[2:5])):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(MinHasher(16, 2)(column), MinHasher(16, 2)(texts[2:5]))
    assert MinHasher(16, 2)([]).shape == (0, 16) and not len(word_hashes([])[0])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=6))
def test_words_are_equal_just_where_their_hashes_are(texts):
    hashes, counts = word_hashes(texts)
    found = [[match.group() for match in WORD.finditer(text)] for text in texts]
    assert counts.tolist() == [len(words) for words in found]
    words = ["".join(low if len(low := c.lower()) == 1 else c for c in word) for words in found for word in words]
    words = [word.replace("ς", "σ") for word in words]
    # the place of a character counts in bytes, so a letter whose two cases differ in width may tell words apart
    same_width = [all(len(c.encode()) == len(c.lower().encode()) for c in word) for words in found for word in words]
    for (one, key, plain), (other, other_key, other_plain) in combinations(zip(words, hashes, same_width), 2):
        if plain and other_plain:
            assert (one == other) == (key == other_key)


def test_signatures_are_the_same_in_another_process_and_for_good():
    code = (
        "from roberta_core.data.minhash import MinHasher; print(MinHasher(16, 2)(['Ein Satz, noch einer.']).tolist())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == str(MinHasher(16, 2)(["ein satz -- NOCH einer"]).tolist())
    assert MinHasher(16, 2)([" ".join(map(str, range(100)))])[0, :3].tolist() == FIRST_THREE


FIRST_THREE = [147144687, 216606652, 563572056]


def test_estimates_are_unbiased_with_binomial_error():
    draw = np.random.default_rng(5)
    errors, deviations = [], []
    hasher = MinHasher(112, 5)
    for _ in range(250):
        words = draw.integers(0, 5000, 250).astype(str)
        other = words.copy()
        other[draw.integers(0, 250, draw.integers(1, 20))] = "changed"
        texts = [" ".join(words), " ".join(other)]
        one, two = (set(shingles(text)) for text in texts)
        true = len(one & two) / len(one | two)
        signatures = hasher(texts)
        errors.append((signatures[0] == signatures[1]).mean() - true)
        deviations.append((true * (1 - true) / 112) ** 0.5)
    assert abs(np.mean(errors)) < 3 * np.sqrt(np.mean(np.square(deviations)) / 250)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.sqrt(np.mean(np.square(deviations))), rel=0.2)


def test_chinese_is_shingled_by_characters_and_punctuation_does_not_count():
    _, counts = shingle_hashes(["白馬寺泰國風格佛殿"], 5)
    assert counts.tolist() == [9 - 5 + 1]
    hasher = MinHasher(32, 3)
    np.testing.assert_array_equal(*hasher(["“Ça va”—dit-il…", "ça va dit il"]))
