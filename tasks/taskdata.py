"""Stage `taskdata`: the tasks to fine-tune on, as `data/glue/<TASK>/` in GLUE's official layout.

Three origins, one layout, so that the glue stage knows no difference: sample tasks made from the corpus, a local folder
that is copied byte for byte after it was read through, or the hub's tables written as the official files would be.
`data/glue/origin.json` says which; sample tasks are never called GLUE.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from roberta_core.atomic import atomic_dir, write_json
from roberta_core.data.documents import read_shards
from roberta_core.errors import BadInput, TryAgain
from roberta_core.glue.layout import Split, read_split, write_file
from roberta_core.glue.sample import DESCRIPTIONS, sample_tasks
from roberta_core.glue.tasks import SPLITS, TASKS, Task
from tasks.params import Params
from tasks.stage import main

if TYPE_CHECKING:
    from datasets import Dataset

OUT = Path("data/glue")


def run(params: Params) -> dict:
    """Writes data/glue. Returns the rows of each task and file."""
    section = params.glue
    tasks = [TASKS[name] for name in section.tasks]
    origin: dict = {"data": section.data}
    with atomic_dir(OUT) as out:
        if section.data == "sample":
            made = sample_tasks(_documents(Path(section.path)), tasks, section.sample_rows, params.seed)
            for task in tasks:
                for name, rows in made[task.name].items():
                    write_file(out / task.name / name, task, name.split(".")[0].split("_")[0], rows, "sample")
            origin |= {
                "note": "Sample tasks, made from the corpus. Their scores are not GLUE scores.",
                "tasks": {task.name: DESCRIPTIONS[task.name] for task in tasks},
            }
        elif section.data == "local":
            for task in tasks:
                _copy(Path(section.path) / task.name, out / task.name, task)
            origin |= {"tasks": {task.name: "local folder in the official layout" for task in tasks}}
        else:
            for task in tasks:
                _from_hub(section.hub_name, section.hub_revision, out / task.name, task)
            origin |= {"name": section.hub_name, "revision": section.hub_revision}
            origin |= {"tasks": {task.name: f"{section.hub_name}, {task.hub}" for task in tasks}}
        # an error shall name the user's own file, not its copy
        given = Path(section.path) if section.data == "local" else out
        metrics = _check(given, tasks, section.data == "sample", section.sample_rows)
        write_json(out / "origin.json", origin)
    return metrics


def _check(out: Path, tasks: list[Task], sample: bool, asked: int) -> dict[str, int]:
    """Reads all files once, as the glue stage will. Returns rows by task and file."""
    metrics = {}
    kind = "sample task" if sample else "task"
    for task in tasks:
        counts, broken = {}, 0
        for split in SPLITS:
            for name, rows in read_split(out / task.name, task, split).items():
                counts[name.removesuffix(".tsv")] = len(rows)
                broken += rows.broken
        shown = ", ".join(f"{rows} {name}" for name, rows in counts.items())
        few = (
            f" (fewer than the {asked} asked for: the corpus holds no more)"
            if sample and counts["train"] < asked - 5
            else ""
        )
        print(f"taskdata: {kind} {task.name}: {shown} rows{few}", flush=True)
        metrics |= {f"{task.name}.{name}": rows for name, rows in counts.items()}
        if broken:
            metrics[f"{task.name}.broken"] = broken
    return metrics


def _documents(folder: Path) -> Iterator[tuple[str, str]]:
    """(doc_id, text) of all documents under a folder of shards, or under its train and validation folders."""
    inner = [folder / name for name in ("train", "validation") if (folder / name).is_dir()]
    for each in inner or [folder]:
        for batch in read_shards(each, ["doc_id", "text"]):
            for name, text in zip(batch.column("doc_id"), batch.column("text")):
                yield name.as_py(), text.as_py()


def _copy(source: Path, target: Path, task: Task) -> None:
    """Copies the official files of one task as they are.

    Raises:
        BadInput: the folder, or a file of train or dev, is missing.
    """
    if not source.is_dir():
        raise BadInput(
            f"There is no folder {source}.",
            "Set glue.path to a folder in GLUE's official layout, or take the task out of glue.tasks.",
        )
    target.mkdir(parents=True)
    for split in SPLITS:
        for name in task.files(split):
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)
            elif split != "test":
                raise BadInput(
                    f"{source / name} is missing.", "Complete the folder, or take the task out of glue.tasks."
                )


def hub_rows(table: "Dataset", task: Task, split: str, name: str) -> Split:
    """One split of a hub dataset as rows; the labels of test are hidden (-1) there, and left out here.

    Raises:
        BadInput: a column is missing, or a label is unknown.
    """
    needed = (*task.hub_texts, "label")
    for column in needed:
        if column not in table.column_names:
            raise BadInput(
                f"{name}: the column {column} is missing (found: {', '.join(table.column_names)}).",
                f"Set glue.hub_name to a dataset with the columns of nyu-mll/glue ({', '.join(needed)}).",
            )
    texts = list(zip(*(table[column] for column in task.hub_texts)))
    labels = list(table["label"]) if split != "test" else []
    allowed = range(len(task.values)) if task.values else None
    for row, label in enumerate(labels):
        if label is None or (allowed is not None and label not in allowed):
            raise BadInput(
                f"{name}, row {row}, column label: unknown label {label!r}.",
                f"{task.name} takes 0 to {len(task.values) - 1}." if task.values else f"{task.name} takes numbers.",
            )
    return Split(texts, labels, list(range(len(texts))))


def _from_hub(hub_name: str, revision: str, target: Path, task: Task) -> None:
    """Writes one task of a hub dataset (or of a local folder that `datasets` reads) in the official layout.

    Raises:
        TryAgain: the hub does not answer.
        BadInput: there is no such dataset, configuration or split.
    """
    import datasets

    try:
        table = datasets.load_dataset(hub_name, task.hub, revision=revision if not Path(hub_name).is_dir() else None)
    except (ConnectionError, OSError) as error:
        if (
            isinstance(error, FileNotFoundError)
            and "offline" not in str(error).lower()
            and "reach" not in str(error).lower()
        ):
            raise BadInput(f"{hub_name} has no dataset {task.hub} ({_first(error)}).", "Mend glue.hub_name.") from None
        raise TryAgain(
            f"The hub does not answer for {hub_name} ({_first(error)}).", "Try again, or set glue.data to local."
        ) from None
    except ValueError as error:
        raise BadInput(
            f"{hub_name}: {_first(error)}.", f"Mend glue.hub_name; {task.name} is its configuration {task.hub}."
        ) from None
    for split in SPLITS:
        for file, name in zip(task.files(split), task.hub_splits(split)):
            if name not in table:
                raise BadInput(f"{hub_name}, {task.hub}: there is no split {name}.", "Mend glue.hub_name.")
            write_file(
                target / file,
                task,
                split,
                hub_rows(table[name], task, split, f"{hub_name}, {task.hub}, {name}"),
                "hub",
            )


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main("taskdata", run))
