"""Stage `taskdata`: the tasks to fine-tune on, as `data/glue/<TASK>/` in GLUE's official layout.

Four origins, one layout, so that the glue stage knows no difference: sample tasks made from the corpus, a local folder
that is copied byte for byte after it was read through, or the hub's tables, from a folder of parquet files or from the hub
itself, written as the official files would be. `data/glue/origin.json` says which; sample tasks are never called GLUE.

The AX diagnostic, which MNLI's model predicts and nothing is trained on, comes with MNLI where the origin has it.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from roberta_core.atomic import atomic_dir, write_json
from roberta_core.data.documents import read_shards
from roberta_core.errors import BadInput, TryAgain
from roberta_core.glue.layout import Split, read_split, write_file
from roberta_core.glue.sample import DESCRIPTIONS, sample_tasks
from roberta_core.glue.tables import parquet_files, read_parquet, table_rows
from roberta_core.glue.tasks import AX_LABELLED, SPLITS, TASKS, Task
from tasks.params import Params
from tasks.stage import main

OUT = Path("data/glue")
AX_FOLDERS = ("AX", "diagnostic")
"""Names of the diagnostic's folder: ours, and that of the usual download script."""


def run(params: Params) -> dict:
    """Writes data/glue. Returns the rows of each task and file."""
    section = params.glue
    tasks = [TASKS[name] for name in section.all_tasks]
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
        elif section.data == "parquet":
            for task in tasks:
                _from_parquet(Path(section.path), out / task.name, task)
            origin |= {"tasks": {task.name: f"parquet files of {task.hub}" for task in tasks}}
        else:
            for task in tasks:
                _from_hub(section.hub_name, section.hub_revision, out / task.name, task)
            origin |= {"name": section.hub_name, "revision": section.hub_revision}
            origin |= {"tasks": {task.name: f"{section.hub_name}, {task.hub}" for task in tasks}}
        if "MNLI" in section.tasks and section.data != "sample" and _diagnostic(params, out / AX_LABELLED.name):
            tasks = [*tasks, TASKS["AX"]]
            origin["tasks"]["AX"] = "nothing is trained on it: the model of MNLI predicts it"
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
            for name, rows in _read(out, task, split).items():
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


def _read(root: Path, task: Task, split: str) -> dict[str, Split]:
    if not task.predicted_by:
        return read_split(root / task.name, task, split)
    folder = next(root / name for name in AX_FOLDERS if (root / name).is_dir())
    asked = AX_LABELLED if split == "dev" else task
    return (
        {} if not any((folder / name).is_file() for name in asked.files(split)) else read_split(folder, asked, split)
    )


def _diagnostic(params: Params, target: Path) -> bool:
    """Brings the AX diagnostic along where the origin has it. Returns whether it has."""
    section, task = params.glue, TASKS["AX"]
    if section.data == "local":
        folders = [Path(section.path) / name for name in AX_FOLDERS]
        names = (*task.files("test"), *AX_LABELLED.files("dev"))
        files = next(
            ([each / name for name in names if (each / name).is_file()] for each in folders if each.is_dir()), []
        )
        if files:
            target.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, target / file.name)
        return bool(files)
    if section.data == "parquet":
        there = bool(parquet_files(Path(section.path), task.hub, "test"))
        if there:
            _from_parquet(Path(section.path), target, task)
        return there
    try:
        _from_hub(section.hub_name, section.hub_revision, target, task)
    except BadInput as error:
        print(f"taskdata: without the AX diagnostic: {error.what}", flush=True)
        return False
    return True


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


def _from_parquet(folder: Path, target: Path, task: Task) -> None:
    """Writes one task of a folder with the hub's parquet files in the official layout."""
    for split in SPLITS:
        for file, rows in read_parquet(folder, task, split).items():
            write_file(target / file, task, split, rows, "hub")


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
            columns = {column: list(table[name][column]) for column in table[name].column_names}
            rows = table_rows(columns, task, split, f"{hub_name}, {task.hub}, {name}", "glue.hub_name")
            write_file(target / file, task, split, rows, "hub")


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main("taskdata", run))
