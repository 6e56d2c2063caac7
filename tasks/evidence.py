"""What lies beside a registered model, so that it can be judged and traced when the project has moved on.

The folder `evidence/` of a version holds, as plain text and JSON:
- `tasks/<TASK>/`: results.json and dev_predictions.tsv of the classifier, or, for an encoder, of every classifier that
  was made from it: the gate compares two versions on them, example by example;
- `dvc.lock` and `params.yaml` as they were, `machine.json`: packages and processor;
- `sources.json`: every file of every source with its md5, where that can be shown to be what DVC hashed.

Price: the predictions' size again for each encoder version, some MB with all nine tasks.
"""

import csv
import hashlib
import json
import os
import platform
import shutil
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import yaml

from roberta_core.atomic import digest_of, read_json, write_json
from roberta_core.bootstrap import Pair
from roberta_core.glue.tasks import TASKS
from roberta_core.own.metrics import NAME_LISTS
from tasks.tracking import mlflow_on

PACKAGES = ("mlflow", "torch", "tokenizers", "safetensors", "numpy", "pyarrow")
FOLDER = "evidence"
NOT_AVERAGED = "WNLI"
"""WNLI's dev set is adversarial to its train set; GLUE papers report it and leave it out of the mean."""


def task_folder(task: str) -> str:
    """Where the model of a task stands, relative to the project: tasks of GLUE and your own never share a name."""
    return f"models/glue/{task}" if task in TASKS else f"models/tasks/{task}"


def copy_scores(root: Path, tasks: list[str], folder: Path) -> str:
    """Copies results and predictions of tasks into `folder`/tasks. Returns their digest."""
    for task in tasks:
        for name in ("results.json", "dev_predictions.tsv"):
            file = root / task_folder(task) / name
            if file.is_file():
                (folder / "tasks" / task).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / "tasks" / task / name)
    return digest_of(folder / "tasks")


def copy_origin(root: Path, folder: Path) -> None:
    """Writes what a version came of into `folder`: dvc.lock, params.yaml, machine.json, sources.json."""
    for name in ("dvc.lock", "params.yaml"):
        if (root / name).is_file():
            shutil.copyfile(root / name, folder / name)
    machine = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "packages": {name: installed(name) for name in (*PACKAGES, "datasets", "dvc", "prefect")},
    }
    write_json(folder / "machine.json", machine)
    write_json(folder / "sources.json", source_files(root))


def read_lock(file: Path) -> dict[str, dict]:
    """The stages of a dvc.lock by name; none where there is no file."""
    if not file.is_file():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return (yaml.load(file.read_text(encoding="utf8"), loader) or {}).get("stages") or {}


def source_files(root: Path) -> dict[str, dict[str, str]]:
    """Files and md5 of each folder that the download stages read: {path: {file: md5}}.

    Only folders whose files still add up to the md5 in dvc.lock: a list that DVC did not see would be a wrong one.
    """
    found: dict[str, dict[str, str]] = {}
    for name, stage in read_lock(root / "dvc.lock").items():
        if name.split("@")[0] != "download":
            continue
        for each in stage.get("deps", ()):
            folder = root / each["path"]
            if each.get("md5", "").endswith(".dir") and each["path"] not in found and folder.is_dir():
                files = {
                    file.relative_to(folder).as_posix(): digest_of(file, "md5")
                    for file in sorted(folder.rglob("*"))
                    if file.is_file()
                }
                if _folder_md5(files) == each["md5"]:
                    found[each["path"]] = files
    return found


def _folder_md5(files: dict[str, str]) -> str:
    """DVC's hash of a folder: the md5 of its sorted list of files, as JSON, and `.dir`."""
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def fetch(root: Path, name: str, version: str, inside: str = FOLDER) -> Path | None:
    """A folder or file of a version's artifacts on this disk; None where the version has none such, or it is gone."""
    with mlflow_on(root) as mlflow:
        try:
            found = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}/{inside}"))
        except Exception:  # MLflow raises OSError, its own errors, or a database's, by store
            return None
    return found if found.exists() else None


def read_pairs(old: Path, new: Path) -> tuple[list[Pair], str]:
    """The tasks that both pieces of evidence have, row by row; and what keeps them from being compared, if anything."""
    tasks = [sorted(each.name for each in (side / "tasks").glob("*") if each.is_dir()) for side in (old, new)]
    if tasks[0] != tasks[1] or not tasks[0]:
        return [], f"predictions of {', '.join(tasks[1]) or 'no task'} against {', '.join(tasks[0]) or 'no task'}"
    pairs = []
    for task in tasks[0]:
        results = [read_json(side / "tasks" / task / "results.json") for side in (old, new)]
        files = [side / "tasks" / task / "dev_predictions.tsv" for side in (old, new)]
        if not all(file.is_file() for file in files):
            return [], f"{task}: no dev predictions were kept"
        before, after = map(_read_predictions, files)
        if [row["label"] for row in before] != [row["label"] for row in after]:
            return [], f"{task}: other dev rows"
        metric, kind = results[1]["metric"], results[1].get("kind", "")
        measure = MEASURES.get((kind, metric), metric)
        if measure == "f1_labels":
            if not all(set(NAME_LISTS) <= side[0].keys() for side in (before, after)):
                return [], f"{task}: for {metric} the names of each row's labels are needed, and were not kept"
            columns = _label_sets(before, after)
        else:
            columns = (
                _column(before, measure, metric, truth=True),
                _column(before, measure, metric),
                _column(after, measure, metric),
            )
        seeds = [tuple(each.get("seeds", {}).values()) for each in results]
        counted = task != NOT_AVERAGED or len(tasks[0]) == 1
        pairs.append(Pair(task, metric, *columns, *seeds, counted=counted, measure=measure))
    return pairs, ""


MEASURES = {
    ("multi-label", "f1_micro"): "counts",
    ("multi-label", "f1_macro"): "f1_labels",
    ("multi-label", "exact_match"): "accuracy",
    ("tokens", "f1"): "counts",
    ("tokens", "accuracy"): "counts",  # right tags, tags, tags: F1 of these is accuracy
    ("questions", "f1"): "mean",
    ("questions", "exact_match"): "mean",
}
"""How a metric comes of the rows of dev_predictions.tsv, where its name alone does not say it (`roberta_core.bootstrap`)."""

COUNTS = ("right", "predicted", "there")


def _column(rows: list[dict[str, str]], measure: str, metric: str, truth: bool = False) -> np.ndarray:
    """What the bootstrap takes of one model's rows."""
    if measure == "counts":
        return np.array([[int(row[name]) for name in COUNTS] for row in rows])
    if measure == "mean":
        return np.array([float(row[metric]) for row in rows])
    kind = float if measure in ("pearson", "spearman") else str
    return np.array([row["label" if truth else "prediction"] for row in rows], kind)


def _label_sets(before: list[dict[str, str]], after: list[dict[str, str]]) -> tuple[np.ndarray, ...]:
    """Which labels each row has, has by the old model and by the new one: three times bool [rows, names]."""
    there, guessed = NAME_LISTS
    sides = [
        [json.loads(row[name]) for row in rows]
        for rows, name in ((before, there), (before, guessed), (after, guessed))
    ]
    numbers = {name: at for at, name in enumerate(sorted({name for side in sides for row in side for name in row}))}
    found = np.zeros((3, len(before), len(numbers)), bool)
    for matrix, side in zip(found, sides):
        for at, row in enumerate(side):
            matrix[at, [numbers[name] for name in row]] = True
    return tuple(found)


def _read_predictions(file: Path) -> list[dict[str, str]]:
    """The rows of a dev_predictions.tsv, as written."""
    with open(file, encoding="utf8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
