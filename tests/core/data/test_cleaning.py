"""Cleaning: a normal form that cleaning leaves alone, and rules that say which name they drop under."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.data.cleaning import Rules, clean_batch, clean_shard, content_hash, normalise, rejected, symbol_share
from roberta_core.data.documents import Document, read_shards, to_batch, write_shards
from roberta_core.data.funnel import Funnel
from roberta_core.data.minhash import MinHasher

PROSE = "It was a bright cold day in April, and the clocks were striking thirteen. " * 5
ODD = st.text(
    st.sampled_from(
        "ab \t\n\r\x0b\x0c\x1c\x1d\x1f\x00\x7f\x85\xa0\xad\u0301\u0308\u0338e"
        "\u200b\u200d\u2028\u3000\ufeffA\u212bک\u0915\u093c한ᄒ\u1161\u11ab"
    )
)


@settings(max_examples=300, deadline=None)
@given(ODD | st.text())
def test_cleaning_twice_changes_nothing(text):
    text = text.encode("utf8", "ignore").decode("utf8")
    once, _ = normalise(text)
    assert normalise(once) == (once, [])


@settings(max_examples=200, deadline=None)
@given(ODD)
def test_the_normal_form(text):
    once, _ = normalise(text)
    assert unicodedata.is_normalized("NFC", once) and once == once.strip()
    assert not [c for c in once if unicodedata.category(c) == "Cc" and c != "\n"]
    assert not any(bad in once for bad in ("  ", "\n ", " \n", "\n\n\n", "\ufeff", "\u200b", "\xa0"))
    letters = [c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c)[0] == "L"]
    assert [c for c in unicodedata.normalize("NFD", once) if unicodedata.category(c)[0] == "L"] == letters


def test_examples():
    assert normalise("\ufeffCafe\u0301\r\nnext\tline  \r\n\r\n\r\n\r\nend\x00") == (
        "Café\nnext line\n\nend",
        ["control_characters", "nfc"],
    )
    assert normalise("plain\ttext") == ("plain text", [])
    assert normalise("می\u200cخواهم")[0] == "می\u200cخواهم"


def by_definition(text: str) -> float:
    return sum(unicodedata.category(c)[0] not in "LMNZ" and not c.isspace() for c in text) / max(len(text), 1)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("abc12 \n.,-_$\xe9\u0915\u094d“”—€漢\u3000½")))
def test_symbol_share_against_its_definition(text):
    assert symbol_share(text) == pytest.approx(by_definition(text))


@pytest.mark.parametrize(
    "text, reason",
    [
        (PROSE, ""),
        ("", "empty"),
        (PROSE[:100], "too_short"),
        ("-- == ?? " * 50, "too_many_symbols"),
        ("a b c d e f " * 50, "words_too_short"),
        ("incomprehensibilities " * 50, "words_too_long"),
        ("The same line again.\n" * 20, "repeated_lines"),
        ("白馬寺泰國風格佛殿是泰國官方人士先生為了增進泰國和中國兩國佛教界的友誼而建。" * 10, ""),
        ("हिन्दी विश्व की एक प्रमुख भाषा है और भारत की एक राजभाषा है। " * 10, ""),
    ],
)
def test_rules(text, reason):
    assert rejected(text.strip(), Rules()) == reason


def test_rules_go_by_their_thresholds():
    assert rejected(PROSE[:100].strip(), Rules(min_chars=50)) == ""
    assert rejected("-- == ?? " * 50, Rules(max_symbol_share=1, min_mean_word_chars=1)) == ""


def test_a_batch_keeps_its_other_columns_and_counts_everything():
    texts = [PROSE, "short", PROSE.replace(" ", "\u00a0") + "\x00", "", PROSE + "new"]
    funnel = Funnel()
    clean = clean_batch(
        to_batch([Document(text, "s", f"id{n}", f'{{"n": {n}}}') for n, text in enumerate(texts)]), Rules(), funnel
    )
    assert (
        clean.column("doc_id").to_pylist() == ["id0", "id2", "id4"]
        and clean.column("meta").to_pylist()[1] == '{"n": 2}'
    )
    assert clean.column("text").to_pylist()[:2] == [PROSE.strip()] * 2
    assert (funnel.seen, funnel.kept, funnel.dropped, funnel.changed) == (
        5,
        3,
        {"too_short": 1, "empty": 1},
        {"control_characters": 1},
    )
    assert funnel.chars == sum(map(len, clean.column("text").to_pylist()))


def test_content_hash_is_stable():
    assert content_hash("Grüße").hex() == "c483baa27a9abd2202924662a88aaf32"


def test_rules_by_name_lines_masks_and_languages_are_counted():
    lines = [f"This is line number {n}, and it has the words that a line must have." for n in range(4)]
    prose = "\n".join(lines)
    texts = [
        prose + "\nMenu\nMenu",
        prose + "\nWrite to a@b.de today, as all of them did.",
        prose.replace("words", "wÃ¶rds"),
        "Der Fluss entspringt in den Hügeln. Er fließt durch die Stadt. Dann erreicht er das Meer. " * 3,
        prose + " { x }",
    ]
    rules = Rules(
        mend=True,
        drop_repeated_lines=True,
        names=frozenset({"c4_curly_bracket", "c4_line_words"}),
        mask=("email",),
        languages=("en",),
    )
    funnel = Funnel()
    clean = clean_batch(to_batch([Document(text, "s", "id") for text in texts]), rules, funnel)
    assert clean.column("text").to_pylist() == [
        prose,
        prose + "\nWrite to [email] today, as all of them did.",
        prose.replace("words", "wörds"),
    ]
    assert funnel.dropped == {"language_de": 1, "c4_curly_bracket": 1}
    assert funnel.changed == {"repeated_lines_removed": 1, "c4_line_words": 1, "masked_email": 1, "mended": 1}


def test_a_part_loses_the_lines_that_many_of_its_documents_have(tmp_path):
    write_shards(
        (Document(f"Home | About\n{PROSE} {n}\n\n(c) all", "s", str(n)) for n in range(20)), tmp_path / "raw", 16
    )
    (tmp_path / "out").mkdir()
    counted = clean_shard(
        tmp_path / "raw" / "part-00000.arrow", tmp_path / "out", Rules(boilerplate_documents=20), MinHasher(16)
    )
    texts = [text for batch in read_shards(tmp_path / "out", ["text"]) for text in batch.column("text").to_pylist()]
    assert texts == [f"{PROSE}{n}" for n in range(20)] and counted["changed"] == {"boilerplate_lines": 20}
