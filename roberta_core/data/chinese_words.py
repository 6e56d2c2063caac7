"""Where words begin, for text in which spaces do not tell: Chinese, and Chinese mixed with other scripts.

Runs of Chinese characters are cut into words by jieba, the usual segmenter, offline and without a model of its own to fetch.
Everything else keeps to spaces, as masking of whole words does for English: jieba would take `naïve` or a Russian word
apart. A token begins a word when its first character does, by the tokenizer's own offsets; a token that begins within a
character begins no word. A token that reaches into the next word belongs to the word it begins in. Costs: jieba reads about
a megabyte a second and core, several times slower than the tokenizer.
"""

import logging
import re

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, pre_tokenizers, processors

from roberta_core.data.packing import WORD_START
from roberta_core.errors import BadParams

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]+")
"""Runs of Chinese characters: the unified ideographs, their extensions, and the compatibility ones."""
_SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], np.uint32)


def open_jieba():
    """The segmenter, without its messages.

    Raises:
        BadParams: it is not installed.
    """
    try:
        import jieba
    except ImportError:
        raise BadParams(
            "pack.word_boundaries is jieba, and jieba is not installed.",
            "Install the extra chinese (pip install -c constraints.txt '.[chinese]'), or set pack.word_boundaries to bpe.",
        ) from None
    jieba.setLogLevel(logging.WARNING)
    return jieba


def word_places(text: str, jieba) -> np.ndarray:
    """Whether a word begins at each character: bool [characters].

    Words begin at each space and after it, where jieba says so within Chinese, and where Chinese begins or ends. A space
    belongs to the word after it, as in the tokens of byte-level BPE.
    """
    places = np.zeros(len(text) + 1, bool)
    places[0] = True
    space = np.isin(np.frombuffer(text.encode("utf-32-le"), "<u4"), _SPACES)
    places[:-1] |= space
    places[1:] |= space
    for run in HAN.finditer(text):
        at = run.start()
        for word in jieba.cut(run.group()):
            places[at] = True
            at += len(word)
        places[run.end()] = True
    return places[:-1]


def _within_character(tokenizer: Tokenizer) -> np.ndarray:
    """Whether a token of byte-level BPE begins within a character, with one of UTF-8's bytes 0x80 to 0xBF: bool [vocabulary]."""
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    bytes_within = set(spell("".join(map(chr, range(0x80, 0xC0))))[0][0][1::2])  # these are 0xC2 and such a byte each
    within = np.zeros(tokenizer.get_vocab_size(), bool)
    for token, number in tokenizer.get_vocab().items():
        within[number] = token[0] in bytes_within
    return within


class WordEncoder:
    """Gives the token ids of documents with `WORD_START` added to those that begin a word.

    Args:
        tokenizer: as `load_tokenizer` gives it. It is not changed.

    Raises:
        BadParams: jieba is not installed.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._jieba = open_jieba()
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.encode_special_tokens = tokenizer.encode_special_tokens
        # offsets as they are: the post-processor would take the space before a word out of its token's
        self._tokenizer.post_processor = processors.Sequence([])
        self._within = _within_character(tokenizer)

    def encode(self, column: pa.Array) -> list[np.ndarray]:
        """The flagged ids of each text of a string column without nulls: uint32."""
        texts = column.to_pylist()
        return [
            self._flagged(text, each)
            for text, each in zip(texts, self._tokenizer.encode_batch(texts, add_special_tokens=False))
        ]

    def _flagged(self, text: str, encoding) -> np.ndarray:
        ids = np.array(encoding.ids, np.uint32)
        if not len(ids):
            return ids
        begins = np.array(encoding.offsets, np.int64)[:, 0]
        first = word_places(text, self._jieba)[begins] & ~self._within[ids]
        return ids | np.where(first, WORD_START, np.uint32(0))
