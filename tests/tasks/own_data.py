"""Small files of every kind of task and their parameters: what a user brings, in words that a tiny encoder knows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.params import Params
from tests.core.glue.tiny_encoder import write_encoder

KINDS = ("pets", "several", "prices", "entities", "questions")
"""The tasks of `write_own`, one of each kind."""

PETS = ("cat", "dog")
PLACES = ("mat", "sofa", "garden", "roof")
VERBS = ("sat", "ran", "slept", "hid")
TEXT = "The cat dog sat ran slept hid on the mat sofa garden roof . Where was it ? Nobody knew why , and who asked ? "


def sentences() -> list[tuple[str, str, str, str]]:
    """(text, pet, verb, place) of all 64 sentences, each twice with another first word."""
    return [
        (f"{first} {pet} {verb} on the {place} .", pet, verb, place)
        for first in ("The", "That")
        for pet in PETS
        for verb in VERBS
        for place in PLACES
    ]


def write_own(inside: Path, root: Path = Path()) -> dict[str, dict]:
    """Writes a file for each kind into `root / inside`. Returns finetune.tasks, whose paths begin with `inside`."""
    folder = root / inside
    folder.mkdir(parents=True, exist_ok=True)
    rows = sentences()
    lines = ["text,label", *(f"{text},{pet}" for text, pet, _, _ in rows)]
    (folder / "pets.csv").write_text("\n".join(lines))
    objects = [{"text": text, "tags": [pet] + ["rest"] * (verb == "slept")} for text, pet, verb, _ in rows]
    (folder / "several.jsonl").write_text("\n".join(map(json.dumps, objects)))
    price = {"mat": 100, "sofa": 900, "garden": 400, "roof": 200}
    lines = ["a\tb\tprice", *(f"{text}\tWhere was it ?\t{price[place]}" for text, _, _, place in rows)]
    (folder / "prices.tsv").write_text("\n".join(lines))
    (folder / "entities").mkdir(exist_ok=True)
    blocks = []
    for text, pet, _, place in rows:
        tags = {pet: "B-pet", place: "I-place", "the": "B-place"}
        blocks.append("\n".join(f"{word}\t{tags.get(word, 'O')}" for word in text.split()))
    (folder / "entities/train.conll").write_text("\n\n".join(blocks[:48]) + "\n")
    (folder / "entities/dev.conll").write_text("\n\n".join(blocks[48:56]) + "\n")
    (folder / "entities/test.conll").write_text("\n\n".join(blocks[56:]) + "\n")
    articles = []
    for number in range(12):
        text, _, _, place = rows[5 * number]
        answer = {"text": place, "answer_start": text.index(place)}
        asked = [
            {"id": f"{number}a", "question": "Where was it ?", "answers": [answer]},
            {"id": f"{number}b", "question": "Who asked ?", "answers": [], "is_impossible": True},
        ]
        articles.append({"title": f"t{number}", "paragraphs": [{"context": f"{text} {TEXT}", "qas": asked}]})
    (folder / "questions.json").write_text(json.dumps({"version": "2.0", "data": articles}))
    fast = {"epochs": 2, "batch_size": 8, "peak_lr": 3e-3, "dropout": 0.0, "max_length": 48}
    return {
        "pets": {"kind": "classification", "path": str(inside / "pets.csv"), **fast, "epochs": 8},
        "several": {"kind": "multi-label", "path": str(inside / "several.jsonl"), "label": "tags", **fast, "epochs": 6},
        "prices": {
            "kind": "regression", "path": str(inside / "prices.tsv"), "text": ["a", "b"], "label": "price", **fast,
        },
        "entities": {"kind": "tokens", "path": str(inside / "entities"), **fast},
        "questions": {
            "kind": "questions", "path": str(inside / "questions.json"), "dev_share": 0.25, "test_share": 0.25, **fast,
        },
    }  # fmt: skip


def params_of(tasks: dict[str, dict], encoder: Path | str = "models/encoder", **glue) -> Params:
    """Parameters with these own tasks."""
    return Params.model_validate(
        {
            "corpus": {"sources": {"hand": {"kind": "files", "path": "text"}}},
            "pretrain": {"max_steps": 1, "batch_size": 1},
            "glue": {"tasks": ["CoLA"]} | glue,
            "finetune": {"encoder": str(encoder), "tasks": tasks},
            "runtime": {"device": "cpu"},
        }
    )


@contextmanager
def standing_in(root: Path) -> Iterator[None]:
    """As a stage is run: in the project's folder, with its own store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


def write_project(root: Path) -> dict[str, dict]:
    """An encoder that knows the words, and a file of every kind in `own`. Returns finetune.tasks."""
    words = " ".join(text for text, *_ in sentences())
    write_encoder(root / "models/encoder", (TEXT + words + " abcdefghijklmnopqrstuvwxyz the and that with from") * 2)
    return write_own(Path("own"), root)
