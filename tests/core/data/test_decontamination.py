"""Decontamination: every planted evaluation text is found, nothing else is, and nothing is left after cutting."""

import io
import json
import random
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.data.decontamination import (
    Decontaminator,
    Search,
    find_sets,
    open_search,
    read_set,
    search_part,
    strings_of,
)
from roberta_core.data.documents import Document, write_shards
from roberta_core.data.words import UNSPACED, WORD, gram_hashes, shingle_hashes, word_hashes
from roberta_core.errors import BadInput
from roberta_core.executor import map_shards

DATA = Path(__file__).parents[4] / "shared" / "data"
WORDS = [f"w{n}" for n in range(4000)]


def prose(rng: random.Random, words: int) -> str:
    """Sentences of words that evaluation texts do not have."""
    return " ".join(rng.choice(WORDS) + rng.choice(["", "", ",", "."]) for _ in range(words))


def searcher(tmp_path, texts: list[str], words: int = 13, min_words: int = 5) -> Decontaminator:
    (tmp_path / "set.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf8")
    one = read_set("set", [tmp_path / "set.jsonl"], words, min_words)
    return Decontaminator([one], words, min_words)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_the_words_in_place_are_the_words_that_are_hashed(text):
    found = [match.group() for match in WORD.finditer(text)]
    assert word_hashes([text])[1].tolist() == [len(found)]
    if "Σ" not in text:  # its small form depends on what stands beside it
        assert np.array_equal(word_hashes(found or [""])[0], word_hashes([text])[0])
    assert all(len(word) == 1 for word in found if UNSPACED.search(word))


def test_grams_of_every_length_are_those_of_the_shingles():
    words, _ = word_hashes(["one two three four five six"])
    for length, grams in gram_hashes(words, 6):
        assert grams[: 7 - length].tolist() == shingle_hashes(["one two three four five six"], length)[0].tolist()


def test_every_planted_sentence_is_found_whatever_its_case_marks_and_wrapping(tmp_path):
    rng = random.Random(5)
    texts = [" ".join(f"e{rng.randrange(10**9)}" for _ in range(rng.randrange(5, 40))) for _ in range(400)]
    texts += ["白馬寺泰國風格佛殿是中國第一座寺院", "Привет, как у тебя сегодня дела?", "naïve café au lait à Zürich"]
    look = searcher(tmp_path, texts)
    documents, planted = [], []
    for number in range(600):
        body = prose(rng, rng.randrange(20, 300))
        if number % 3:
            text = rng.choice(texts) if number >= len(texts) else texts[number]
            form = rng.choice([str, str.upper, lambda t: t.replace(" ", ", "), lambda t: t.replace(" ", "\n")])
            at = rng.choice([0, len(body) // 2, len(body)])
            body = f"{body[:at]} {form(text)}. {body[at:]}"
            planted.append((number, text))
        documents.append(body)
    found = look.find(documents)
    assert sorted(found) == [number for number, _ in planted]
    wanted = {text for _, text in planted}
    assert look.sets[0].found.sum() == len(wanted) and look.sets[0].documents == len(planted)
    for number, runs in found.items():
        left = look.cut(documents[number], runs)
        assert not look.find([left]) and left
        # what is left is what stood around the sentence, to the word
        rest = {match.group().lower() for match in WORD.finditer(documents[number])} - {
            match.group().lower() for _, text in planted for match in WORD.finditer(text)
        }
        assert {match.group().lower() for match in WORD.finditer(left)} == rest


def test_thirteen_words_of_a_longer_text_are_enough_and_twelve_are_not(tmp_path):
    words = [f"long{n}" for n in range(40)]
    look = searcher(tmp_path, [" ".join(words)])
    assert look.find(["before " + " ".join(words[10:23]) + " after"])[0].tolist() == [[1, 14]]
    assert look.find(["before " + " ".join(words[10:22]) + " after"]) == {}
    assert look.find(["x " + " ".join(words[0:20]) + " y " + " ".join(words[5:18])])[0].tolist() == [[1, 21], [22, 35]]


def test_a_short_text_must_be_there_as_a_whole_in_one_document(tmp_path):
    look = searcher(tmp_path, ["one two three four five six", "too short this"])
    assert (look.sets[0].texts, look.sets[0].too_short) == (1, 1)
    assert look.find(["one two three four five", "six", "a one two three four five six z"])[2].tolist() == [[1, 7]]
    assert look.find(["one two three four five six"])[0].tolist() == [[0, 6]]
    assert look.find(["", "...", "too short this"]) == {}


def test_blocks_do_not_change_what_is_found(tmp_path, monkeypatch):
    rng = random.Random(1)
    texts = [" ".join(f"e{rng.randrange(10**6)}" for _ in range(20)) for _ in range(20)]
    documents = [prose(rng, 30) + " " + (texts[n % 20] if n % 4 == 0 else "") for n in range(100)]
    whole = searcher(tmp_path, texts).find(documents)
    monkeypatch.setattr("roberta_core.data.words.PIECE_BYTES", 700)
    parts = searcher(tmp_path, texts).find(documents)
    assert {n: runs.tolist() for n, runs in whole.items()} == {n: runs.tolist() for n, runs in parts.items()}
    assert len(whole) == 25


def strings(raw: bytes, name: str) -> list[str]:
    return list(strings_of(io.BytesIO(raw), name))


def test_strings_of_every_kind_of_file():
    assert strings(b"a b\nc\n", "x.txt") == ["a b", "c"]
    assert strings(b'\xef\xbb\xbfid\ts\n1\tan "open quote\r\n', "x.tsv") == ["id", "s", "1", 'an "open quote']
    assert strings(b'id,s\n1,"two\nlines"\n', "x.csv") == ["id", "s", "1", "two\nlines"]
    nested = {"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q", "n": 1}]}]}]}
    assert strings(json.dumps(nested).encode(), "x.json") == ["c", "q"]
    assert strings(json.dumps(nested, indent=1).encode(), "x.json") == ["c", "q"]
    assert strings(b'{"a": "b"}\n\n{"a": ["c", null]}\n', "x.jsonl") == ["b", "c"]
    out = io.BytesIO()
    pq.write_table(pa.table({"s": ["one", None], "n": [1, 2], "l": [["two"], []]}), out)
    assert strings(out.getvalue(), "x.parquet") == ["one", "two"]


def test_sets_by_name_folder_pattern_or_all(tmp_path):
    for name in (
        "glue/CoLA/dev.tsv",
        "glue/CoLA/train.tsv",
        "glue/RTE/dev.tsv",
        "blimp/a.jsonl",
        "x.txt",
        ".hid/y.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    told = {
        name: [path.relative_to(tmp_path).as_posix() for path in paths]
        for name, paths in find_sets(tmp_path, ["glue/*/dev.tsv", "blimp", "glue/CoLA/train.tsv"]).items()
    }
    assert told == {
        "glue/*/dev.tsv": ["glue/CoLA/dev.tsv", "glue/RTE/dev.tsv"],
        "blimp": ["blimp/a.jsonl"],
        "glue/CoLA/train.tsv": ["glue/CoLA/train.tsv"],
    }
    assert list(find_sets(tmp_path, [])) == ["blimp", "glue", "x.txt"]
    assert list(find_sets(tmp_path / "x.txt", [])) == ["x.txt"]
    with pytest.raises(BadInput, match=r"No file under .* is, or matches, squad. Mend decontaminate.sets"):
        find_sets(tmp_path, ["squad"])
    with pytest.raises(BadInput, match=r"There is no file or folder .*nowhere"):
        find_sets(tmp_path / "nowhere", [])


def test_a_set_that_cannot_be_read_or_says_nothing_is_named(tmp_path):
    for raw, told in ((b"\xff\xfe", "cannot be read: .*set.txt"), (b"just four words here\n", "no text of 5 words")):
        (tmp_path / "set.txt").write_bytes(raw)
        with pytest.raises(BadInput, match=f"The evaluation set mine .*{told}"):
            read_set("mine", [tmp_path / "set.txt"], 13, 5)
    (tmp_path / "set.json").write_text("{broken")
    with pytest.raises(BadInput, match="it is not JSON"):
        read_set("mine", [tmp_path / "set.json"], 13, 5)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real GLUE and BLiMP files are not here")
def test_every_sentence_of_real_sets_planted_in_real_text(tmp_path):
    names = ["glue/*/dev.tsv", "blimp", "xquad"]
    sets = [read_set(name, paths, 13, 5) for name, paths in find_sets(DATA, names).items()]
    look = Decontaminator(sets, 13, 5)
    rng = random.Random(2)
    sentences = [
        text
        for paths in find_sets(DATA, names).values()
        for path in paths
        for text in strings_of(io.BytesIO(path.read_bytes()), path.name)
        if len(WORD.findall(text)) >= 5
    ]
    sentences = rng.sample(sorted(set(sentences)), 1500)
    found = look.find([f"{prose(rng, 40)} {text} {prose(rng, 40)}" for text in sentences])
    assert len(found) == 1500
    assert sum(int(each.found.sum()) for each in sets) >= 1500
    clean = Decontaminator([read_set(each, paths, 13, 5) for each, paths in find_sets(DATA, names).items()], 13, 5)
    assert clean.find([prose(rng, 200) for _ in range(200)]) == {}
    assert np.all(clean.hashes[1:] > clean.hashes[:-1])


def evaluation_texts() -> dict[str, list[str]]:
    """Texts of five words or more of real evaluation sets, by the name that a user gives the set."""
    names = ["glue/CoLA/dev.tsv", "glue/RTE/test.tsv", "glue/STS-B/dev.tsv", "xquad", "blimp"]
    found = {}
    for name, paths in find_sets(DATA, names).items():
        texts: dict[str, None] = {}
        for path in paths:
            with open(path, "rb") as handle:
                texts.update(dict.fromkeys(strings_of(handle, path.name)))
        found[name] = [text for text in texts if len(WORD.findall(text)) >= 5]
    return found


@pytest.mark.skipif(not DATA.is_dir(), reason="the real evaluation sets are not here")
def test_every_planted_text_of_real_sets_is_found_by_any_number_of_workers(tmp_path):
    rng = random.Random(2)
    texts = {name: rng.sample(each, min(len(each), 300)) for name, each in evaluation_texts().items()}
    planted = [text for each in texts.values() for text in each]
    rng.shuffle(planted)
    documents = [
        f"{prose(rng, 40)} {text.upper() if number % 3 == 0 else text} {prose(rng, 40)}"
        for number, text in enumerate(planted)
    ] + [prose(rng, 80) for _ in range(200)]
    parts = write_shards((Document(text, "s", str(n)) for n, text in enumerate(documents)), tmp_path, 0.3)
    assert len(parts) > 3
    search = Search(DATA, tuple(texts), 13, 5, True)
    work, rows = [], 0
    for part in parts:
        count = pa.ipc.open_file(part).read_all().num_rows
        work.append((part, np.ones(count, bool), {}))
        rows += count
    told = []
    for workers in (1, 2):
        found = list(map_shards(partial(search_part, search=search), work, workers))
        told.append([(each.documents, [(seen.tolist(), many) for seen, many in each.counts]) for each in found])
    assert told[0] == told[1]
    # every document with a planted text, and no other
    starts = np.cumsum([0, *(len(keep) for _, keep, _ in work)])
    hit = {int(start) + row for start, (documents_found, _) in zip(starts, told[0]) for row in documents_found}
    assert hit == set(range(len(planted)))
    look = open_search(search)
    for each in found:
        look.add_counts(each.counts)
    for each in look.sets:
        assert each.found.sum() >= len(texts[each.name])  # a text may hold another, shorter one
    look.take_counts()
    assert not look.find([left for documents_found, _ in told[0] for _, left in documents_found.values() if left])
    look.take_counts()
