"""fairseq RoBERTa checkpoints (`model.pt`, `dict.txt`), read without running the code that a pickle may hold.

A `.pt` file is a pickle: a list of instructions that may call any function by its name. So the names are listed first,
without executing anything. Allowed are what torch itself allows with `weights_only`, and the settings that fairseq saves
beside the weights (argparse.Namespace, and classes of omegaconf and fairseq), which are replaced by `Inert`, an object that
holds values and does nothing. Any other name ends the import with a line that says which one. Then `torch.load` reads the
file with its restricted unpickler, which knows these stand-ins alone; fairseq and omegaconf need not be installed.

The weights are the same network under other names (fairseq/models/roberta/model.py). Ids are those of `dict.txt`: the four
specials, its lines in order, `<mask>` last; `dict.txt` names tokens of GPT-2's BPE by their numbers in `encoder.json`.
"""

import argparse
import io
import json
import pickletools
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from tokenizers import Tokenizer

from roberta_core.data.tokenizer import MASK, SPECIALS
from roberta_core.errors import BadInput
from roberta_core.exchange.tokenizers import byte_level
from roberta_core.model.config import RobertaConfig

HEAD_SIZE = 64
"""Of every model in the paper (table 9), for checkpoints that do not carry their settings."""
_PLAIN = {each.__name__: each for each in (bool, dict, float, int, list, set, str, tuple)}
_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING")

_LAYER = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "output.LayerNorm",
}
_OUTSIDE = {
    "sentence_encoder.embed_tokens.weight": "roberta.embeddings.word_embeddings.weight",
    "sentence_encoder.embed_positions.weight": "roberta.embeddings.position_embeddings.weight",
    "sentence_encoder.layernorm_embedding.weight": "roberta.embeddings.LayerNorm.weight",
    "sentence_encoder.layernorm_embedding.bias": "roberta.embeddings.LayerNorm.bias",
    "lm_head.dense.weight": "lm_head.dense.weight",
    "lm_head.dense.bias": "lm_head.dense.bias",
    "lm_head.layer_norm.weight": "lm_head.layer_norm.weight",
    "lm_head.layer_norm.bias": "lm_head.layer_norm.bias",
    "lm_head.bias": "lm_head.bias",
}


class Inert:
    """Stands in for the classes of a checkpoint's settings: takes whatever it is given, and does nothing with it."""

    def __new__(cls, *args: object, **kwargs: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object):
        self.arguments = args

    def __setstate__(self, state: object) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


def _stand_in(name: str) -> type | None:
    """What a global of the settings is replaced by: the plain containers are themselves, other classes are `Inert`."""
    if name == "collections.defaultdict":
        return defaultdict
    module, _, short = name.partition(".")
    if module in ("builtins", "__builtin__") and short in _PLAIN:
        return _PLAIN[short]
    settings = name == "argparse.Namespace" or name.startswith(("omegaconf.", "fairseq.", "typing.", "enum."))
    return Inert if settings else None


def _globals_of(pickled: io.BufferedIOBase) -> set[str]:
    """Full names that the next pickle in a stream refers to; nothing is executed."""
    names, strings = set(), []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("GLOBAL", "INST"):
            names.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":  # module and name come from the stack, mostly the two strings before
            names.add(".".join(strings[-2:]))
        elif opcode.name in _STRINGS:
            strings.append(str(argument))
    return names


def _all_globals(file: Path) -> set[str]:
    """The globals of a `torch.save` file, in PyTorch's zip format or in the one before 1.6: four pickles in a row."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            inside = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if inside is None:
                raise ValueError("it has no data.pkl")
            return _globals_of(io.BytesIO(archive.read(inside)))
    with open(file, "rb") as handle:
        return set().union(*(_globals_of(handle) for _ in range(4)))


def load_checkpoint(file: Path) -> dict:
    """The content of a fairseq checkpoint, on the CPU; its settings as `Inert` objects.

    Raises:
        BadInput: the file is missing, damaged, no checkpoint, or refers to anything that could run code.
    """
    try:
        found = _all_globals(file)
        replaced = {name.replace("__builtin__.", "builtins."): _stand_in(name) for name in sorted(found)}
        with torch.serialization.safe_globals([(each, name) for name, each in replaced.items() if each]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"{file} is missing.", "Give fairseq's model.pt, or the folder that it lies in.") from None
    except UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise BadInput(f"{file} is no fairseq checkpoint, or damaged.", "Fetch it again.") from None
        raise BadInput(
            f"{file} refers to {refused[1]}, which can run code when it is loaded; nothing of it was run.",
            "A fairseq checkpoint holds tensors and settings alone: find out where this one comes from.",
        ) from None
    except Exception as error:  # pickletools, zipfile and torch each have their own for a damaged file
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{file} is no fairseq checkpoint, or damaged ({why}).", "Fetch it again.") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), Mapping):
        raise BadInput(f"{file} is no fairseq checkpoint: it has no entry 'model'.", "Give fairseq's model.pt.")
    return content


def setting(checkpoint: dict, name: str) -> object:
    """A setting of the model, from `args` (argparse, to fairseq 0.9) or `cfg` (omegaconf, from 0.10), or None."""

    def plain(value: object) -> object:
        return plain(vars(value).get("_val")) if isinstance(value, Inert) and "_val" in vars(value) else value

    waiting, seen = [checkpoint.get("args"), checkpoint.get("cfg")], set()
    while waiting:
        at = plain(waiting.pop(0))
        if id(at) in seen:  # omegaconf's nodes know their parents
            continue
        seen.add(id(at))
        at = vars(at) if isinstance(at, Inert | argparse.Namespace) else at
        if not isinstance(at, Mapping):
            continue
        if name in at and plain(at[name]) is not None:
            return plain(at[name])
        waiting += [value for value in at.values() if isinstance(value, Inert | Mapping)]
    return None


def as_roberta(checkpoint: dict, file: Path) -> tuple[RobertaConfig, dict[str, torch.Tensor]]:
    """Configuration and weights under Hugging Face's names.

    Raises:
        BadInput: it is no RoBERTa of this kind.
    """
    activation = setting(checkpoint, "activation_fn")
    if activation not in (None, "gelu"):
        raise BadInput(f"{file}: the activation is {activation}.", "Only gelu, RoBERTa's own, is supported.")
    found = {}
    for name, tensor in checkpoint["model"].items():
        name = re.sub(r"^(decoder|encoder)\.", "", name).replace(".emb_layer_norm.", ".layernorm_embedding.")
        layer = re.fullmatch(r"sentence_encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        joined = re.fullmatch(r"sentence_encoder\.layers\.(\d+)\.self_attn\.in_proj_(weight|bias)", name)
        if joined:  # query, key and value as one, in checkpoints of 2019
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3)):
                found[f"roberta.encoder.layer.{joined[1]}.attention.self.{part}.{joined[2]}"] = piece
        elif layer and layer[2] in _LAYER:
            found[f"roberta.encoder.layer.{layer[1]}.{_LAYER[layer[2]]}.{layer[3]}"] = tensor
        elif name in _OUTSIDE:
            found[_OUTSIDE[name]] = tensor
        elif name == "lm_head.weight":
            found["lm_head.decoder.weight"] = tensor
        elif name == "sentence_encoder.layer_norm.weight" or (
            name.startswith("sentence_encoder.") and tensor.dim() > 1
        ):
            raise BadInput(
                f"{file} has the weight {name}, which no RoBERTa of the paper has.",
                "Models with another layout, such as roberta.xl with its norm before each block, are not supported.",
            )
    return _config(checkpoint, found, file), found


def _config(checkpoint: dict, weights: dict[str, torch.Tensor], file: Path) -> RobertaConfig:
    words = weights.get("roberta.embeddings.word_embeddings.weight")
    positions = weights.get("roberta.embeddings.position_embeddings.weight")
    wide = weights.get("roberta.encoder.layer.0.intermediate.dense.weight")
    if words is None or positions is None or wide is None:
        raise BadInput(f"{file} holds no RoBERTa encoder.", "Give a checkpoint of fairseq's roberta models.")
    decoder = weights.pop("lm_head.decoder.weight", None)
    if decoder is not None and not torch.equal(decoder, words):
        raise BadInput(
            f"{file}: the output matrix is not the word embedding (untie_weights_roberta).",
            "Only models whose two are one, as in the paper, are supported.",
        )
    width = words.shape[1]
    # fairseq's models have no token types; Hugging Face's have one, whose vector is 0
    weights["roberta.embeddings.token_type_embeddings.weight"] = torch.zeros(1, width)
    dropout, attention = (setting(checkpoint, name) for name in ("dropout", "attention_dropout"))
    return RobertaConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=1 + max(int(re.search(r"layer\.(\d+)", name)[1]) for name in weights if ".layer." in name),
        num_attention_heads=int(setting(checkpoint, "encoder_attention_heads") or max(1, width // HEAD_SIZE)),
        intermediate_size=len(wide),
        max_position_embeddings=len(positions),
        hidden_dropout_prob=0.1 if dropout is None else float(dropout),
        attention_probs_dropout_prob=0.1 if attention is None else float(attention),
    )


def read_dictionary(file: Path) -> list[str]:
    """The symbols of a `dict.txt` in the order of their ids: four specials, its lines, `<mask>`.

    Raises:
        BadInput: the file is missing, not UTF-8, or a line is no symbol with a count.
    """
    try:
        lines = file.read_text(encoding="utf8").split("\n")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else "is not UTF-8"
        raise BadInput(f"{file} {why}.", "It belongs beside model.pt, as fairseq-preprocess wrote it.") from None
    symbols = list(SPECIALS)
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        word, _, count = line.removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not word or not count.strip().isdigit():
            raise BadInput(f"{file}, line {number}: {line!r:.60} is no symbol with a count.", "Fetch it again.")
        symbols.append(word)
    symbols += [] if MASK in symbols else [MASK]
    if len(set(symbols)) != len(symbols):
        twice = next(each for at, each in enumerate(symbols) if each in symbols[:at])
        raise BadInput(f"{file} has {twice} twice.", "Fetch it again.")
    return symbols


def read_tokenizer(folder: Path, symbols: list[str]) -> Tokenizer | None:
    """The tokenizer that gives the ids of a `dict.txt`; None where GPT-2's `encoder.json` and `vocab.bpe` are not there.

    Raises:
        BadInput: these files are damaged, or the dictionary is of another BPE.
    """
    encoder, merges = folder / "encoder.json", folder / "vocab.bpe"
    if not encoder.is_file() or not merges.is_file():
        return None
    try:
        tokens = {str(number): token for token, number in json.loads(encoder.read_text(encoding="utf8")).items()}
        pairs = [tuple(line.split(" ")) for line in merges.read_text(encoding="utf8").split("\n")[1:] if line]
    except (ValueError, AttributeError):
        raise BadInput(f"{encoder} or {merges} is damaged.", "Fetch both again.") from None
    unknown = [each for each in symbols[4:-1] if each not in tokens and not each.startswith("madeupword")]
    if unknown:
        raise BadInput(
            f"{folder / 'dict.txt'}: {unknown[0]} and {len(unknown) - 1} more are no numbers of {encoder}.",
            "Give the encoder.json and vocab.bpe that the corpus was encoded with.",
        )
    # the specials and <mask> may be spelled in encoder.json too: by their place they are the dictionary's
    vocabulary = {tokens.get(each, each): number for number, each in enumerate(symbols)}
    vocabulary |= {token: number for number, token in enumerate(SPECIALS)} | {MASK: len(symbols) - 1}
    return byte_level(vocabulary, pairs, str(merges))
