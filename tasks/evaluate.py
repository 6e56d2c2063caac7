"""A registered classifier scored again, on the dev rows of its task in this folder.

Two uses: the same rows must give the score that was registered (another machine, another version of a library), and other
rows, after the data were made anew, show how an old champion does on them before anything is trained.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from roberta_core.atomic import digest_of
from roberta_core.errors import BadInput
from tasks.registry import model_folder, named_version, open_store


@dataclass(frozen=True)
class Evaluation:
    """What a version scores here, and what it was registered with.

    Attributes:
        metrics: the task's metrics, the primary one first.
        registered: the score that stands in the registry, of the primary metric; None without one.
        same_rows: whether the dev rows are those of then.
    """

    model: str
    task: str
    metrics: dict[str, float]
    registered: float | None
    same_rows: bool

    @property
    def told(self) -> str:
        """All of it as a sentence."""
        measured = ", ".join(f"{key} {value:.4f}" for key, value in self.metrics.items())
        if self.registered is None:
            return f"{self.model} on {self.task}: {measured}"
        rows = "the same" if self.same_rows else "other"
        return f"{self.model} on {self.task}: {measured} (registered with {self.registered:.4f}, on {rows} dev rows)"


def evaluate_version(root: Path, name: str) -> Evaluation:
    """Scores `roberta-cola` (its champion), `models:/roberta-cola@challenger` or `models:/roberta-cola/2`.

    Raises:
        NotRegistered: there is no such version. BadInput: it is an encoder, or its task's rows are not here.
    """
    import numpy as np

    from roberta_core.finetune import predict, tokenise
    from roberta_core.glue.layout import read_split
    from roberta_core.glue.objective import objective_of
    from roberta_core.glue.tasks import task_named
    from roberta_core.inference import ClassifierModel
    from tasks.glue import decide, score_files

    root = Path(root).resolve()
    version = named_version(open_store(root), name)
    tags, label = version.tags, f"{version.name} {version.version}"
    if "task" not in tags:
        raise BadInput(f"{label} is an encoder, which is scored by its classifiers.", "Name one of these.")
    if tags.get("data") == "own":
        raise BadInput(
            f"{label} was made for {tags['task']}, a task of your own.",
            f"Run its stage: roberta stage finetune@{tags['task']}",
        )
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
