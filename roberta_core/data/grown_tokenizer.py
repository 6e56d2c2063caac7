"""More merges on top of a tokenizer's own: its vocabulary grows, and what it has learned stays.

The old tokenizer encodes the sample; each of its ids is then written as one character, a word as a word of these
characters, and the usual trainer learns merges of them. Its merges, read back as pairs of old tokens, follow the old ones: they
rank below them, so a text is first encoded as before, and then more is joined. All ids stay but `<mask>`'s, which is the last
of the vocabulary and moves to its new end.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from roberta_core.errors import BadInput

FIRST_CHARACTER = 0xE000
"""Ids are written from here on: private characters, then whatever comes; none of them is a space or a surrogate."""
WORD_END = "\n"
TEXTS_A_BATCH = 256
SPARE = 1.2
"""Merges learned for each that is wanted: some make a token that the vocabulary has, by another way."""
SPARE_BOUNDED = 3.0
"""The same where tokens are bounded: many merges then make too long a token, most of all of Chinese."""


def grow_tokenizer(
    tokenizer: Tokenizer, texts: Iterable[str], vocab_size: int, min_frequency: int, max_token_bytes: int = 0
) -> Tokenizer:
    """The tokenizer with a vocabulary of `vocab_size` entries, the new ones learned from `texts`.

    Args:
        tokenizer: byte-level BPE as `load_tokenizer` gives it, `<mask>` last. It is not changed.
        min_frequency: pairs seen less often are not merged.
        max_token_bytes: merges that make a longer token are left out, and so is what builds on them; 0: none.

    Raises:
        BadInput: it is no BPE, it is larger than `vocab_size` already, or the text has too few pairs.
    """
    made = json.loads(tokenizer.to_str())
    old_size = tokenizer.get_vocab_size()
    if made["model"]["type"] != "BPE":
        raise BadInput(
            f"The tokenizer to continue from is {made['model']['type']}, not BPE.", "Set tokenizer.start to take."
        )
    if old_size >= vocab_size:
        raise BadInput(
            f"The tokenizer to continue from has {old_size} entries, tokenizer.vocab_size asks for {vocab_size}.",
            "Set tokenizer.vocab_size higher, or tokenizer.start to take.",
        )
    names = {number: name for name, number in made["model"]["vocab"].items()}
    vocab = made["model"]["vocab"]
    mask = next(token for token in made["added_tokens"] if token["id"] == old_size - 1)
    in_vocab = vocab.pop(mask["content"], None) is not None  # roberta-base lists it there too
    merges = made["model"]["merges"]
    size = old_size - 1
    wanted = int((vocab_size - old_size) * (SPARE_BOUNDED if max_token_bytes else SPARE)) + 16
    for left, right in _learned(tokenizer, texts, wanted, min_frequency):
        one, other = ("".join(names[number] for number in numbers) for numbers in (left, right))
        if max_token_bytes and len(one) + len(other) > max_token_bytes:
            continue
        merges.append([one, other])
        if one + other not in vocab:
            vocab[one + other] = size
            size += 1
            if size == vocab_size - 1:
                break
    else:
        raise BadInput(
            f"The corpus supports a vocabulary of {size + 1}, tokenizer.vocab_size asks for {vocab_size}.",
            f"Set tokenizer.vocab_size to {size + 1} or less, lower tokenizer.min_frequency, let tokens be longer, or add text.",
        )
    mask["id"] = size
    if in_vocab:
        vocab[mask["content"]] = size
    return Tokenizer.from_str(json.dumps(made))


def _learned(
    tokenizer: Tokenizer, texts: Iterable[str], merges: int, min_frequency: int
) -> Iterator[tuple[list[int], list[int]]]:
    """New merges in their order, each side as the old ids that it is made of."""
    alphabet = {chr(FIRST_CHARACTER + number) for number in range(tokenizer.get_vocab_size())}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Split(WORD_END, "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + merges,
        min_frequency=min_frequency,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    learner.train_from_iterator(_written(tokenizer, texts), trainer)
    for left, right in json.loads(learner.to_str())["model"]["merges"]:
        yield [ord(each) - FIRST_CHARACTER for each in left], [ord(each) - FIRST_CHARACTER for each in right]


def _written(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[str]:
    """Each text with a character for an id, and a line for a word."""
    texts = iter(texts)
    while some := list(islice(texts, TEXTS_A_BATCH)):
        for each in tokenizer.encode_batch(some, add_special_tokens=False):  # the fast one tells no words
            words = np.array(each.word_ids, np.int64)
            ends = np.flatnonzero(np.diff(words)) + 1
            characters = np.array(each.ids, "<u4") + FIRST_CHARACTER
            yield np.insert(characters, ends, ord(WORD_END)).tobytes().decode("utf-32-le")
