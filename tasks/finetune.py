"""Stage `finetune`, one process a task of your own: a file and an encoder to `models/tasks/<NAME>/`.

What the kind of task needs stands in `roberta_core.own`, the training in `roberta_core.finetune`; this module reads the
files, holds out what is not given, and writes the model with its figures. One fine-tuning a seed; the model kept is the
median one's, so the score shown is that of the model in the folder. Everything is decided on dev: the seed, the best
epoch, the threshold of no answer. A test file is looked at once, by the kept model.

What is done stands in `.work/finetune/<NAME>/<fingerprint>/`: a killed stage goes on with the next seed.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from roberta_core.atomic import atomic_dir, atomic_file, digest_of, write_json
from roberta_core.code_digest import code_digest
from roberta_core.device import pick_device, set_threads
from roberta_core.errors import BadInput, BadParams
from roberta_core.finetune import Recipe, Rows, Watch, augmented, derive, finetune, plan, predict, tokenise
from roberta_core.finetune.points import Points, Setting
from roberta_core.finetune.recipe import ENGINE
from roberta_core.finetune.state import Keeper
from roberta_core.model.folder import read_config, tokenizer_of
from roberta_core.own.kind import Data, excerpt
from roberta_core.own.kinds import kind_of
from roberta_core.own.served import TASK_FILE
from roberta_core.own.split import contradictory, shared
from roberta_core.progress import Progress
from roberta_core.train.checkpoint import fingerprint
from tasks.own_files import find_files, lengths_told, read_splits, rows_digest, settings_of
from tasks.params import OwnTask, Params
from tasks.stage import WORK, main
from tasks.tracking import open_run

OUT = Path("models/tasks")


@dataclass
class Job:
    """A task with its rows, from its files to its figures."""

    params: Params
    name: str

    def __post_init__(self):
        self.task = self.params.finetune.tasks[self.name]
        self.encoder = Path(self.params.finetune.encoder)
        self.device = pick_device(self.params.runtime.device)
        self.files = find_files(self.name, self.task)
        config = read_config(self.encoder)
        asked = settings_of(self.name, self.task, config)
        if asked.max_length < self.task.max_length:
            told = f"finetune.tasks.{self.name}.max_length asks for {self.task.max_length}"
            print(
                f"finetune-{self.name}: rows have up to {asked.max_length} tokens, the encoder's limit ({told})",
                flush=True,
            )
        self.kind = kind_of(asked)
        self.notes: list[str] = []
        self.data = self._read()
        self.tokenizer = tokenizer_of(self.encoder, config)
        self.rows = {
            split: self.kind.rows(self.tokenizer, data, training=split == "train") for split, data in self.data.items()
        }
        values = {each.name: getattr(self.task, each.name, None) for each in fields(Recipe)}
        options = self.task.options.model_dump()
        values |= {name: value for name, value in options.items() if name in values} | {"max_length": asked.max_length}
        self.recipe = Recipe(**values)

    def _read(self) -> dict[str, Data]:
        """Train, dev and, where there is one, test; labels learned, faults told."""
        kind, files = self.kind, self.files
        data, self.held_out = read_splits(kind, self.task, files)
        self.notes += [note for each in data.values() for note in each.notes]
        kind.learn(data["train"], files["train"])
        self.contradictory, first = contradictory(data["train"].labelled_rows())
        if self.contradictory:
            told = f"{self.contradictory:,} of {len(data['train']):,} train rows have the text of another row"
            self.notes.append(f"{told}, and another label: {excerpt(first)}")
        self.shared = {}
        train_texts = data["train"].texts_of_rows()
        for split in [each for each in data if each != "train"]:
            if not kind.scored(data[split]):
                if split == "dev":
                    raise BadInput(f"{files['dev']} hides its labels.", "Give a dev file with labels, or none.")
                continue
            self.notes += kind.check(data[split], files.get(split, files["train"]))
            self.shared[split] = shared(train_texts, data[split].texts_of_rows())
            if self.shared[split]:
                told = f"{self.shared[split]:,} of {len(data[split]):,} {split} rows stand in train too"
                self.notes.append(f"{told}: the score flatters")
        return data

    def count(self, what: str) -> int:
        """Rows of all files that were `truncated` or `strided`; kinds that never stride have none such."""
        return sum(getattr(rows, what, 0) for rows in self.rows.values())

    @cached_property
    def fingerprint(self) -> str:
        """Of all that decides a fine-tuning's bits, beside its seed."""
        return fingerprint(
            task=self.task.model_dump(exclude={"seeds"}),
            seed=self.params.seed,
            data={split: digest_of(file) for split, file in self.files.items()},
            encoder=digest_of(self.encoder),
            code=[code_digest(), torch.__version__, torch.get_num_threads(), str(self.device)],
        )

    @property
    def protocol(self) -> dict:
        """How the score is measured: a score is never shown without it."""
        task, options = self.task, self.task.options
        kept = "best epoch on dev" if options.keep_best else "last step"
        split = "dev" if "dev" not in self.held_out else f"dev, {self.held_out['dev']:g} of train held out"
        return {
            "split": split,
            "selection": f"{kept}; {'median over seeds' if len(task.seeds) > 1 else 'one seed'}",
            "seeds": list(task.seeds),
            "epochs": task.epochs,
            "steps": plan(len(self.rows["train"]), self.recipe),
            "batch_size": task.batch_size,
            "peak_lr": task.peak_lr,
            "weight_decay": task.weight_decay,
            "warmup_ratio": task.warmup_ratio,
            "dropout": task.dropout,
            "max_length": self.recipe.max_length,
            "stride": self.kind.settings.stride if task.kind in ("tokens", "questions") else 0,
            "precision": task.precision,
            "engine": ENGINE,
            "options": {key: value for key, value in options.model_dump().items() if value != _OFF[key]},
        }

    def fine_tune(self, seed: int, keeper: Keeper, on_step: Callable[[int, float, float], None]) -> tuple:
        """One fine-tuning: its model, its figures on dev, and its outputs on dev and test."""
        kind, drawn, epochs = self.kind, derive(self.params.seed, "finetune", self.name, seed), []
        watch = None
        if self.recipe.keep_best:
            watch = Watch(self.rows["dev"], lambda outputs: self.figures("dev", outputs)[0][self.task.primary])
        options, of_epoch = self.task.options, None
        if options.delete_words or options.swap_words:
            texts = augmented(self.data["train"].texts, drawn, options.delete_words, options.swap_words)

            def of_epoch(epoch: int) -> Rows:
                rows, length = self.rows["train"], self.recipe.max_length
                return tokenise(self.tokenizer, texts(epoch), rows.labels, length, rows.types is not None)

        model = finetune(
            self.encoder, kind.objective(), self.rows["train"], self.recipe, drawn, self.device, on_step,
            watch=watch, on_epoch=lambda epoch, value: epochs.append(value), rows_of_epoch=of_epoch, keeper=keeper,
        )  # fmt: skip
        outputs = {
            split: predict(kind.objective(), model, self.rows[split]) for split in self.data if split != "train"
        }
        metrics, notes = self.figures("dev", outputs["dev"])
        result = {"scores": metrics, "notes": notes}
        if epochs:
            result |= {"epoch": int(np.argmax(epochs)) + 1, "epochs": len(epochs)}
        return kind.finish(model), result, outputs

    def figures(
        self, split: str, outputs: Sequence[np.ndarray], threshold: float | None = None
    ) -> tuple[dict[str, float], list[str]]:
        """The metrics on a split, rounded to 6 digits; on dev at the threshold that is best there."""
        rows, data = self.rows[split], self.data[split]
        if threshold is None:
            threshold = self.kind.calibrate(rows, outputs, data)
        metrics, notes = self.kind.score(data, self.kind.decide(rows, outputs, data, threshold))
        return {key: round(value, 6) for key, value in metrics.items()}, notes

    def baselines(self, split: str) -> dict[str, dict[str, float]]:
        """What simpler ways reach on the same rows."""
        data = self.data[split]
        return {
            way: {key: round(value, 6) for key, value in self.kind.score(data, guesses)[0].items()}
            for way, guesses in self.kind.baselines(self.data["train"], data).items()
        }


_OFF = OwnTask.model_fields["options"].default.model_dump()


def write_predictions(file: Path, job: Job, split: str, guesses: list, outputs: Sequence[np.ndarray]) -> str:
    """One line a row: label, prediction, and what the kind says beside; tabs and line ends in texts become blanks.

    Returns:
        `rows_digest` of them.
    """
    head, lines = job.kind.predictions(job.data[split], guesses, job.rows[split], outputs)
    with atomic_file(file) as handle:
        for line in [head, *lines]:
            handle.write("\t".join(" ".join(str(cell).split()) for cell in line) + "\n")
    return rows_digest(job.data[split], head, lines)


def run(params: Params, name: str = "") -> dict:
    """Fine-tunes on one task. Returns its score, all its metrics and its rows."""
    tasks = params.finetune.tasks
    if name not in tasks:
        known = ", ".join(tasks) or "none"
        raise BadParams(f"There is no task {name!r} in finetune.tasks (there: {known}).", "Add it, or name another.")
    set_threads(params.runtime.glue_threads)
    job = Job(params, name)
    task, protocol, metric = job.task, job.protocol, job.task.primary
    for note in job.notes + lengths_told(job.count("truncated"), job.count("strided")):
        print(f"finetune-{name}: {note}", flush=True)
    flat = {f"finetune.{key}": value for key, value in protocol.items()}
    flat |= {"task": name, "kind": task.kind, "seed": params.seed}
    points = Points(WORK / "finetune" / name, job.fingerprint, params.runtime.checkpoint_minutes * 60)
    inputs = {"task": Path(task.path), "encoder": job.encoder}
    with open_run(f"finetune-{name}", params, section=flat, inputs=inputs) as tracked, atomic_dir(OUT / name) as out:
        progress = Progress(f"finetune {name}", protocol["steps"] * len(task.seeds), "steps")
        past = 0

        def train(setting: Setting, seed: int, keeper: Keeper) -> tuple:
            def on_step(step: int, loss: float, lr: float) -> None:
                progress.advance(past + step - progress.done, f"loss {loss:.3f}")
                if step % 10 == 0 or step == protocol["steps"]:
                    tracked.log(past + step, {"loss": loss, "lr": lr})

            return job.fine_tune(seed, keeper, on_step)

        def on_done(setting: Setting, seed: int, result: dict) -> None:
            nonlocal past
            past += protocol["steps"]
            progress.advance(past - progress.done, f"seed {seed}: {metric} {result['scores'][metric]:.3f}")

        setting = Setting(task.peak_lr, task.batch_size)
        found = points.search([setting], task.seeds, train, lambda result: result["scores"][metric], on_done)
        results = _results(job, found, out)
        write_json(out / "results.json", results)
        beside = "".join(f", {way} {values[metric]:.3f}" for way, values in results["baselines"].items())
        told = f"dev {metric} {results['score']:.3f}{beside}"
        if "test" in results and "score" in results["test"]:
            told += f"; test {metric} {results['test']['score']:.3f}"
        progress.finish(told)
        tracked.finish(
            results["metrics"]
            | {f"test_{key}": value for key, value in results.get("test", {}).get("metrics", {}).items()},
            out,
        )
    points.finish()
    metrics = {"score": results["score"]} | results["metrics"]
    if "score" in results.get("test", {}):
        metrics |= {f"test_{key}": value for key, value in results["test"]["metrics"].items()}
    return metrics | {f"{split}_rows": count for split, count in results["rows"].items()}


def _results(job: Job, found, out: Path) -> dict:
    """Writes the kept model and its predictions into `out`, and gives what results.json says."""
    kind, metric = job.kind, job.task.primary
    of_seeds = found.results[found.setting]
    kept = of_seeds[found.seed]
    dev, rows, outputs = job.data["dev"], job.rows["dev"], found.outputs["dev"]
    threshold = kind.calibrate(rows, outputs, dev)
    for file in sorted(found.folder.iterdir()):
        shutil.copyfile(file, out / file.name)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if (job.encoder / file).exists():
            shutil.copyfile(job.encoder / file, out / file)
    write_json(out / TASK_FILE, kind.served(threshold))
    guesses = kind.decide(rows, outputs, dev, threshold)
    dev_sha256 = write_predictions(out / "dev_predictions.tsv", job, "dev", guesses, outputs)
    results = {
        "task": job.name,
        "kind": job.task.kind,
        "data": "own",
        "metric": metric,
        "score": kept["scores"][metric],
        "metrics": kept["scores"],
        "seeds": {str(seed): result["scores"][metric] for seed, result in of_seeds.items()},
        "protocol": job.protocol,
        "chosen": {key: kept[key] for key in ("epoch", "epochs") if key in kept} | {"seed": found.seed},
        "rows": {split: len(data) for split, data in job.data.items()},
        "truncated": job.count("truncated"),
        "strided": job.count("strided"),
        "shared": job.shared,
        "contradictory": job.contradictory,
        "dev_sha256": dev_sha256,
        "baselines": job.baselines("dev"),
        "label_names": kind.names,
        "tables": [each.as_json() for each in kind.tables(dev, guesses)],
        "notes": job.notes + [f"seed {seed}: {note}" for seed, each in of_seeds.items() for note in each["notes"]],
    }
    if best := kind.best_possible(rows, outputs, dev):
        results["no_answer"] = {"threshold": round(threshold, 6)}
        results["no_answer"] |= {f"dev_{key}": round(value, 6) for key, value in best.items()}
    if "test" in job.data:
        results["test"] = _on_test(job, found.outputs["test"], threshold, out)
    return results


def _on_test(job: Job, outputs: Sequence[np.ndarray], threshold: float, out: Path) -> dict:
    """The kept model on the test rows: predictions, and figures where there are labels; nothing is chosen here."""
    kind, data, rows = job.kind, job.data["test"], job.rows["test"]
    write_predictions(out / "test_predictions.tsv", job, "test", kind.decide(rows, outputs, data, threshold), outputs)
    if not kind.scored(data):
        return {"hidden": True}
    metrics, notes = job.figures("test", outputs, threshold)
    best = {key: round(value, 6) for key, value in kind.best_possible(rows, outputs, data).items()}
    found = {"score": metrics[job.task.primary], "metrics": metrics | best, "baselines": job.baselines("test")}
    return found | {"held_out": job.held_out.get("test", 0.0), "notes": notes}


if __name__ == "__main__":
    sys.exit(main("finetune", run))
