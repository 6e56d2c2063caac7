"""Models from elsewhere, brought into a Hugging Face folder that everything here reads.

What a source is, is seen from its files: `model.pt` (fairseq), `config.json` (Hugging Face, RoBERTa or BERT). What is no path
is a name on the hub, of which only JSON, text and safetensors are fetched. The folder that comes of it holds float32 weights
in one safetensors file, `config.json`, `tokenizer.json` with its configuration, and `SHA256SUMS`, and was loaded back before
it was put in its place.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from roberta_core.atomic import atomic_dir
from roberta_core.data.tokenizer import ROBERTA, Specials, save_tokenizer, specials_of
from roberta_core.errors import BadInput, TryAgain
from roberta_core.exchange.fairseq import as_roberta, load_checkpoint, read_dictionary, read_tokenizer
from roberta_core.exchange.tokenizers import any_tokenizer
from roberta_core.model.config import RobertaConfig
from roberta_core.model.folder import read_config, read_values, read_weights, tokenizer_of, write_sums
from roberta_core.model.heads import POOLER, RobertaForMaskedLM, RobertaForSequenceClassification

HUB_FILES = ("*.json", "*.safetensors", "vocab.txt", "merges.txt")
"""What is fetched from the hub: nothing that could run code."""
CLASSIFIER = "classifier.out_proj.weight"


@dataclass(frozen=True)
class Imported:
    """What came in.

    Attributes:
        family: roberta, bert or fairseq.
        config: of the model that was written.
        has_tokenizer: whether a tokenizer came with it.
        revision: of a model of the hub, its commit; else empty.
        notes: what a user should know, a sentence each.
    """

    family: str
    config: RobertaConfig
    has_tokenizer: bool
    revision: str = ""
    notes: list[str] = field(default_factory=list)


def fetch_from_hub(name: str) -> tuple[Path, str]:
    """The newest files of a model of the Hugging Face hub, from its cache on this disk where they are there already.

    Returns:
        The folder, and the commit that it is of.

    Raises:
        BadInput: there is no such model, or it asks for a login. TryAgain: the hub does not answer.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        endpoint = os.environ.get("HF_ENDPOINT")
        folder = Path(snapshot_download(name, allow_patterns=list(HUB_FILES), endpoint=endpoint))
    except (HFValidationError, RepositoryNotFoundError):
        raise BadInput(
            f"There is no model folder {name} here, and none of that name on the hub.",
            "Give a folder, or a name such as FacebookAI/roberta-base; a private one needs `hf auth login`.",
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise TryAgain(
            f"{name} could not be fetched from the hub ({type(error).__name__}).",
            "Mend the connection and try again, or fetch the folder elsewhere and give its path.",
        ) from None
    return folder, folder.name


def find_source(source: str) -> tuple[Path, str]:
    """The files of a source, and its commit if it comes from the hub.

    Raises:
        BadInput: it is neither a file, nor a folder, nor a name on the hub.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path, ""
    if source.count("/") > 1 or source.startswith((".", "/", "~")):
        raise BadInput(f"{source} does not exist.", "Give a model folder, a fairseq checkpoint, or a name on the hub.")
    return fetch_from_hub(source)


def import_model(source: str, out: Path) -> Imported:
    """Reads a model from a folder, a fairseq checkpoint or the hub, and writes it to the folder `out`.

    Raises:
        BadInput: the source is missing, damaged, of another kind, or could run code; nothing is written then.
    """
    found, revision = find_source(source)
    if found.is_file() or (not (found / "config.json").exists() and (found / "model.pt").exists()):
        imported = _import_fairseq(found if found.is_file() else found / "model.pt", out)
    else:
        imported = _import_folder(found, out)
    return replace(imported, revision=revision)


def _import_fairseq(file: Path, out: Path) -> Imported:
    checkpoint = load_checkpoint(file)
    config, weights = as_roberta(checkpoint, file)
    symbols = read_dictionary(file.parent / "dict.txt")
    if len(symbols) != config.vocab_size:
        raise BadInput(
            f"{file.parent / 'dict.txt'} makes {len(symbols)} symbols, {file} has vectors for {config.vocab_size}.",
            "Give the dict.txt that the model was trained with.",
        )
    tokenizer = read_tokenizer(file.parent, symbols)
    notes = []
    if tokenizer is None:
        notes.append(
            f"It has no tokenizer: GPT-2's encoder.json and vocab.bpe are not beside {file.name}. "
            "Put them there and import again."
        )
    model = RobertaForMaskedLM(config)
    model.take_weights(weights, file)
    with atomic_dir(out) as folder:
        model.save_pretrained(folder)
        _finish(folder, config, tokenizer, ROBERTA)
    return Imported("fairseq", config, tokenizer is not None, notes=notes)


def _import_folder(source: Path, out: Path) -> Imported:
    family = "bert" if read_values(source).get("model_type") == "bert" else "roberta"
    config, weights = read_config(source), read_weights(source)
    tokenizer = any_tokenizer(source)
    specials = specials_of(tokenizer) if tokenizer else None
    notes = [] if tokenizer else [f"It has no tokenizer: there is none in {source}."]
    if tokenizer and specials is None:
        raise BadInput(
            f"The tokenizer in {source} has neither RoBERTa's special tokens nor BERT's.", "Give a whole model folder."
        )
    if specials:
        ends = tokenizer.token_to_id(specials.bos), tokenizer.token_to_id(specials.eos)
        config = replace(config, bos_token_id=ends[0], eos_token_id=ends[1])
    elif family == "bert":
        config = replace(config, bos_token_id=None, eos_token_id=None)
    if CLASSIFIER in weights:
        labels = config.id2label or {number: f"LABEL_{number}" for number in range(len(weights[CLASSIFIER]))}
        config = replace(config, id2label=labels)
        model: torch.nn.Module = RobertaForSequenceClassification(config)
        if config.has_token_types:  # a BERT's pooler is the first half of the head
            weights = {name.replace(POOLER, "classifier.dense."): each for name, each in weights.items()}
    elif any(name.startswith("lm_head.") for name in weights):
        config = replace(config, id2label={}, problem_type=None)
        model = RobertaForMaskedLM(config)
    else:
        raise BadInput(
            f"{source} holds an encoder without its masked-language-modelling head.",
            "Give the folder of a ForMaskedLM or ForPreTraining model.",
        )
    model.take_weights(weights, source)
    kept = {name: each for name, each in weights.items() if config.has_token_types and name.startswith(POOLER)}
    with atomic_dir(out) as folder:
        model.save_pretrained(folder, dict(model.saved_weights()) | kept)
        _finish(folder, config, tokenizer, specials)
    return Imported(family, config, tokenizer is not None, notes=notes)


def _finish(folder: Path, config: RobertaConfig, tokenizer, specials: Specials | None) -> None:
    """The tokenizer, its check against the model, and the digests."""
    if tokenizer is not None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        save_tokenizer(tokenizer, folder, config.max_length, specials, config.has_token_types)
        tokenizer_of(folder, config)
    write_sums(folder)
    read_weights(folder)
