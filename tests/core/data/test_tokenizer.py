"""The tokenizer: ids as promised, nothing unknown, spelled-out specials as text, the same bytes twice."""

import pytest

from roberta_core.data.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from roberta_core.errors import BadInput

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
