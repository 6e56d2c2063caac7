"""Where a continued pretraining starts: `pretrain.init` as a model folder, with a record of what it was.

`init` names a folder, a model of the Hugging Face hub, or a registered version (`models:/roberta-encoder@champion`). An alias
moves and a hub name gets new commits; so what it means is found once, when the run begins, and kept in
`.work/pretrain/start.json` under the hash of everything else that makes the run. A run that was killed goes on from the same
weights, though another version became champion meanwhile. A folder is watched by DVC (`pretrain.init_path`); a version or
commit goes into `training.json`.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from roberta_core.atomic import digest_of, read_json, write_json
from roberta_core.errors import BadInput, BadParams
from roberta_core.exchange.importing import fetch_from_hub
from roberta_core.exchange.tokenizers import any_tokenizer
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.model.folder import read_config, read_weights
from roberta_core.model.heads import WORDS
from roberta_core.train.checkpoint import fingerprint
from tasks.params import Pretrain
from tasks.stage import WORK

PINNED = WORK / "pretrain" / "start.json"
REGISTERED = "models:/"


@dataclass(frozen=True)
class Start:
    """A model to go on from.

    Attributes:
        init: as the params file names it.
        resolved: what that was: the folder, `name@commit`, or `models:/name/3`.
        folder: where its files are.
        sha256: of its config and weights.
    """

    init: str
    resolved: str
    folder: str
    sha256: str

    def record(self) -> dict[str, str]:
        """What `training.json` and the tracker keep of it."""
        return {"init": self.init, "init_resolved": self.resolved, "init_sha256": self.sha256}


def _weights_digest(folder: Path) -> str:
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return fingerprint(files=[(file.name, digest_of(file)) for file in files])


def _resolve(root: Path, section: Pretrain) -> Start:
    init = section.init
    if init.startswith(REGISTERED):
        from tasks.registry import model_folder, named_version, open_store

        version = named_version(open_store(root), init)
        folder = model_folder(root, version.name, str(version.version))
        resolved = f"{REGISTERED}{version.name}/{version.version}"
    elif (root / init).exists() or init.startswith((".", "/")) or init.count("/") != 1:
        folder, resolved = root / init, init
        read_config(folder)  # says it if it is no model
        if (root / section.init_path).resolve() != folder.resolve():
            raise BadParams(
                f"pretrain.init is the folder {init}, and DVC watches {section.init_path}.",
                f"Set pretrain.init_path to {init} too, so that a change of it is seen.",
            )
    else:
        folder, commit = fetch_from_hub(init)
        resolved = f"{init}@{commit}"
    return Start(init, resolved, str(folder), _weights_digest(folder))


def find_start(root: Path, section: Pretrain, **run: object) -> Start | None:
    """What `pretrain.init` means for a run; None without one. The same for every rank, and for a run that is resumed.

    Args:
        run: everything else that the run is made of (JSON values).

    Raises:
        BadInput, BadParams, TryAgain: it is no model, DVC does not watch it, or the hub or registry does not answer.
    """
    if not section.init:
        return None
    key = fingerprint(section=section.model_dump(), **run)
    pin = root / PINNED
    try:
        known = read_json(pin)
        start = Start(**known["start"])
        if known["run"] == key and _weights_digest(Path(start.folder)) == start.sha256:
            return start
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no pin, or one of another run
    start = _resolve(root, section)
    write_json(pin, {"run": key, "start": asdict(start)})
    return start


def _meaning(folder: Path) -> dict:
    """The parts of a tokenizer that decide which ids a text gets.

    Raises:
        BadInput: the folder has no tokenizer.
    """
    tokenizer = any_tokenizer(folder)
    if tokenizer is None:
        raise BadInput(f"{folder} has no tokenizer.", "Put the tokenizer.json of the model into it.")
    whole = json.loads(tokenizer.to_str())
    splitting = whole["pre_tokenizer"]
    if splitting:
        splitting.pop("trim_offsets", None)  # about offsets, not ids
    kept = {key: whole["model"].get(key) for key in ("type", "vocab", "merges")}
    added = {each["content"]: each["id"] for each in whole["added_tokens"]}
    return kept | {"normalizer": whole["normalizer"], "pre_tokenizer": splitting, "all": kept["vocab"] | added}


def check_tokenizer(start: Start, tokenizer: Path) -> None:
    """Compares the tokenizer of the model with the one that the data was packed with.

    Raises:
        BadInput: a text gets other ids.
    """
    theirs, ours = _meaning(Path(start.folder)), _meaning(tokenizer)
    theirs.pop("vocab"), ours.pop("vocab")  # some keep the specials there and some do not: `all` has both
    if theirs != ours:
        raise BadInput(
            f"{start.init} was trained with another tokenizer ({len(theirs['all'])} tokens) than the packed data "
            f"({len(ours['all'])} tokens).",
            f"Set tokenizer.init to {start.folder}, so that the data is packed with the model's own.",
        )


def load_start(start: Start, vocab_size: int, dropout: float) -> RobertaForMaskedLM:
    """The model to train on: its own shape, this run's dropout; rows of its embedding that no token has are left out.

    Args:
        vocab_size: of the tokenizer, which `check_tokenizer` has compared.

    Raises:
        BadInput: the folder is no masked-language model, or its embedding has fewer rows than there are tokens.
    """
    folder = Path(start.folder)
    config: RobertaConfig = read_config(folder).with_dropout(dropout)
    if config.vocab_size < vocab_size:
        raise BadInput(
            f"{start.init}: the tokenizer has {vocab_size} tokens, the model has vectors for {config.vocab_size}.",
            "They do not belong together; give the tokenizer that the model was trained with.",
        )
    weights = read_weights(folder)
    for name in (WORDS, "lm_head.bias"):
        if name in weights and len(weights[name]) == config.vocab_size:
            weights[name] = weights[name][:vocab_size]
    model = RobertaForMaskedLM(replace(config, vocab_size=vocab_size))
    model.take_weights(weights, folder)
    return model
