"""What stands in `models/` and could be registered, with its evidence: the score, and the yardstick of the score.

A yardstick is everything that two scores must share to be compared: the data (by md5), the metric, the split, the
selection. An encoder is scored by its classifiers, so the way of fine-tuning belongs to its yardstick too.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roberta_core.atomic import digest_of, read_json
from tasks.evidence import NOT_AVERAGED, task_folder
from tasks.own_scores import own_results
from tasks.params import Params
from tasks.tracking import recorded_md5


@dataclass(frozen=True)
class Candidate:
    """A model folder on its way to the registry, with its evidence as tags, and the tasks that it was scored on."""

    name: str
    folder: Path
    evidence: dict[str, str]
    tasks: list[str]


def model_names(params: Params) -> dict[str, str]:
    """Registered names: the encoder's under "", each task's under the task."""
    every = [*params.glue.all_tasks, *params.finetune.tasks]
    tasks = {task: f"{params.registry.task_prefix}{task.lower()}" for task in every}
    return {"": params.registry.encoder} | tasks


def _results(params: Params, root: Path) -> dict[str, dict]:
    files = {task: root / "models" / "glue" / task / "results.json" for task in params.glue.all_tasks}
    return {task: read_json(file) for task, file in files.items() if file.is_file()}


def protocol_name(protocol: dict) -> str:
    """`paper`, or `staged from MNLI`, which a task that starts from the encoder is not, though the run is."""
    return "staged from MNLI" if protocol.get("staged_from_mnli") else protocol.get("name", "quick")


def _task_yardstick(root: Path, task: str, results: dict) -> dict:
    """What a task's score was measured with: equal yardsticks mean comparable scores."""
    dev = sorted((root / "data" / "glue" / task).glob("dev*.tsv"))
    return {
        "data": results["data"],
        "metric": results["metric"],
        "split": results["protocol"].get("split", "dev"),
        "selection": results["protocol"].get("selection", ""),
        "protocol": protocol_name(results["protocol"]),
        "dev_md5": ",".join(digest_of(file, "md5") for file in dev),
    }


def _evidence(measure: str, score: float, yardstick: dict, data: str, protocol: dict) -> dict[str, str]:
    # Results hold JSON numbers, so the text and the number are one
    return {
        "measure": measure,
        "score": repr(float(score)),
        "yardstick": json.dumps(yardstick, sort_keys=True),
        "data": data,
        "protocol": json.dumps(protocol, sort_keys=True),
    }


def candidates(params: Params, root: Path) -> list[Candidate]:
    """The encoder and the classifiers that stand in `models/`, with their scores."""
    names, results = model_names(params), _results(params, root)
    found = []
    encoder = root / "models" / "encoder"
    # classifiers that were fine-tuned from another encoder say nothing about this one
    tuned = root / params.glue.encoder
    own = tuned.resolve() == encoder.resolve()
    averaged = {task: each for task, each in results.items() if own and task != NOT_AVERAGED}
    if (encoder / "model.safetensors").is_file():
        if averaged:
            # An encoder's score is its classifiers', so the way of fine-tuning belongs to the yardstick.
            ways = {task: each["protocol"] for task, each in averaged.items()}
            yardstick = {task: _task_yardstick(root, task, each) | ways[task] for task, each in averaged.items()}
            mean = float(np.mean([each["score"] for each in averaged.values()]))
            kinds = ", ".join(sorted({each["data"] for each in averaged.values()}))
            evidence = _evidence(f"mean score of {len(averaged)} tasks", mean, yardstick, kinds, ways)
        elif (root / "metrics" / "pretrain.json").is_file():
            held_out = root / "data" / "packed" / "validation"
            yardstick = {"validation_md5": digest_of(held_out, "md5") if held_out.is_dir() else ""}
            yardstick |= {"eval_rows": params.pretrain.eval_rows, "mask_prob": params.pretrain.mask_prob}
            loss = read_json(root / "metrics" / "pretrain.json")["loss"]
            evidence = _evidence("held-out loss", loss, yardstick, "held-out text", {})
        else:
            evidence = {}
        if (root / "data" / "packed").is_dir():
            evidence["data_md5"] = recorded_md5(root, Path("data/packed"))
        begun = read_json(encoder / "training.json") if (encoder / "training.json").is_file() else {}
        if "init_resolved" in begun:  # continued pretraining: from which weights
            evidence |= {key: begun[key] for key in ("init_resolved", "init_sha256")}
        found.append(Candidate(names[""], encoder, evidence, list(averaged)))
    for task, each in results.items():
        folder = root / "models" / "glue" / task
        if not (folder / "model.safetensors").is_file():
            continue
        yardstick = _task_yardstick(root, task, each)
        evidence = _evidence(each["metric"], each["score"], yardstick, each["data"], each["protocol"])
        if (root / "data" / "glue" / task).is_dir():
            evidence["data_md5"] = recorded_md5(root, Path("data/glue") / task)
        if (tuned / "model.safetensors").is_file():
            evidence["encoder_sha256"] = digest_of(tuned / "model.safetensors")
        found.append(Candidate(names[task], folder, evidence | {"task": task}, [task]))
    return found + _own_candidates(params, root, names)


def _own_candidates(params: Params, root: Path, names: dict[str, str]) -> list[Candidate]:
    """The models of finetune.tasks. They say nothing of the encoder's score: its tasks are those of `glue`."""
    found, encoder = [], root / params.finetune.encoder / "model.safetensors"
    for task, each in own_results(params, root).items():
        folder = root / task_folder(task)
        if not (folder / "model.safetensors").is_file():
            continue
        yardstick = {key: each[key] for key in ("data", "kind", "metric", "dev_sha256")}
        yardstick |= {key: each["protocol"][key] for key in ("split", "selection")}
        evidence = _evidence(each["metric"], each["score"], yardstick, each["data"], each["protocol"])
        evidence |= {
            "task": task,
            "kind": each["kind"],
            "data_md5": recorded_md5(root, Path(params.finetune.tasks[task].path)),
        }
        if encoder.is_file():
            evidence["encoder_sha256"] = digest_of(encoder)
        found.append(Candidate(names[task], folder, evidence, [task]))
    return found
