"""Words of Chinese from jieba, of everything else from spaces; and where each token begins."""

import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from roberta_core.atomic import write_json
from roberta_core.data.chinese_words import WordEncoder, open_jieba, word_places
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import WORD_START, write_packed
from roberta_core.data.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from roberta_core.errors import BadParams

pytest.importorskip("jieba")
SENTENCES = [
    "我来到北京清华大学",
    "他在GitHub上push了代码，版本v2.0 很好",
    "小明硕士毕业于中国科学院计算所 and then left",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer([text for text in SENTENCES for _ in range(9)], 330, 2), folder)
    return load_tokenizer(folder)


def words_of(text):
    cuts = [*np.flatnonzero(word_places(text, open_jieba())).tolist(), len(text)]
    return [text[start:stop] for start, stop in pairwise(cuts)]


def test_words():
    assert words_of("我来到北京清华大学") == ["我", "来到", "北京", "清华大学"]  # the example of jieba's own page
    assert words_of("他说naïve，Привет мир") == ["他", "说", "naïve，Привет", " ", "мир"]
    assert words_of("在GitHub上push了代码。") == ["在", "GitHub", "上", "push", "了", "代码", "。"]
    assert words_of("a\nb") == ["a", "\n", "b"] and words_of("") == [""][:0]


def spelled(tokenizer, ids):
    return tokenizer.decode((ids & ~WORD_START).tolist(), skip_special_tokens=False)


@pytest.mark.parametrize(
    "text", [*SENTENCES, "the 你好\U0001f600世界 cat", "龘靐齉 rare", "  two", "\U00020000\U00020001"]
)
def test_flags_fall_on_the_words(tokenizer, text):
    """Oracle: the bytes before each flagged token end where a word begins."""
    ids = WordEncoder(tokenizer).encode(pa.array([text]))[0]
    assert spelled(tokenizer, ids) == text
    cuts = np.flatnonzero(word_places(text, open_jieba()))
    byte_cuts = {len(text[:cut].encode()) for cut in cuts.tolist()}
    from tokenizers import pre_tokenizers

    letters = pre_tokenizers.ByteLevel.alphabet()
    at = 0
    for token, first in zip((ids & ~WORD_START).tolist(), (ids >= WORD_START).tolist()):
        spelling = tokenizer.id_to_token(token)
        assert set(spelling) <= set(letters)
        assert first == (at in byte_cuts), (spelling, at)
        at += len(spelling)


def test_rows_keep_the_words(tokenizer, tmp_path):
    ids = WordEncoder(tokenizer).encode(pa.array(SENTENCES))
    write_packed(iter([ids]), tmp_path / "part-00000.arrow", "best-fit", 64, 330, words=True)
    write_json(tmp_path / "manifest.json", {"mode": "best-fit"})
    rows = PackedRows(tmp_path)
    numbers = np.arange(len(rows))
    tokens, starts, own = rows.rows(numbers), rows.word_starts(numbers), rows.documents(numbers)
    found = [
        (tokens[row][own[row] == number][1:-1], starts[row][own[row] == number][1:-1])
        for row in numbers
        for number in range(own[row].max() + 1)
    ]
    expected = sorted(each.tolist() for each in ids if len(each) <= 62)
    assert expected == sorted(
        (part + first * int(WORD_START)).tolist() for part, first in found if len(part) in map(len, expected)
    )
    assert sum(len(part) for part, _ in found) == sum(map(len, ids))


def test_without_jieba_one_line(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(BadParams, match="jieba is not installed"):
        WordEncoder(tokenizer)
