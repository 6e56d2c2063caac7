"""The tokenizer: ids as promised, nothing unknown, spelled-out specials as text, the same bytes twice."""

import json
from pathlib import Path

import pytest

from roberta_core.data.grown_tokenizer import grow_tokenizer
from roberta_core.data.tokenizer import MASK, load_tokenizer, measure_tokenizer, save_tokenizer, train_tokenizer
from roberta_core.errors import BadInput

DATA = Path(__file__).parents[4] / "shared" / "data"
TEXTS = [
    f"The {animal} sat on the {thing} and said: naïve café, 你好 {number}!"
    for animal in ("cat", "dog", "owl")
    for thing in ("mat", "log", "roof")
    for number in range(20)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(TEXTS, 300, 2), path)
    return path


def test_ids(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.get_vocab_size() == 300
    assert [tokenizer.token_to_id(token) for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")] == [0, 1, 2, 3, 299]
    assert tokenizer.encode("a", "b").tokens == ["<s>", "a", "</s>", "</s>", "b", "</s>"]


def test_any_text_comes_back(folder):
    tokenizer = load_tokenizer(folder)
    for text in ("Ἀθῆναι \U0001f600 \x00\t x", "  two  spaces ", "</s> and <mask>", "مرحبا"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text and 3 not in ids


def test_specials_in_a_text_are_text(folder):
    assert not {0, 1, 2, 3, 299} & set(
        load_tokenizer(folder).encode("<s> <pad> </s> <unk> <mask>", add_special_tokens=False).ids
    )
    assert 299 in load_tokenizer(folder, plain_text=False).encode("the <mask> sat").ids


def test_transformers_loads_it(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS[:3]:
        assert theirs(text).input_ids == load_tokenizer(folder).encode(text).ids
    assert theirs("the <mask> sat").input_ids == load_tokenizer(folder, plain_text=False).encode("the <mask> sat").ids
    assert theirs.mask_token_id == 299 and theirs.pad_token_id == 1


def test_same_bytes_twice(folder, tmp_path):
    save_tokenizer(train_tokenizer(iter(TEXTS), 300, 2), tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_vocabulary_that_the_corpus_does_not_support():
    with pytest.raises(BadInput, match=r"supports a vocabulary of \d+, tokenizer.vocab_size asks for 5000"):
        train_tokenizer(TEXTS, 5000, 2)


def test_other_ids_are_refused(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BadInput, match="special tokens"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        load_tokenizer(tmp_path)


def grown(folder, size=320):
    return grow_tokenizer(load_tokenizer(folder), iter(TEXTS * 2), size, 2)


def test_grown_keeps_every_id_but_the_mask(folder, tmp_path):
    before = load_tokenizer(folder).get_vocab()
    save_tokenizer(grown(folder), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    after = tokenizer.get_vocab()
    assert len(after) == 320 and after[MASK] == 319
    assert {name: number for name, number in after.items() if number < 299} == {
        name: number for name, number in before.items() if name != MASK
    }
    tokens = [len(load_tokenizer(each).encode(TEXTS[7]).ids) for each in (folder, tmp_path)]
    assert tokens[1] < tokens[0]
    for text in (*TEXTS[::17], "Ἀθῆναι \U0001f600 <mask>"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text and not {3, 319} & set(ids)


def test_grown_encodes_as_before_and_joins_more(folder):
    """Every new token is a row of old ones: splitting it gives the old encoding."""
    old, new = load_tokenizer(folder), grown(folder)
    new.encode_special_tokens = True
    names = {number: name for name, number in new.get_vocab().items()}
    for text in TEXTS[::13]:
        for ids, other in zip(
            (each.ids for each in old.encode_batch(text.split(" "), add_special_tokens=False)),
            (each.ids for each in new.encode_batch(text.split(" "), add_special_tokens=False)),
        ):
            assert "".join(names[number] for number in other) == "".join(old.id_to_token(number) for number in ids)
            assert len(other) <= len(ids)


def test_grown_from_a_tokenizer_that_lists_its_mask_in_the_vocabulary(folder, tmp_path):
    """As roberta-base's does."""
    made = json.loads((folder / "tokenizer.json").read_text("utf8"))
    made["model"]["vocab"][MASK] = 299
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), "utf8")
    theirs = grown(tmp_path)
    assert theirs.get_vocab() == grown(folder).get_vocab() and theirs.get_vocab_size() == 320
    assert json.loads(theirs.to_str())["model"]["vocab"][MASK] == 319


def test_grown_twice_the_same_and_refused_where_it_cannot(folder):
    assert grown(folder).to_str() == grown(folder).to_str()
    with pytest.raises(BadInput, match=r"has 300 entries, tokenizer.vocab_size asks for 300"):
        grown(folder, 300)
    with pytest.raises(BadInput, match=r"supports a vocabulary of \d+, tokenizer.vocab_size asks for 9000"):
        grown(folder, 9000)


def test_tokens_of_bounded_length(folder):
    def longest(tokenizer):
        return max(len(token) for token in tokenizer.get_vocab() if not token.startswith("<"))

    bounded = train_tokenizer(TEXTS, 288, 2, max_token_bytes=2)
    assert longest(bounded) == 2 < longest(train_tokenizer(TEXTS, 288, 2))
    bounded.encode_special_tokens = True
    assert longest(grow_tokenizer(bounded, TEXTS, 304, 2, max_token_bytes=4)) == 4


def test_measures(folder):
    tokenizer = load_tokenizer(folder)
    told = measure_tokenizer(tokenizer, ["the cat 你好", "", "的"])
    ids = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in ("the cat 你好", "的"))
    assert told == {
        "bytes_per_token": round(17 / ids, 4),
        "tokens_per_word": round(ids / 5, 4),
        "unknown_share": 0.0,
    }
    assert measure_tokenizer(tokenizer, [])["bytes_per_token"] == 0.0


@pytest.mark.slow
def test_chinese_and_mixed_text():
    """Learned from real Chinese text: nothing unknown, everything comes back, and a token holds more than a character."""
    files = sorted((DATA / "wiki_zh").rglob("wiki_*"))
    if not files:
        pytest.skip("needs wiki_zh in ../shared/data")
    texts = [text for file in files[:6] for text in file.read_text("utf8").split("</doc>")]
    tokenizer = train_tokenizer(texts[1::2], 8000, 2)
    tokenizer.encode_special_tokens = True
    held_out = [*texts[:400:2], "我在 GitHub 上 push 了一个 commit，版本 v2.0（beta）。", "繁體與简体混排 mixed text"]
    for text, each in zip(held_out, tokenizer.encode_batch(held_out, add_special_tokens=False)):
        assert tokenizer.decode(each.ids, skip_special_tokens=False) == text and 3 not in each.ids
    told = measure_tokenizer(tokenizer, held_out)
    assert (
        told["bytes_per_token"] > 3 and told["tokens_per_word"] < 1.5
    )  # a character of Chinese is three bytes, and a word here
