"""Encoding by parts gives the tokenizer's own ids, whatever the text."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from roberta_core.data import encoding
from roberta_core.data.encoding import Encoder, PartTable, splits_alike
from roberta_core.data.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer

DATA = Path(__file__).parents[4] / "shared" / "data"
PIECES = [*"abzAZ019 '\n\t.,(<>/-_é你，。мя\u00a0\u0085\u3000\u2003\u200b\x00\x1c\x7f²½Ⅷ\U0001f600"]
PIECES += [
    " the",
    "'s",
    "'re",
    "'LL",
    " don't",
    "<s>",
    "<mask>",
    "</s>",
    "  ",
    "\r\n",
    "ﬀ",
    "e\u0301",
    "ـ",
    "مرحبا",
    "n't",
]
texts = st.lists(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), max_size=8)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus = [f"The cat's {n} hats, (don't)\n\n They're 你好，世界 naïve {n}-{n}." * 3 for n in range(60)]
    save_tokenizer(train_tokenizer(corpus, 400, 2), folder)
    return load_tokenizer(folder)


def plain(tokenizer, given_texts):
    return [each.ids for each in tokenizer.encode_batch_fast(given_texts, add_special_tokens=False)]


def by_parts(encoder, given_texts):
    return [ids.tolist() for ids in encoder.encode(pa.array(given_texts, pa.string()))]


@settings(max_examples=80, deadline=None)
@given(given_texts=texts)
def test_equal_to_the_tokenizer(tokenizer, given_texts):
    encoder = Encoder(tokenizer, np.dtype(np.uint16))
    assert encoder.fast
    expected = plain(tokenizer, given_texts)
    assert by_parts(encoder, given_texts) == expected
    assert by_parts(encoder, given_texts) == expected  # now from the table


@settings(max_examples=50, deadline=None)
@given(given_texts=st.lists(st.text(max_size=30), max_size=5))
def test_equal_on_any_text(tokenizer, given_texts):
    assert by_parts(Encoder(tokenizer, np.dtype(np.uint32)), given_texts) == plain(tokenizer, given_texts)


def test_every_pair_of_ascii_and_every_space(tokenizer):
    """Each cut of the table, in the middle of a word's and a sign's surroundings."""
    some = [
        chr(code) for code in [*range(128), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F]
    ]
    given_texts = [f"a{one}{two}b {one}{two}'{one} {two}.{one}" for one in some for two in [*some, "\u3000", "é"]]
    assert by_parts(Encoder(tokenizer, np.dtype(np.uint16)), given_texts) == plain(tokenizer, given_texts)


def test_a_plain_part_is_one_piece_of_the_pattern_and_merges_alike(tokenizer):
    parts = [
        f"{space}{word}"
        for space in ("", " ")
        for word in ("a", "they", "don", "hats", "Zq", "0", "2024", "xyzzy" * 9)
    ]
    assert all(encoding.PLAIN.fullmatch(part) for part in parts)
    assert Encoder(tokenizer, np.dtype(np.uint16))._encode_parts(parts) == plain(tokenizer, parts)
    for other in ("'re", " don't", "a1", "  a", "a ", "é", "\n", "a\n", " ", ""):
        assert not encoding.PLAIN.fullmatch(other)


def test_small_sections_and_a_table_that_overflows(tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "SECTION_BYTES", 50)
    monkeypatch.setattr(encoding, "TABLE_BITS", 6)
    monkeypatch.setattr(encoding, "LONG_SHARE", 1.1)
    rng = np.random.default_rng(1)
    given_texts = [
        "".join(rng.choice(PIECES, rng.integers(0, 60))) + " word" * int(rng.integers(0, 5)) for _ in range(200)
    ] + ["", "x" * 300, "", ""]
    cleared = []
    real = PartTable.clear
    monkeypatch.setattr(PartTable, "clear", lambda table: (cleared.append(1), real(table))[1])
    encoder = Encoder(tokenizer, np.dtype(np.uint16))
    assert by_parts(encoder, given_texts) == plain(tokenizer, given_texts)
    assert len(cleared) > 2 and encoder._table.used <= 32


def test_slices_of_a_column(tokenizer):
    column = pa.array(["one two", "three", "", "four five", "six"], pa.string()).slice(1, 3)
    ids = Encoder(tokenizer, np.dtype(np.uint16)).encode(column)
    assert [each.tolist() for each in ids] == plain(tokenizer, ["three", "", "four five"])
    assert ids[0].dtype == np.uint16
    assert Encoder(tokenizer, np.dtype(np.uint16)).encode(pa.array([], pa.string())) == []


def test_other_kinds_of_tokenizers_are_not_cut(tokenizer):
    def changed(change) -> Tokenizer:
        other = Tokenizer.from_str(tokenizer.to_str())
        other.encode_special_tokens = True
        change(other)
        return other

    assert splits_alike(changed(lambda other: None))
    assert not splits_alike(changed(lambda other: setattr(other, "normalizer", normalizers.NFKC())))
    assert not splits_alike(changed(lambda other: setattr(other, "encode_special_tokens", False)))
    assert not splits_alike(changed(lambda other: other.add_tokens([AddedToken("ca", special=False)])))
    assert not splits_alike(changed(lambda other: setattr(other.model, "dropout", 0.1)))
    for before in (
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
        ),
    ):
        other = changed(lambda other, before=before: setattr(other, "pre_tokenizer", before))
        encoder = Encoder(other, np.dtype(np.uint16))
        assert not encoder.fast and by_parts(encoder, ["a cat 12", ""]) == plain(other, ["a cat 12", ""])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wiki_en", "wiki_zh", "books_en"])
def test_real_text(tokenizer, name):
    files = sorted(path for path in (DATA / name).rglob("*") if path.is_file())[:4]
    if not files:
        pytest.skip(f"needs {name} in ../shared/data")
    encoder = Encoder(tokenizer, np.dtype(np.uint16))
    for file in files:
        given_texts = file.read_text("utf8")[:2_000_000].split("</doc>")
        assert by_parts(encoder, given_texts) == plain(tokenizer, given_texts)
