"""Byte-level BPE (Radford et al. 2019), as RoBERTa uses it: any text can be written, and nothing is ever unknown.

Ids: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then bytes and merges, `<mask>` last. The folder opens in `tokenizers` and in
`transformers`. Text that spells a special token, such as a manual that says `<mask>`, is encoded as plain text.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from roberta_core.atomic import write_json
from roberta_core.errors import BadInput

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"


@dataclass(frozen=True)
class Specials:
    """The special tokens of a family of encoders, as a tokenizer spells them."""

    bos: str
    pad: str
    eos: str
    unk: str
    mask: str


ROBERTA = Specials(*SPECIALS, MASK)
BERT = Specials("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")


def sample_by_hash(texts: Iterable[str], share: float) -> Iterator[str]:
    """The texts whose checksum falls into the lowest `share`: a sample that does not depend on their order."""
    limit = int(share * 2**32)
    return (text for text in texts if zlib.crc32(text.encode("utf8")) < limit)


def train_tokenizer(texts: Iterable[str], vocab_size: int, min_frequency: int, max_token_bytes: int = 0) -> Tokenizer:
    """Learns merges until the vocabulary has `vocab_size` entries, the five special tokens included.

    Args:
        min_frequency: pairs seen less often are not merged.
        max_token_bytes: no longer tokens are learned; 0: any.

    Raises:
        BadInput: the text has too few pairs for so large a vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=min_frequency,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=max_token_bytes or None,  # a byte is one character at this point
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = tokenizer.get_vocab_size() + 1
    if learned < vocab_size:
        raise BadInput(
            f"The corpus supports a vocabulary of {learned}, tokenizer.vocab_size asks for {vocab_size}.",
            f"Set tokenizer.vocab_size to {learned // 64 * 64 or learned} or less, lower tokenizer.min_frequency, or add text.",
        )
    # `<mask>` takes the space before it, as in roberta-base, so that "the <mask> sat" has the token " cat" as its answer.
    tokenizer.add_special_tokens([AddedToken(MASK, lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def save_tokenizer(
    tokenizer: Tokenizer,
    folder: Path,
    max_length: int | None = None,
    specials: Specials = ROBERTA,
    token_types: bool = False,
) -> None:
    """Writes `tokenizer.json` and the `tokenizer_config.json` that `transformers.AutoTokenizer` wants.

    Args:
        max_length: tokens that the model takes; None leaves it out.
        specials: how this tokenizer spells its special tokens.
        token_types: the model tells the two texts of a pair apart by token types, as BERT does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": specials.bos,
        "eos_token": specials.eos,
        "cls_token": specials.bos,
        "sep_token": specials.eos,
        "unk_token": specials.unk,
        "pad_token": specials.pad,
        "mask_token": {
            "__type": "AddedToken",
            "content": specials.mask,
            "lstrip": specials == ROBERTA,  # `<mask>` takes the space before it, `[MASK]` does not
            "rstrip": False,
            "single_word": False,
            "normalized": False,
            "special": True,
        },
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    if token_types:
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    write_json(folder / "tokenizer_config.json", config | ({"model_max_length": max_length} if max_length else {}))


def specials_of(tokenizer: Tokenizer) -> Specials | None:
    """RoBERTa's special tokens or BERT's, whichever the vocabulary has in full; None where it has neither."""
    for specials in (ROBERTA, BERT):
        if None not in map(tokenizer.token_to_id, astuple(specials)):
            return specials
    return None


def _file_of(path: Path) -> Path:
    """The file itself, or the `tokenizer.json` of a folder."""
    return path if path.suffix == ".json" else path / "tokenizer.json"


def open_tokenizer(folder: Path, plain_text: bool = True) -> Tokenizer:
    """Loads the `tokenizer.json` of any encoder with RoBERTa's or BERT's special tokens, for use with its own model.

    Args:
        folder: of the tokenizer or of a model; or the file itself, by a name that ends in .json.
        plain_text: special tokens spelled out in a text are encoded as text. Set False to fill a mask.

    Raises:
        BadInput: the file is missing, damaged, or lacks the special tokens.
    """
    file = _file_of(Path(folder))
    if not file.exists():
        raise BadInput(f"{file} is missing.", "Run the tokenizer stage, or give the folder of a whole model.")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise BadInput(f"{file} is damaged ({error}).", "Fetch or train it again.") from None
    if specials_of(tokenizer) is None:
        raise BadInput(
            f"{file} has neither RoBERTa's special tokens (<s>, <mask>) nor BERT's ([CLS], [MASK]).",
            "Use the tokenizer of a RoBERTa or BERT model.",
        )
    tokenizer.encode_special_tokens = plain_text
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def load_tokenizer(folder: Path, plain_text: bool = True) -> Tokenizer:
    """Loads a tokenizer for packing and pretraining, and checks the ids that packing and masking rely on.

    Args:
        folder: of the tokenizer or of a model; or the file itself, by a name that ends in .json.
        plain_text: special tokens spelled out in a text are encoded as text. Set False to fill a `<mask>`.

    Raises:
        BadInput: the file is missing, damaged, or has other special ids.
    """
    tokenizer = open_tokenizer(folder, plain_text)
    ids = [tokenizer.token_to_id(token) for token in SPECIALS]
    if ids != [0, 1, 2, 3] or tokenizer.token_to_id(MASK) != tokenizer.get_vocab_size() - 1:
        raise BadInput(
            f"{_file_of(Path(folder))}: the special tokens are not <s> 0, <pad> 1, </s> 2, <unk> 3 and <mask> last.",
            "Use a RoBERTa tokenizer.",
        )
    return tokenizer


WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
"""Words for counting: what stands between spaces, and each character of Chinese and Japanese, which have no spaces."""


def measure_tokenizer(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, float]:
    """How well a tokenizer fits texts that it has not learned from.

    Returns:
        bytes_per_token (of UTF-8; more is better), tokens_per_word (fertility; less is better; see `WORDS`), unknown_share
        (of the tokens; 0 for byte-level BPE, which can write anything).
    """
    ids = [each.ids for each in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    tokens = max(sum(map(len, ids)), 1)
    unknown = tokenizer.token_to_id(SPECIALS[3])
    return {
        "bytes_per_token": round(sum(len(text.encode("utf8")) for text in texts) / tokens, 4),
        "tokens_per_word": round(tokens / max(sum(len(WORDS.findall(text)) for text in texts), 1), 4),
        "unknown_share": round(sum(each.count(unknown) for each in ids) / tokens, 6),
    }
