"""Tokenizers of other projects' older files, built as one `tokenizer.json`.

GPT-2's and RoBERTa's byte-level BPE comes as a vocabulary and a list of merges, BERT's WordPiece as a list of words. The results
give the same ids as `transformers`' tokenizers on the same files.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from roberta_core.data.tokenizer import BERT, ROBERTA, open_tokenizer
from roberta_core.errors import BadInput


def byte_level(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], named: str) -> Tokenizer:
    """RoBERTa's tokenizer over a vocabulary with its special tokens.

    Args:
        vocabulary: token -> id, the specials among them.
        merges: in order.
        named: the file of the merges, for the error.

    Raises:
        BadInput: a merge is no pair of tokens, or makes one that the vocabulary lacks.
    """
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    except Exception as error:  # tokenizers raises bare Exception
        raise BadInput(
            f"{named} does not belong to this vocabulary ({error}).",
            "Fetch both again, or take the tokenizer's files away to import the weights alone.",
        ) from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([ROBERTA.bos, ROBERTA.pad, ROBERTA.eos, ROBERTA.unk])
    tokenizer.add_special_tokens([AddedToken(ROBERTA.mask, lstrip=True, special=True)])
    ends = [(token, tokenizer.token_to_id(token)) for token in (ROBERTA.eos, ROBERTA.bos)]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    return tokenizer


def wordpiece(words: Sequence[str], lower_case: bool) -> Tokenizer:
    """BERT's tokenizer over a `vocab.txt`. `lower_case`: as the uncased models, which take accents off too."""
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=BERT.unk))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([BERT.pad, BERT.unk, BERT.bos, BERT.eos, BERT.mask])
    ends = [(token, tokenizer.token_to_id(token)) for token in (BERT.eos, BERT.bos)]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    return tokenizer


def any_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of a Hugging Face folder: its `tokenizer.json`, else built from its older files; None without any.

    Raises:
        BadInput: the files are damaged.
    """
    if (folder / "tokenizer.json").is_file():
        return open_tokenizer(folder, plain_text=False)
    try:
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf8"))
            lines = (folder / "merges.txt").read_text(encoding="utf8").split("\n")
            pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
            return byte_level(vocabulary, pairs, str(folder / "merges.txt"))
        if (folder / "vocab.txt").is_file():
            words = (folder / "vocab.txt").read_text(encoding="utf8").removesuffix("\n").split("\n")
            settings = folder / "tokenizer_config.json"
            values = json.loads(settings.read_text(encoding="utf8")) if settings.is_file() else {}
            # BertTokenizer's own default is to lower
            return wordpiece([word.removesuffix("\r") for word in words], values.get("do_lower_case", True))
    except (ValueError, AttributeError) as error:
        raise BadInput(f"The tokenizer's files in {folder} are damaged ({error}).", "Fetch them again.") from None
    return None
