"""Stage `glue`, one process a task: `data/glue/<TASK>` and an encoder (`glue.encoder`) to `models/glue/<TASK>/`.

The protocol (`glue.protocol`) says which fine-tunings are run: one a seed, or a grid of settings with five seeds each, all in
this process, on rows that are encoded once. The model kept is the median seed's (the lower of the two middle ones where their
number is even) of the best setting, so the score shown is that of the model in the folder. Beside it stand, always, the
protocol and what the most frequent class and a bag of words reach on the same rows.

What is done stands in `.work/glue/<TASK>/<fingerprint>/`: a killed stage goes on with the next fine-tuning.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from roberta_core.atomic import atomic_dir, atomic_file, digest_of, write_json
from roberta_core.code_digest import code_digest
from roberta_core.device import pick_device, set_threads
from roberta_core.errors import BadParams
from roberta_core.finetune import (
    Classification,
    Objective,
    Rows,
    Watch,
    augmented,
    balanced_weights,
    derive,
    finetune,
    plan,
    predict,
    tokenise,
)
from roberta_core.finetune.checks import oddities
from roberta_core.finetune.points import Points, Setting
from roberta_core.finetune.state import Keeper
from roberta_core.glue import baselines
from roberta_core.glue.layout import Split, read_split
from roberta_core.glue.metrics import score
from roberta_core.glue.objective import objective_of
from roberta_core.glue.sample import DESCRIPTIONS
from roberta_core.glue.tasks import SCORE_MAX, Task, task_named
from roberta_core.model.folder import read_config, tokenizer_of
from roberta_core.progress import Progress
from roberta_core.train.checkpoint import fingerprint
from tasks.glue_protocol import Protocol, protocol_of
from tasks.params import Glue, Params
from tasks.stage import WORK, main
from tasks.tracking import open_run

DATA = Path("data/glue")
OUT = Path("models/glue")
ENCODER_FILES = ("config.json", "model.safetensors", "tokenizer.json")
PREDICTIONS = {"dev_mismatched.tsv": "dev_predictions_mismatched.tsv"}


class Job:
    """One task with everything that its fine-tunings share: rows, encoded once, objective, protocol."""

    def __init__(self, params: Params, task: Task):
        section = params.glue
        self.task, self.seed = task, params.seed
        self.device = pick_device(params.runtime.device)
        (self.train,) = read_split(DATA / task.name, task, "train").values()
        self.devs, self.tests = (read_split(DATA / task.name, task, split) for split in ("dev", "test"))
        config = read_config(Path(section.encoder))
        max_length = min(section.max_length, config.max_length)
        if max_length < section.max_length:
            asked = f"glue.max_length asks for {section.max_length}"
            print(f"glue-{task.name}: rows are cut at {max_length} tokens, the encoder's limit ({asked})", flush=True)
        self.protocol: Protocol = protocol_of(section, task.name, max_length)
        self.tokenizer = tokenizer_of(self.protocol.start, config)
        self.typed = config.has_token_types
        self.rows = self._encoded(self.train.texts)
        self.dev_rows = {file: self._encoded(dev.texts, dev.labels) for file, dev in self.devs.items()}
        self.truncated = self.rows.truncated + sum(rows.truncated for rows in self.dev_rows.values())
        self.objective = weighted(objective_of(task), section, self.train)
        options = section.options
        self.words = (options.delete_words, options.swap_words)

    def _encoded(self, texts: Sequence[tuple[str, ...]], labels: Sequence[float] | None = None) -> Rows:
        labels = self.train.labels if labels is None else labels
        return tokenise(self.tokenizer, texts, labels, self.protocol.recipe.max_length, self.typed)

    @property
    def fingerprint(self) -> str:
        """Of all that decides a fine-tuning's bits, beside its setting and seed."""
        files = sorted((DATA / self.task.name).glob("*.tsv"))
        return fingerprint(
            task=self.task,
            recipe=self.protocol.recipe,
            options=self.protocol.options.model_dump(),
            seed=self.seed,
            data={file.name: digest_of(file) for file in files},
            encoder={name: digest_of(self.protocol.start / name) for name in ENCODER_FILES},
            code=[code_digest(), torch.__version__, torch.get_num_threads(), str(self.device)],
        )

    def fine_tune(self, setting: Setting, seed: int, keeper: Keeper, on_step) -> tuple:
        """One fine-tuning: its model, its scores and its outputs on dev."""
        drawn, epochs = derive(self.seed, self.task.name, seed), []
        (first, dev), watched = next(iter(self.devs.items())), None
        if self.protocol.recipe.keep_best:
            watched = Watch(
                self.dev_rows[first],
                lambda outputs: score(self.task, dev.labels, decide(self.task, np.stack(outputs)))[0][
                    self.task.metrics[0]
                ],
            )
        of_epoch = None
        if any(self.words):
            texts = augmented(self.train.texts, drawn, *self.words)

            def of_epoch(epoch: int) -> Rows:
                return self._encoded(texts(epoch))

        model = finetune(
            self.protocol.start, self.objective, self.rows, setting.of(self.protocol.recipe), drawn, self.device, on_step,
            watch=watched, on_epoch=lambda epoch, value: epochs.append(value), rows_of_epoch=of_epoch, keeper=keeper,
        )  # fmt: skip
        outputs = {file: predict(self.objective, model, rows) for file, rows in self.dev_rows.items()}
        guesses = [decide(self.task, np.stack(values)) for values in outputs.values()]
        scores, notes = score_files(self.task, list(self.devs.values()), guesses)
        result: dict = {"scores": scores, "notes": notes}
        if epochs:
            result |= {"epoch": int(np.argmax(epochs)) + 1, "epochs": len(epochs)}
        return model, result, outputs


def run(params: Params, name: str = "") -> dict:
    """Fine-tunes on one task. Returns its score, all its metrics, its rows and how many of them were cut."""
    if not name:
        raise BadParams("Which task?", f"Name one: python -m tasks.glue {params.glue.all_tasks[0]}")
    task, section = task_named(name), params.glue
    set_threads(params.runtime.glue_threads)
    job = Job(params, task)
    protocol, metric = job.protocol, task.metrics[0]
    steps = {setting: plan(len(job.rows), setting.of(protocol.recipe)) for setting in protocol.settings}
    record = protocol.record(metric, steps[protocol.settings[0]])
    flat = {f"glue.{key}": value for key, value in record.items()} | {
        "task": name,
        "data": section.data,
        "seed": params.seed,
    }
    counts, notes = oddities(
        job.train.texts, next(iter(job.devs.values())).texts, job.truncated, protocol.recipe.max_length
    )
    points = Points(WORK / "glue" / name, job.fingerprint, params.runtime.checkpoint_minutes * 60)
    with (
        open_run(
            f"glue-{name}", params, section=flat, inputs={"task": DATA / name, "encoder": protocol.start}
        ) as tracked,
        atomic_dir(OUT / name) as out,
    ):
        progress = Progress(f"glue {name}", sum(steps.values()) * len(protocol.seeds), "steps")
        past = 0

        def train(setting: Setting, seed: int, keeper: Keeper) -> tuple:
            def on_step(step: int, loss: float, lr: float) -> None:
                progress.advance(past + step - progress.done, f"loss {loss:.3f}")
                if step % 10 == 0 or step == steps[setting]:
                    tracked.log(past + step, {"loss": loss, "lr": lr})

            return job.fine_tune(setting, seed, keeper, on_step)

        def on_done(setting: Setting, seed: int, result: dict) -> None:
            nonlocal past
            past += steps[setting]
            progress.advance(
                past - progress.done, f"{setting.name}, seed {seed}: {metric} {result['scores'][metric]:.3f}"
            )

        found = points.search(
            protocol.settings, protocol.seeds, train, lambda result: result["scores"][metric], on_done
        )
        of_seeds = found.results[found.setting]
        kept = of_seeds[found.seed]
        for seed, result in of_seeds.items():
            notes += [f"seed {seed}: {note}" for note in result["notes"]]
        for file in sorted(found.folder.iterdir()):
            shutil.copyfile(file, out / file.name)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if (protocol.start / file).exists():
                shutil.copyfile(protocol.start / file, out / file)
        for file, dev in job.devs.items():
            predictions = out / PREDICTIONS.get(file, "dev_predictions.tsv")
            write_predictions(predictions, task, dev, np.stack(found.outputs[file]))
        results = {
            "task": name,
            "data": section.data,
            "metric": metric,
            "score": kept["scores"][metric],
            "metrics": kept["scores"],
            "seeds": {str(seed): result["scores"][metric] for seed, result in of_seeds.items()},
            "protocol": record,
            "chosen": chosen(found.setting, steps[found.setting], kept),
            "rows": {"train": len(job.train)}
            | {
                file.removesuffix(".tsv").replace("_matched", ""): len(rows)
                for file, rows in (job.devs | job.tests).items()
            },
            "truncated": job.truncated,
            "oddities": counts,
            "baselines": run_baselines(task, job.train, list(job.devs.values())),
            "label_names": list(task.names),
            "notes": notes,
        }
        if len(protocol.settings) > 1:
            results["grid"] = [
                {"peak_lr": setting.peak_lr, "batch_size": setting.batch_size}
                | {"seeds": {str(seed): result["scores"][metric] for seed, result in each.items()}}
                for setting, each in found.results.items()
            ]
        if section.data == "sample":
            results["description"] = DESCRIPTIONS[name]
        write_json(out / "results.json", results)
        kind = "sample task" if section.data == "sample" else "task"
        beside = ", ".join(f"{key} {values[metric]:.3f}" for key, values in results["baselines"].items())
        progress.finish(f"{kind}, dev {metric} {results['score']:.3f} ({beside})")
        tracked.finish(results["metrics"], out)
    points.finish()
    flat_rows = {f"{split}_rows": rows for split, rows in results["rows"].items()}
    return {"score": results["score"]} | results["metrics"] | flat_rows | {"truncated": job.truncated}


def chosen(setting: Setting, steps: int, result: dict) -> dict:
    """What the kept model was fine-tuned with, where the protocol leaves it open."""
    found = {"peak_lr": setting.peak_lr, "batch_size": setting.batch_size, "steps": steps}
    return found | {key: result[key] for key in ("epoch", "epochs") if key in result}


def weighted(objective: Objective, section: Glue, train: Split) -> Objective:
    """The objective with `glue.options.class_weights`.

    Raises:
        BadParams: there are weights for another number of labels than the task has.
    """
    asked = section.options.class_weights
    if asked == "none" or not isinstance(objective, Classification):
        return objective
    if asked == "balanced":
        weights = balanced_weights(train.labels, len(objective.names))
    elif len(asked) == len(objective.names):
        weights = tuple(asked)
    else:
        raise BadParams(
            f"glue.options.class_weights has {len(asked)} numbers, and {objective.task} has {len(objective.names)} labels.",
            "Give a number for each label, or balanced.",
        )
    return Classification(objective.task, objective.names, weights)


def decide(task: Task, values: np.ndarray) -> np.ndarray:
    """What `predict` gave as ids, or as scores clipped to STS-B's scale: [rows]."""
    return values.argmax(axis=1) if task.values else np.clip(values[:, 0], 0.0, SCORE_MAX)


def score_files(task: Task, devs: list[Split], guesses: list[np.ndarray]) -> tuple[dict[str, float], list[str]]:
    """The task's metrics on its dev file; for MNLI also the accuracy on the mismatched one. Rounded to 6 digits."""
    result, notes = score(task, devs[0].labels, guesses[0])
    for dev, guess in zip(devs[1:], guesses[1:]):
        other, more = score(task, dev.labels, guess)
        result["accuracy_mismatched"] = other["accuracy"]
        notes = notes + more
    return {key: round(value, 6) for key, value in result.items()}, notes


def run_baselines(task: Task, train: Split, devs: list[Split]) -> dict[str, dict[str, float]]:
    """Scores of the most frequent class (or the mean) and of the bag of words, on the same dev rows."""
    guesses = {
        "majority": [baselines.majority(task, train, dev) for dev in devs],
        "tfidf": baselines.tfidf(task, train, devs),
    }
    return {name: score_files(task, devs, each)[0] for name, each in guesses.items()}


def write_predictions(file: Path, task: Task, dev: Split, values: np.ndarray) -> None:
    """One line a dev row: its number, label, prediction, and the probability of each class, or the score before clipping."""
    with atomic_file(file) as handle:
        columns = [f"probability_{name}" for name in task.names] or ["raw_score"]
        handle.write("\t".join(["index", "label", "prediction", *columns]) + "\n")
        for index, label, guess, row in zip(dev.index, dev.labels, decide(task, values), values):
            shown = [task.names[label], task.names[guess]] if task.values else [f"{label:.3f}", f"{guess:.3f}"]
            handle.write("\t".join([str(index), *shown, *(f"{value:.6f}" for value in row)]) + "\n")


if __name__ == "__main__":
    sys.exit(main("glue", run))
