"""Hugging Face model folders: `config.json` and `model.safetensors`, whole or in shards.

Only JSON and safetensors are read: neither can run code. A pickle (`pytorch_model.bin`) is refused, under whatever name.
A folder with a `SHA256SUMS` beside its files, as `roberta import` and `roberta export` write it, is checked against it
before anything is used (about a second a gigabyte): safetensors itself does not notice a flipped bit in a weight.

safetensors and tokenizers are imported where they are used, so that a model can be built and timed with torch and numpy alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from roberta_core.atomic import atomic_file, digest_of, write_json
from roberta_core.errors import BadInput
from roberta_core.model.bert import weights_as_roberta
from roberta_core.model.config import RobertaConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WEIGHTS = "model.safetensors"
SUMS = "SHA256SUMS"
"""Digests of the files beside it, in the format of sha256sum."""
SUMMED = ("config.json", WEIGHTS, "tokenizer.json")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def read_values(folder: Path) -> dict:
    """The content of `config.json`.

    Raises:
        BadInput: the folder or the file is missing, or it is no JSON object.
    """
    file = folder / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            f"{folder} is no model folder: it has no config.json.",
            "Give a folder that save_pretrained wrote, such as models/encoder.",
        ) from None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise BadInput(f"{file} is not a JSON object.", "Export the model again.")
    return values


def read_config(folder: Path) -> RobertaConfig:
    """Reads `config.json` of a RoBERTa, or of a BERT as that of a RoBERTa with the same logits.

    Raises:
        BadInput: the folder or the file is missing, not JSON, or of another kind of model.
    """
    return RobertaConfig.from_hugging_face(read_values(folder), folder)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Reads all weights of a folder, on the CPU, under RoBERTa's names (`roberta_core.model.bert` for a BERT's).

    Raises:
        BadInput: no safetensors file, a damaged one, or a pickle.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    values = read_values(folder)
    config = RobertaConfig.from_hugging_face(values, folder)
    check_sums(folder)
    weights: dict[str, torch.Tensor] = {}
    for file in _weight_files(folder):
        _refuse_pickle(file)
        try:
            weights |= load_file(file)
        except (SafetensorError, ValueError, OSError) as error:
            raise BadInput(f"{file} is damaged ({error}).", "Fetch or export it again.") from None
    if values.get("model_type") == "bert":
        weights = weights_as_roberta(weights, config.pad_token_id, folder)
    # RobertaModel alone has no prefix
    bare = ("embeddings.", "encoder.", "pooler.")
    weights = {f"roberta.{name}" if name.startswith(bare) else name: each for name, each in weights.items()}
    if "lm_head.bias" not in weights and "lm_head.decoder.bias" in weights:  # one tensor under two names
        weights["lm_head.bias"] = weights["lm_head.decoder.bias"]
    decoder, embedding = (
        weights.get("lm_head.decoder.weight"),
        weights.get("roberta.embeddings.word_embeddings.weight"),
    )
    if decoder is not None and embedding is not None and not torch.equal(decoder, embedding):
        raise BadInput(
            f"{folder}: the output matrix is not the word embedding (tie_word_embeddings is off).",
            "Only models whose two are one, as in RoBERTa and BERT, are supported.",
        )
    return weights


def _weight_files(folder: Path) -> list[Path]:
    index = folder / f"{WEIGHTS}.index.json"
    if not index.exists():
        file = folder / WEIGHTS
        if not file.exists():
            pickles = sorted(each.name for each in folder.iterdir() if each.suffix in PICKLES)
            if pickles:
                raise BadInput(
                    f"{folder} holds a pickle ({pickles[0]}), which can run code when it is loaded.",
                    "Convert it to model.safetensors first.",
                )
            raise BadInput(f"{file} is missing.", "Give a whole model folder.")
        return [file]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values()))
        strange = [name for name in names if Path(name).name != name]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{index} is damaged.", "Fetch or export it again.") from None
    if strange or not names:
        raise BadInput(f"{index} names {strange or 'no files'}.", "It may name files beside it only; fetch it again.")
    for name in names:
        if not (folder / name).exists():
            raise BadInput(f"{folder / name} is missing.", "Give a whole model folder.")
    return [folder / name for name in names]


def is_pickle(file: Path) -> bool:
    """Whether a file begins as a pickle does, or as PyTorch's own format, which is a zip file with a pickle in it."""
    with open(file, "rb") as handle:
        begin = handle.read(9)
    # safetensors begins with the length of its header in 8 bytes, then the header's brace
    return begin[8:] != b"{" and begin.startswith((b"PK\x03\x04", b"\x80"))


def _refuse_pickle(file: Path) -> None:
    if is_pickle(file):
        raise BadInput(
            f"{file} is a pickle under another name, which can run code when it is loaded; it was not opened.",
            "Find out where it comes from, and convert it to safetensors.",
        )


def check_sums(folder: Path) -> None:
    """Compares the files of a folder with its `SHA256SUMS`, where there is one.

    Raises:
        BadInput: a file is not what it was, or not there.
    """
    sums = folder / SUMS
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        file = folder / Path(name).name
        if not file.is_file() or digest_of(file) != digest:
            raise BadInput(
                f"{file} is damaged or was changed: its SHA-256 is not the one in {SUMS}.",
                f"Fetch or export it again; delete {SUMS} if it was changed on purpose.",
            )


def write_sums(folder: Path) -> None:
    """Writes `SHA256SUMS` over the files that decide what a model answers."""
    with atomic_file(folder / SUMS) as handle:
        for name in SUMMED:
            if (folder / name).is_file():
                handle.write(f"{digest_of(folder / name)}  {name}\n")


def write_folder(folder: Path, config: dict, weights: Mapping[str, torch.Tensor]) -> None:
    """Writes `config.json` and `model.safetensors` (float32) into `folder`; equal weights give equal bytes."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    plain = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in sorted(weights.items())}
    temporary = folder / f".{WEIGHTS}.tmp"
    save_file(plain, temporary, metadata={"format": "pt"})
    temporary.replace(folder / WEIGHTS)


def tokenizer_of(folder: Path, config: RobertaConfig, plain_text: bool = True) -> "Tokenizer":
    """The tokenizer of a model folder, checked against the model beside it.

    Args:
        plain_text: as in `roberta_core.data.tokenizer.open_tokenizer`.

    Raises:
        BadInput: it has ids that the model has no vector for, or pads with another token.
    """
    from roberta_core.data.tokenizer import open_tokenizer, specials_of

    tokenizer = open_tokenizer(folder, plain_text)
    size = max(tokenizer.get_vocab().values()) + 1
    if size > config.vocab_size:
        raise BadInput(
            f"{folder}: the tokenizer has {size} tokens, the model has vectors for {config.vocab_size}.",
            "They do not belong together; give the tokenizer.json that the model was trained with.",
        )
    pad = tokenizer.token_to_id(specials_of(tokenizer).pad)
    if pad != config.pad_token_id:
        raise BadInput(
            f"{folder}: the tokenizer pads with {pad}, the model with {config.pad_token_id}.",
            "They do not belong together; give the tokenizer.json that the model was trained with.",
        )
    return tokenizer
