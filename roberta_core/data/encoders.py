"""The encoder of a process: made once for a tokenizer, and kept from shard to shard with the words that it has met.

It stands in a module of its own so that a worker elsewhere finds it by name: what a stage's own module defines belongs to
`__main__`, and a cache is nothing that could be sent.
"""

from functools import lru_cache
from pathlib import Path

from roberta_core.data.chinese_words import WordEncoder
from roberta_core.data.encoding import Encoder
from roberta_core.data.packing import token_type
from roberta_core.data.tokenizer import load_tokenizer


@lru_cache(maxsize=1)
def encoder_of(folder: Path, digest: str, words: bool) -> Encoder | WordEncoder:
    """The encoder for the tokenizer in `folder`; `digest` is of its file. `words`: one that tells where words begin."""
    tokenizer = load_tokenizer(folder)
    return WordEncoder(tokenizer) if words else Encoder(tokenizer, token_type(tokenizer.get_vocab_size()))
