"""A task of your own on the disk: which files are its splits, and which rows are held out where a file is not there.

The stage that trains and the command that scores a registered model again read the same rows by this one way.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roberta_core.errors import BadParams
from roberta_core.model.config import RobertaConfig
from roberta_core.own.kind import Data, Kind, Settings
from roberta_core.own.split import hold_out
from tasks.params import OwnTask

ENDINGS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".conll", ".iob", ".bio", ".txt")
_WORD = re.compile(r"[.-]")
NAMES = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}


def find_files(name: str, task: OwnTask) -> dict[str, Path]:
    """The files of a task: `train`, and `dev` and `test` where there are such.

    Raises:
        BadParams: a file is named that is not there, or none can be told from its name.
    """
    path, given = Path(task.path), {split: getattr(task, split) for split in NAMES}
    key = f"finetune.tasks.{name}"
    if not path.exists():
        raise BadParams(f"There is no {path}.", f"Put it there, or mend {key}.path.")
    if path.is_file():
        if any(given.values()):
            raise BadParams(f"{path} is a file, so there is nothing in it to name.", f"Set {key}.path to its folder.")
        return {"train": path}
    found = {}
    for split, names in NAMES.items():
        if given[split]:
            if not (path / given[split]).is_file():
                there = ", ".join(sorted(each.name for each in path.iterdir())[:20]) or "nothing"
                raise BadParams(f"There is no {path / given[split]} (there: {there}).", f"Mend {key}.{split}.")
            found[split] = path / given[split]
            continue
        fitting = sorted(
            each
            for each in path.iterdir()
            if each.is_file() and _WORD.split(each.name)[0] in names and set(each.suffixes) & set(ENDINGS)
        )
        if len(fitting) > 1:
            raise BadParams(f"{path} has both {fitting[0].name} and {fitting[1].name}.", f"Name one: {key}.{split}.")
        if fitting:
            found[split] = fitting[0]
    if "train" not in found:
        there = ", ".join(sorted(each.name for each in path.iterdir())[:20]) or "nothing"
        raise BadParams(
            f"{path} has no file called train, as train.csv or train.jsonl (there: {there}).",
            f"Name the training file: {key}.train.",
        )
    return found


def settings_of(name: str, task: OwnTask, config: RobertaConfig) -> Settings:
    """What the entry of finetune.tasks says, with lengths that the encoder can take."""
    length = min(task.max_length, config.max_length)
    weights, stride = task.options.class_weights, task.stride
    return Settings(
        name, task.kind, task.primary, length, min(length // 3 if stride is None else stride, length // 2),
        task.texts, task.labels, task.separator, task.token, task.tag,
        weights if isinstance(weights, str) else tuple(weights), config.has_token_types,
    )  # fmt: skip


def read_splits(kind: Kind, task: OwnTask, files: dict[str, Path]) -> tuple[dict[str, Data], dict[str, float]]:
    """Train, dev and, where there is one, test, in this order; and of each split that was held out its share.

    A share is of the whole training file, whatever was taken out before.

    Raises:
        BadInput: a file cannot be used.
    """
    data = {"train": kind.read(files["train"], training=True)}
    for split in ("dev", "test"):
        if split in files:
            data[split] = kind.read(files[split], may_hide=split == "test")
    shares = {"test": task.test_share, "dev": task.dev_share}
    held_out = {split: share for split, share in shares.items() if split not in data and share}
    notes, whole = data["train"].notes, len(data["train"])
    for split, share in held_out.items():
        train = data["train"]
        held = hold_out(train.keys(), share * whole / len(train), split, files["train"])
        data[split] = train.take([row for row, out in enumerate(held) if out])
        data["train"] = train.take([row for row, out in enumerate(held) if not out])
    data["train"].notes = notes
    return {split: data[split] for split in ("train", "dev", "test") if split in data}, held_out


def rows_digest(data: Data, head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """SHA-256 of the rows' texts and labels: it says which rows a score is of. `head`, `lines`: `Kind.predictions`."""
    labels = [line[head.index("label")] for line in lines]
    return hashlib.sha256(json.dumps([data.texts_of_rows(), labels]).encode()).hexdigest()


def lengths_told(cut: int, strided: int) -> list[str]:
    """A line for texts that were cut, and one for those that came in windows."""
    told = [f"{cut:,} texts are too long, and are cut to fit"] if cut else []
    return told + ([f"{strided:,} texts are too long, and come in windows"] if strided else [])
