"""A registered fine-tuned model scored again, on the dev rows of its task in this folder, or on a file of rows.

Two uses: the same rows must give the score that was registered (another machine, another version of a library), and other
rows, after the data were made anew, show how an old champion does on them before anything is trained.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roberta_core.atomic import digest_of
from roberta_core.errors import BadInput
from tasks.registry import model_folder, named_version, open_store

if TYPE_CHECKING:
    from tasks.params import OwnTask


@dataclass(frozen=True)
class Evaluation:
    """What a version scores here, and what it was registered with.

    Attributes:
        metrics: the task's metrics, the primary one first.
        registered: the score that stands in the registry, of the primary metric; None without one.
        same_rows: whether the dev rows are those of then.
        notes: what is odd about the rows, a line each.
    """

    model: str
    task: str
    metrics: dict[str, float]
    registered: float | None
    same_rows: bool
    notes: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """All of it as a sentence, and a line for each note."""
        told = f"{self.model} on {self.task}: {', '.join(f'{key} {value:.4f}' for key, value in self.metrics.items())}"
        if self.registered is not None:
            rows = "the same" if self.same_rows else "other"
            told += f" (registered with {self.registered:.4f}, on {rows} dev rows)"
        return "\n".join([told, *self.notes])


def evaluate_version(root: Path, name: str, rows: Path | None = None) -> Evaluation:
    """Scores `roberta-cola` (its champion), `models:/roberta-cola@challenger` or `models:/roberta-cola/2`.

    Args:
        rows: for tasks of your own a file of such rows, with labels; None: the dev rows that its entry in params.yaml gives.

    Raises:
        NotRegistered: there is no such version.
        BadInput: it is an encoder, its task's rows are not here, or `rows` is no file of such rows.
    """
    root = Path(root).resolve()
    version = named_version(open_store(root), name)
    label = f"{version.name} {version.version}"
    if "task" not in version.tags:
        raise BadInput(f"{label} is an encoder, which is scored by its classifiers.", "Name one of these.")
    if version.tags.get("data") == "own":
        return _on_own(root, version, label, rows)
    if rows is not None:
        raise BadInput(
            f"{label} is a model of GLUE's {version.tags['task']}, which is scored on data/glue/{version.tags['task']}.",
            "Leave the file away; files of rows are for tasks of your own.",
        )
    return _on_glue(root, version, label)


def _on_glue(root: Path, version, label: str) -> Evaluation:
    """A version of a GLUE task on data/glue."""
    import numpy as np

    from roberta_core.finetune import predict, tokenise
    from roberta_core.glue.layout import read_split
    from roberta_core.glue.objective import objective_of
    from roberta_core.glue.tasks import task_named
    from roberta_core.inference import ClassifierModel
    from tasks.glue import decide, score_files

    tags = version.tags
    task = task_named(tags["task"])
    devs = list(read_split(root / "data" / "glue" / task.name, task, "dev").values())
    opened = ClassifierModel(model_folder(root, version.name, str(version.version)))
    asked = json.loads(tags.get("protocol", "{}")).get("max_length", opened.model.config.max_length)
    length = min(asked, opened.model.config.max_length)
    typed = opened.model.config.has_token_types
    rows = [tokenise(opened.tokenizer, dev.texts, dev.labels, length, typed) for dev in devs]
    guesses = [decide(task, np.stack(predict(objective_of(task), opened.model, each))) for each in rows]
    metrics, _ = score_files(task, devs, guesses)
    md5s = ",".join(digest_of(file, "md5") for file in sorted((root / "data" / "glue" / task.name).glob("dev*.tsv")))
    then = json.loads(tags.get("yardstick", "{}")).get("dev_md5")
    return Evaluation(label, task.name, metrics, float(tags["score"]) if "score" in tags else None, md5s == then)


def _on_own(root: Path, version, label: str, file: Path | None) -> Evaluation:
    """A version of a task of your own on its dev rows, or on those of a file."""
    from roberta_core.finetune import predict
    from roberta_core.inference import load_model
    from roberta_core.model.folder import tokenizer_of
    from roberta_core.own.kinds import kind_of
    from roberta_core.own.served import read_task
    from tasks.own_files import find_files, lengths_told, read_splits, rows_digest, settings_of

    tags, name = version.tags, version.tags["task"]
    task = _entry(root, label, name, tags["kind"])
    folder = model_folder(root, version.name, str(version.version))
    model, served = load_model(folder).model, read_task(folder)
    lengths = {key: served[key] for key in ("max_length", "stride")}
    # the columns are those of the file that lies here, the metric is the one that was registered
    kind = kind_of(replace(settings_of(name, task, model.config), metric=tags["measure"], **lengths))
    if file is None:
        files = find_files(name, task)
        data, file = read_splits(kind, task, files)[0]["dev"], files.get("dev", files["train"])
    elif file.is_file():
        data = kind.read(file)
    else:
        raise BadInput(f"There is no file {file}.", f"Name a file of rows as {task.path} has them, or none.")
    threshold = kind.restore([model.config.id2label[at] for at in sorted(model.config.id2label)], served, data)
    notes = data.notes + kind.check(data, file)
    rows = kind.rows(tokenizer_of(folder, model.config), data)
    notes += lengths_told(getattr(rows, "truncated", 0), getattr(rows, "strided", 0))
    outputs = predict(kind.objective(), model, rows)
    guesses = kind.decide(rows, outputs, data, threshold)
    metrics, undefined = kind.score(data, guesses)
    same = (
        rows_digest(data, *kind.predictions(data, guesses, rows, outputs))
        == json.loads(tags["yardstick"])["dev_sha256"]
    )
    rounded = {key: round(value, 6) for key, value in metrics.items()}
    return Evaluation(label, name, rounded, float(tags["score"]), same, tuple(notes + undefined))


def _entry(root: Path, label: str, name: str, kind: str) -> "OwnTask":
    """The entry of finetune.tasks in this folder's params.yaml, which says where the rows and their columns are.

    Raises:
        BadInput: there is none, or one of another kind.
    """
    from tasks.params_file import load_params

    task = load_params(root / "params.yaml").finetune.tasks.get(name)
    if task is None or task.kind != kind:
        there = "has no such task" if task is None else f"has it as a task of kind {task.kind}"
        raise BadInput(
            f"{label} was made for {name}, a task of kind {kind}, and {root / 'params.yaml'} {there}.",
            f"Put its entry back: finetune.tasks.{name}.",
        )
    return task.model_copy(update={"path": str(root / task.path)})
