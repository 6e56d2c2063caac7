"""Stage `glue`, one process a task: `data/glue/<TASK>` and an encoder (`glue.encoder`) to `models/glue/<TASK>/`.

One fine-tuning a seed; the model kept is the one whose primary metric is the median (the lower of the two middle ones
where the number of seeds is even), so the score shown is that of the model in the folder. Beside it stand, always, the
protocol and what the most frequent class and a bag of words reach on the same rows.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from roberta_core.atomic import atomic_dir, atomic_file, write_json
from roberta_core.device import pick_device, set_threads
from roberta_core.errors import BadParams
from roberta_core.finetune import Recipe, derive, finetune, plan, predict, tokenise
from roberta_core.glue import baselines
from roberta_core.glue.layout import Split, read_split
from roberta_core.glue.metrics import score
from roberta_core.glue.objective import objective_of
from roberta_core.glue.sample import DESCRIPTIONS
from roberta_core.glue.tasks import SCORE_MAX, Task, task_named
from roberta_core.model.folder import read_config, tokenizer_of
from roberta_core.progress import Progress
from tasks.params import Params
from tasks.stage import main
from tasks.tracking import open_run

DATA = Path("data/glue")
OUT = Path("models/glue")
PREDICTIONS = {"dev_mismatched.tsv": "dev_predictions_mismatched.tsv"}


def run(params: Params, name: str = "") -> dict:
    """Fine-tunes on one task. Returns its score, all its metrics, its rows and how many of them were cut."""
    if not name:
        raise BadParams("Which task?", f"Name one: python -m tasks.glue {params.glue.tasks[0]}")
    task, section = task_named(name), params.glue
    objective = objective_of(task)
    set_threads(params.runtime.glue_threads)
    device = pick_device(params.runtime.device)
    train, devs, tests = (read_split(DATA / task.name, task, split) for split in ("train", "dev", "test"))
    (train,) = train.values()
    encoder = Path(section.encoder)
    config = read_config(encoder)
    tokenizer = tokenizer_of(encoder, config)
    max_length = min(section.max_length, config.max_length)
    if max_length < section.max_length:
        asked = f"glue.max_length asks for {section.max_length}"
        print(f"glue-{name}: rows are cut at {max_length} tokens, the encoder's limit ({asked})", flush=True)
    recipe = Recipe(
        max_length, section.epochs, section.max_steps, section.batch_size, section.peak_lr, section.weight_decay,
        section.warmup_ratio, section.dropout, section.precision,
    )  # fmt: skip
    typed = config.has_token_types
    train_rows = tokenise(tokenizer, train.texts, train.labels, max_length, typed)
    dev_rows = {file: tokenise(tokenizer, dev.texts, dev.labels, max_length, typed) for file, dev in devs.items()}
    truncated = train_rows.truncated + sum(rows.truncated for rows in dev_rows.values())
    protocol = {
        "seeds": list(section.seeds),
        "epochs": section.epochs,
        "steps": plan(len(train), recipe),
        "peak_lr": section.peak_lr,
        "batch_size": section.batch_size,
        "weight_decay": section.weight_decay,
        "warmup_ratio": section.warmup_ratio,
        "dropout": section.dropout,
        "max_length": max_length,
        "precision": section.precision,
        "split": "dev",
        "staged_from_mnli": False,
        "selection": "last step; median over seeds" if len(section.seeds) > 1 else "last step; one seed",
    }
    flat = {f"glue.{key}": value for key, value in protocol.items()} | {
        "task": name,
        "data": section.data,
        "seed": params.seed,
    }
    notes: list[str] = []
    with (
        open_run(f"glue-{name}", params, section=flat, inputs={"task": DATA / name, "encoder": encoder}) as tracked,
        atomic_dir(OUT / name) as out,
    ):
        progress = Progress(f"glue {name}", protocol["steps"] * len(section.seeds), "steps")
        outputs: dict[int, dict[str, np.ndarray]] = {}
        scores: dict[int, dict[str, float]] = {}
        for number, seed in enumerate(section.seeds):

            def on_step(step: int, loss: float, lr: float, past: int = number * protocol["steps"]) -> None:
                progress.advance(1, f"loss {loss:.3f}")
                if step % 10 == 0 or step == protocol["steps"]:
                    tracked.log(past + step, {"loss": loss, "lr": lr})

            model = finetune(encoder, objective, train_rows, recipe, derive(params.seed, name, seed), device, on_step)
            outputs[seed] = {file: np.stack(predict(objective, model, rows)) for file, rows in dev_rows.items()}
            guesses = [decide(task, values) for values in outputs[seed].values()]
            scores[seed], found = score_files(task, list(devs.values()), guesses)
            notes += [f"seed {seed}: {note}" for note in found]
            model.save_pretrained(out / f"seed-{seed}")
        kept = median_seed({seed: values[task.metrics[0]] for seed, values in scores.items()})
        for file in sorted((out / f"seed-{kept}").iterdir()):
            file.rename(out / file.name)
        for seed in scores:
            shutil.rmtree(out / f"seed-{seed}")
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if (encoder / file).exists():
                shutil.copyfile(encoder / file, out / file)
        for (file, dev), values in zip(devs.items(), outputs[kept].values()):
            write_predictions(out / PREDICTIONS.get(file, "dev_predictions.tsv"), task, dev, values)
        results = {
            "task": name,
            "data": section.data,
            "metric": task.metrics[0],
            "score": scores[kept][task.metrics[0]],
            "metrics": scores[kept],
            "seeds": {str(seed): values[task.metrics[0]] for seed, values in scores.items()},
            "protocol": protocol,
            "rows": {"train": len(train)}
            | {file.removesuffix(".tsv").replace("_matched", ""): len(rows) for file, rows in (devs | tests).items()},
            "truncated": truncated,
            "baselines": run_baselines(task, train, list(devs.values())),
            "label_names": list(task.names),
            "notes": notes,
        }
        if section.data == "sample":
            results["description"] = DESCRIPTIONS[name]
        write_json(out / "results.json", results)
        kind = "sample task" if section.data == "sample" else "task"
        beside = ", ".join(f"{key} {values[task.metrics[0]]:.3f}" for key, values in results["baselines"].items())
        progress.finish(f"{kind}, dev {results['metric']} {results['score']:.3f} ({beside})")
        tracked.finish(results["metrics"], out)
    flat_rows = {f"{split}_rows": rows for split, rows in results["rows"].items()}
    return {"score": results["score"]} | results["metrics"] | flat_rows | {"truncated": truncated}


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


def median_seed(scores: dict[int, float]) -> int:
    """The seed with the median score, the lower of two middle ones; of equal ones the first."""
    return sorted(scores, key=scores.__getitem__)[(len(scores) - 1) // 2]


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
