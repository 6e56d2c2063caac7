"""Which tokens begin a word: byte-level BPE by its spaces, WordPiece by its prefix."""

import re

from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from roberta_core.data.tokenizer import train_tokenizer
from roberta_core.data.word_table import word_table

TEXT = "The unbelievable cat sat.\nAnother line, with words: unbelievable, believable"


def test_in_byte_level_bpe_a_word_begins_where_white_space_does():
    tokenizer = train_tokenizer([TEXT] * 3 + ["abcdefghij" * 3], 300, 2)
    table = word_table(tokenizer)
    assert len(table) == tokenizer.get_vocab_size() and table[:4].all() and table[-1]
    units: list[list[int]] = []
    for number in tokenizer.encode(TEXT, add_special_tokens=False).ids:
        if table[number] or not units:
            units.append([])
        units[-1].append(number)
    assert [tokenizer.decode(unit) for unit in units] == re.findall(r"\s?\S+", TEXT)
    assert max(map(len, units)) > 1


def test_in_wordpiece_all_but_continuations_begin_one():
    vocabulary = {"[UNK]": 0, "play": 1, "##ing": 2, "##ed": 3, ",": 4}
    assert word_table(Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))).tolist() == [True, True, False, False, True]
