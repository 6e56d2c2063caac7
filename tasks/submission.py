"""Predictions on GLUE's hidden test rows, by the models in `models/glue`: the leaderboard's zip, and AX's MCC.

Only real GLUE is submitted: all nine models, none of them trained on sample tasks, and test files with the official
numbers of rows. What lacks is said before the first prediction is made, all at once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from roberta_core.atomic import read_json
from roberta_core.device import set_threads
from roberta_core.errors import BadInput
from roberta_core.finetune import predict, tokenise
from roberta_core.glue.layout import Split, read_split
from roberta_core.glue.metrics import score
from roberta_core.glue.objective import objective_of
from roberta_core.glue.submission import FILES, SubmissionFile, refuse, write_zip
from roberta_core.glue.tasks import AX_LABELLED, TASKS, Task
from roberta_core.inference import ClassifierModel
from roberta_core.progress import Progress
from tasks.glue import decide
from tasks.params import Params
from tasks.summary import protocol_line

DATA = Path("data/glue")
MODELS = Path("models/glue")
CHUNK_ROWS = 8192
"""Test rows that are tokenised and predicted together: QQP has 390,965."""
MEND = "Name all nine in glue.tasks and glue.staged, with whole GLUE, its test files and diagnostic in glue.path; then: dvc repro"


def _trained(root: Path, name: str) -> str:
    """What keeps the model of a task from a submission; empty where nothing does."""
    file = root / MODELS / name / "results.json"
    if not file.exists():
        return f"there is no model of {name} in {MODELS / name}"
    if read_json(file)["data"] == "sample":
        return f"the model of {name} was trained on a sample task, which is not GLUE"
    return ""


def _test_rows(root: Path, files: Sequence[SubmissionFile]) -> tuple[dict[str, Split], list[str]]:
    """The test rows of each file, and what is wrong with their number."""
    rows: dict[str, Split] = {}
    found = []
    for task in dict.fromkeys(file.task for file in files):
        read = read_split(root / DATA / task, TASKS[task], "test")
        for file in (each for each in files if each.task == task):
            if file.source not in read:
                found.append(f"{DATA / task / file.source} is missing")
                continue
            rows[file.name] = read[file.source]
            if len(rows[file.name]) != file.rows:
                found.append(f"{DATA / task / file.source}: {len(rows[file.name]):,} instead of {file.rows:,} rows")
    return rows, found


def predictions(
    folder: Path, task: Task, rows: Split, device: str, on_rows: Callable[[int], None] = lambda count: None
) -> np.ndarray:
    """Ids of labels, or scores clipped to 0 to 5, of each row, by the model in a folder: [rows]."""
    opened, made = ClassifierModel(folder, device), objective_of(task)
    config = opened.model.config
    length = min(
        read_json(folder / "results.json")["protocol"].get("max_length", config.max_length), config.max_length
    )
    found = []
    for start in range(0, len(rows), CHUNK_ROWS):
        texts = rows.texts[start : start + CHUNK_ROWS]
        encoded = tokenise(opened.tokenizer, texts, [], length, config.has_token_types)
        found.append(decide(task, np.stack(predict(made, opened.model, encoded))))
        on_rows(len(texts))
    return np.concatenate(found)


def submit(root: Path, params: Params, out: Path, files: Sequence[SubmissionFile] = FILES) -> list[str]:
    """Writes the zip of eleven files. Returns lines that say what is in it.

    Raises:
        BadInput: a model or a test file is missing, has another number of rows than GLUE's, or is no GLUE.
    """
    models = dict.fromkeys(file.model for file in files)
    refuse([fault for name in models if (fault := _trained(root, name))], MEND)
    rows, found = _test_rows(root, files)
    refuse(found, MEND)
    set_threads(params.runtime.threads)
    progress = Progress("glue submit", sum(map(len, rows.values())), "rows")
    given = {
        file.name: predictions(
            root / MODELS / file.model, TASKS[file.model], rows[file.name], params.runtime.device, progress.advance
        )
        for file in files
    }
    progress.finish()
    write_zip(out, given, files)
    told = []
    for name in models:
        results = read_json(root / MODELS / name / "results.json")
        told.append(f"{name}: {results['metric']} {results['score']:.4f} ({protocol_line(results)})")
    return [*told, f"{out}: {len(files)} files, {sum(file.rows for file in files):,} predictions"]


def diagnostic(root: Path, params: Params) -> str:
    """MCC of MNLI's model on the AX diagnostic, where its file with labels is there, as a sentence.

    Raises:
        BadInput: there is no model of MNLI, or no labels.
    """
    refuse_model = _trained(root, TASKS["AX"].predicted_by)
    if refuse_model:
        raise BadInput(f"{refuse_model[0].upper()}{refuse_model[1:]}.", "Fine-tune on MNLI of real GLUE first.")
    (name,) = AX_LABELLED.files("dev")
    file = root / DATA / AX_LABELLED.name / name
    if not file.exists():
        raise BadInput(
            f"There is no {DATA / AX_LABELLED.name / name}, the diagnostic's file with labels.",
            "Put it into the folder AX (or diagnostic) of glue.path, with glue.data local; then: dvc repro taskdata",
        )
    set_threads(params.runtime.threads)
    (rows,) = read_split(file.parent, AX_LABELLED, "dev").values()
    model = root / MODELS / AX_LABELLED.predicted_by
    guesses = predictions(model, TASKS[AX_LABELLED.predicted_by], rows, params.runtime.device)
    metrics, notes = score(AX_LABELLED, rows.labels, guesses)
    return "; ".join([f"AX, {len(rows):,} pairs, by {model.relative_to(root)}: mcc {metrics['mcc']:.4f}", *notes])
