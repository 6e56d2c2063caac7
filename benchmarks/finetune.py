"""Fine-tuning speed on a CPU: transformers' Trainer as run_glue sets it up, and this project; and the scores of both.

    python -m benchmarks.finetune ENCODER ../shared/data/glue RTE [--rounds 5] [--out FILE]
    python -m benchmarks.finetune ENCODER ../shared/data/glue RTE --scores 5

Every contender is a process that fine-tunes until it is asked to wait; they take turns, as in `benchmarks.pretrain`. Timed is
each side's own loop, from one update's end to another's: batches, forward and backward pass, clipping, optimizer. Rows are
encoded before, on both sides. A round of the sides that pad to the longest row of a batch is a whole epoch, so that each
round has the same rows; updates of the side that pads to 128 all cost the same, so it does a few.

Same on both sides: encoder, rows, batch 32, dropout 0.1, run_glue's optimizer (AdamW, betas 0.9 and 0.999 there, 0.9 and 0.98
here, no decay), rate falling linearly from the same peak, clipping at 1.0. transformers' best flags: padding to the longest row,
rows grouped by length, bf16. The Trainer needs accelerate: `pip install -e '.[benchmarks]' -c constraints.txt`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.pretrain import Contender, Rounds

BATCH, LENGTH, DROPOUT, PEAK_LR = 32, 128, 0.1, 5e-5
CONTENDERS = {
    "trainer defaults": {"padded": True},
    "trainer best flags": {"padded": False},
    "ours": {},
}
EPOCH_ROWS = {"SST-2": 6400, "RTE": 2464}
"""Rows of an epoch in the race: a whole number of batches."""
PADDED_UPDATES = 6
SCORES = {"SST-2": (2048, 2, 2e-4), "RTE": (2490, 2, 2e-4)}
"""Rows, epochs and peak rate of the scores; a small encoder wants a higher rate than run_glue's."""


def read(data: Path, task: str, split: str, rows: int):
    """Texts and labels of the first rows of a task's file."""
    from roberta_core.glue.layout import read_file
    from roberta_core.glue.tasks import TASKS

    found = read_file(data / task / f"{split}.tsv", TASKS[task], split)
    return found.texts[:rows], found.labels[:rows]


def trainer(encoder: Path, data: Path, task: str, folder: Path, padded: bool, rows: int, **settings):
    """transformers' Trainer on a task, and its dev rows."""
    import numpy as np
    import transformers
    from datasets import Dataset

    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=2, hidden_dropout_prob=DROPOUT, attention_probs_dropout_prob=DROPOUT
    )

    def encoded(split: str, count: int) -> Dataset:
        texts, labels = read(data, task, split, count)
        columns = tokenizer(
            *map(list, zip(*texts)), truncation=True, max_length=LENGTH, padding="max_length" if padded else False
        )
        return Dataset.from_dict({**columns, "labels": labels})

    flags = {} if padded else {"bf16": True, "train_sampling_strategy": "group_by_length"}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "trainer"),
        use_cpu=True,
        per_device_train_batch_size=BATCH,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **flags,
        **settings,
    )
    collator = transformers.default_data_collator if padded else transformers.DataCollatorWithPadding(tokenizer)
    made = transformers.Trainer(
        model, arguments, train_dataset=encoded("train", rows), data_collator=collator, processing_class=tokenizer
    )

    def accuracy() -> float:
        found = made.predict(encoded("dev", 10**6))  # in an order of its own where rows are grouped by length
        return float(np.mean(found.predictions.argmax(-1) == found.label_ids))

    return made, accuracy


def ours(encoder: Path, data: Path, task: str, rows: int, epochs: int, peak_lr: float, seed: int, on_step=None):
    """This project's engine on the same rows. Returns the accuracy on dev."""
    import numpy as np
    import torch

    from roberta_core.device import set_threads
    from roberta_core.finetune import Recipe, finetune, predict, tokenise
    from roberta_core.glue.objective import objective_of
    from roberta_core.glue.tasks import TASKS
    from roberta_core.model.folder import read_config, tokenizer_of

    set_threads(torch.get_num_threads())
    tokenizer = tokenizer_of(encoder, read_config(encoder))
    encoded, labels = tokenise(tokenizer, *read(data, task, "train", rows), LENGTH), None
    recipe = Recipe(
        max_length=LENGTH, epochs=epochs, max_steps=0, batch_size=BATCH, peak_lr=peak_lr, weight_decay=0.0,
        warmup_ratio=0.0, dropout=DROPOUT, precision="bf16", clip_norm=1.0,
    )  # fmt: skip
    objective = objective_of(TASKS[task])
    model = finetune(encoder, objective, encoded, recipe, seed, torch.device("cpu"), on_step or (lambda *each: None))
    texts, labels = read(data, task, "dev", 10**6)
    outputs = np.stack(predict(objective, model, tokenise(tokenizer, texts, labels, LENGTH)))
    return float(np.mean(outputs.argmax(1) == np.array(labels)))


def run_child(name: str, folder: Path) -> None:
    """One contender: fine-tunes without end, waiting after each round."""
    asked = json.loads((folder / "asked.json").read_text())
    encoder, data, task = Path(asked["encoder"]), Path(asked["data"]), asked["task"]
    rows, rounds = EPOCH_ROWS[task], Rounds()
    if name == "ours":
        ours(encoder, data, task, rows, 1000, PEAK_LR, 1, lambda *each: rounds.update_ended())
        return
    import transformers

    class Waits(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            rounds.update_ended()

    made, _ = trainer(
        encoder, data, task, folder, **CONTENDERS[name], rows=rows, num_train_epochs=1000, learning_rate=PEAK_LR
    )
    made.add_callback(Waits())
    made.train()


def race(encoder: Path, data: Path, task: str, rounds: int, threads: int, names: list[str]) -> dict:
    """Rows a second of every side, round by round, and the ratios."""
    contenders: dict[str, Contender] = {}
    updates = {
        name: PADDED_UPDATES if each.get("padded") else EPOCH_ROWS[task] // BATCH for name, each in CONTENDERS.items()
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "asked.json").write_text(
            json.dumps({"encoder": str(encoder.resolve()), "data": str(data.resolve()), "task": task})
        )
        try:
            for name in names:
                contenders[name] = Contender(name, folder, threads, "benchmarks.finetune")
            for name, each in contenders.items():
                each.go(
                    3 if CONTENDERS[name].get("padded") else updates[name] - 3
                )  # warm: the rest of the first epoch
                each.rounds.clear()
            for number in range(rounds):
                for name, each in contenders.items():
                    each.go(updates[name])
                shown = {
                    name: BATCH * e.rounds[-1]["updates"] / e.rounds[-1]["seconds"] for name, e in contenders.items()
                }
                print(
                    f"{task} round {number + 1}: " + "  ".join(f"{n} {s:,.1f}" for n, s in shown.items()),
                    "rows/s",
                    flush=True,
                )
        finally:
            for each in contenders.values():
                each.stop()
    speeds = {
        name: [BATCH * one["updates"] / one["seconds"] for one in each.rounds] for name, each in contenders.items()
    }
    ratios = {
        f"{mine} / {theirs}": statistics.median(a / b for a, b in zip(speeds[mine], speeds[theirs]))
        for mine in speeds
        for theirs in speeds
        if mine.startswith("ours") and theirs.startswith("trainer")
    }
    return {
        "task": task,
        "rows_per_s": {name: round(statistics.median(each), 1) for name, each in speeds.items()},
        "rounds": {name: [round(one, 1) for one in each] for name, each in speeds.items()},
        "ratios": {name: round(value, 2) for name, value in ratios.items()},
    }


def scores(encoder: Path, data: Path, task: str, seeds: int) -> dict:
    """Accuracy on dev of transformers with its best flags and of this project, seed by seed, each in a process of its own."""
    found: dict[str, list[float]] = {"trainer best flags": [], "ours": []}
    for seed in range(1, seeds + 1):
        for name, values in found.items():
            command = [
                sys.executable,
                "-m",
                "benchmarks.finetune",
                str(encoder),
                str(data),
                task,
                "--one",
                name,
                str(seed),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            values.append(float(done.stdout.strip().splitlines()[-1]))
        print(
            f"{task} seed {seed}: " + "  ".join(f"{name} {each[-1]:.4f}" for name, each in found.items()), flush=True
        )
    return {
        name: {
            "mean": round(statistics.mean(each), 4),
            "sd": round(statistics.stdev(each), 4) if len(each) > 1 else 0.0,
            "seeds": each,
        }
        for name, each in found.items()
    }


def one_score(encoder: Path, data: Path, task: str, name: str, seed: int) -> float:
    """The accuracy of one side and seed."""
    rows, epochs, peak_lr = SCORES[task]
    if name == "ours":
        return ours(encoder, data, task, rows, epochs, peak_lr, seed)
    import transformers

    transformers.set_seed(seed)
    with tempfile.TemporaryDirectory() as temporary:
        made, accuracy = trainer(
            encoder, data, task, Path(temporary), padded=False, rows=rows,
            num_train_epochs=epochs, learning_rate=peak_lr, seed=seed,
        )  # fmt: skip
        made.train()
        return accuracy()


def main() -> None:
    """Parses the command line; with `--child` runs one contender, with `--one` one seed of one side."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("encoder", nargs="?", type=Path, help="a model folder, as models/encoder")
    parser.add_argument("data", nargs="?", type=Path, help="a folder in GLUE's official layout")
    parser.add_argument("task", nargs="?", choices=list(EPOCH_ROWS))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--scores", type=int, default=0, help="compare the scores of so many seeds instead of speeds")
    parser.add_argument("--out", type=Path, help="JSON with all figures")
    asked = parser.parse_args()
    if asked.child:
        run_child(asked.child[0], Path(asked.child[1]))
        return
    if asked.task is None:
        parser.error("give an encoder, a folder of GLUE and a task")
    place = (asked.encoder, asked.data, asked.task)
    if asked.one:
        print(one_score(*place, asked.one[0], int(asked.one[1])))
        return
    figures = scores(*place, asked.scores) if asked.scores else race(*place, asked.rounds, asked.threads, asked.only)
    print(json.dumps(figures, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
