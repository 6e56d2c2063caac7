"""Which tokens of a vocabulary begin a word, told from their text alone, for masking whole words.

Byte-level BPE keeps the space before a word in its first token, so a token whose text starts with white space begins a
word, as in fairseq's whole-word masking (Liu et al. 2019 release, `MaskTokensDataset`); punctuation that sticks to a word
belongs to it. In WordPiece all tokens but the `##` ones begin one. A table over the vocabulary is all it takes: no
boundaries are stored with the data. For text without spaces it says little; there the pack stage stores them.
"""

import json

import numpy as np
from tokenizers import Tokenizer

_SPACES = ("\u0120", "\u010a", "\u010d", "\u0109", "\u2581")
"""Space, newline, carriage return and tab as GPT-2's byte alphabet writes them (the byte + 256), and SentencePiece's space."""


def word_table(tokenizer: Tokenizer) -> np.ndarray:
    """Whether each token begins a word: bool [vocabulary]; true for special tokens."""
    model = json.loads(tokenizer.to_str())["model"]
    pieces = tokenizer.get_vocab(with_added_tokens=True)
    table = np.zeros(max(pieces.values()) + 1, dtype=bool)
    inside = model.get("continuing_subword_prefix") if model["type"] == "WordPiece" else None
    for text, number in pieces.items():
        table[number] = not text.startswith(inside) if inside else text.startswith(_SPACES)
    table[list(tokenizer.get_added_tokens_decoder())] = True
    return table
