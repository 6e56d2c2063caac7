"""Held-out masked loss against time: the `fast` recipe, and transformers' Trainer with the paper's recipe.

    python -m benchmarks.time_to_loss prepare work ../shared/data/wiki_en     # once: corpus to packed rows, as presets/wiki.yaml
    python -m benchmarks.time_to_loss ours work --minutes 2 --seeds 1 2 3
    python -m benchmarks.time_to_loss ours work --minutes 20 --seeds 1 2 3 --batch-size 32 --mask-prob 0.5 0.15
    python -m benchmarks.time_to_loss trainer work --steps 525

Same rows, tokenizer, held-out rows and masks for both (`roberta_core.train.evaluate`: 15 %, fixed), RoBERTa mini, all cores. The
clock runs from the drawn weights to the last evaluation: what the recipe does before the first update counts, and so do the
evaluations on the way. A line of JSON a point, and the medians over the seeds at the end; docs/leaderboard.md has the records.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
DATA_STAGES = ("download wiki", "clean wiki", "dedup", "shard", "tokenizer", "pack")
POINTS = (0.05, 0.1, 0.25, 0.5)
"""Shares of a run at which it is scored, beside its end."""
EVAL_ROWS = 1024
MANY = 100_000
"""More updates than any budget has; the schedule follows the clock."""


def prepare(folder: Path, corpus: Path) -> None:
    """Runs the data stages of presets/wiki.yaml on `corpus` (WikiExtractor files) in `folder`."""
    params = yaml.safe_load((ROOT / "presets" / "wiki.yaml").read_text(encoding="utf8"))
    params["corpus"]["sources"]["wiki"]["path"] = str(corpus.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf8")
    for stage in DATA_STAGES:
        command = [sys.executable, "-m", *f"tasks.{stage}".split()]
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


class Curve:
    """Seconds, tokens and held-out loss of one run."""

    def __init__(self, name: str, seed: int):
        self.name, self.seed, self.points = name, seed, []
        self.began = time.perf_counter()

    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self.began

    def add(self, tokens: int, loss: float, accuracy: float) -> None:
        """Notes a held-out loss (nats a masked token) and prints it."""
        point = {"seconds": round(self.seconds(), 1), "tokens": tokens, "loss": round(loss, 4)}
        self.points.append(point)
        print(json.dumps({"run": self.name, "seed": self.seed, **point, "accuracy": round(accuracy, 4)}), flush=True)


def _data(folder: Path):
    from roberta_core.data.packed import PackedRows
    from roberta_core.train.evaluate import HeldOut

    rows, validation = (PackedRows(folder / "data" / "packed" / split) for split in ("train", "validation"))
    return rows, HeldOut(validation, EVAL_ROWS, rows.manifest["vocab_size"])


def run_ours(
    folder: Path, minutes: float, seed: int, recipe_name: str, batch_size: int, mask_probs: list[float]
) -> Curve:
    """This project's loop, with a schedule that follows the clock (`pretrain.max_minutes`).

    `mask_probs`: `mask_prob`, and `mask_prob_end` where it changes.
    """
    import torch

    from roberta_core.model import RobertaConfig, RobertaForMaskedLM
    from roberta_core.train.checkpoint import Checkpoints
    from roberta_core.train.loop import Pretraining, RunConfig, TrainConfig
    from roberta_core.train.recipes import recipe
    from roberta_core.train.start import start

    rows, held_out = _data(folder)
    cpu = torch.device("cpu")
    chosen = recipe(recipe_name, "mini", MANY)
    config = RobertaConfig.named("mini", rows.manifest["vocab_size"], rows.max_length, chosen.dropout)
    model = RobertaForMaskedLM(config, seed)
    curve = Curve(recipe_name, seed)
    start(model, rows, chosen, seed)
    due = [60 * minutes * share for share in POINTS]

    def update_ended() -> bool:
        """The loop asks once an update whether to stop: here the model is scored when it is time."""
        if due and curve.seconds() >= due[0]:
            due.pop(0)
            scored = held_out.score(model, cpu, "bf16")
            curve.add(training.history.tokens, scored.loss, scored.accuracy)
        return False

    with tempfile.TemporaryDirectory() as temporary:
        training = Pretraining(
            model,
            rows,
            held_out,
            TrainConfig(
                max_steps=MANY,
                batch_size=batch_size,
                mask_prob=mask_probs[0],
                mask_prob_end=mask_probs[-1],
                recipe=chosen,
                precision="bf16",
                seed=seed,
                eval_every=MANY,
                eval_rows=EVAL_ROWS,
                log_every=50,
                max_minutes=minutes - curve.seconds() / 60,
            ),
            RunConfig(cpu, checkpoint_s=1e9),
            Checkpoints(Path(temporary), "benchmark", 1),
            should_stop=update_ended,
        )
        final = training.train()
    curve.add(training.history.tokens, final.loss, final.accuracy)
    return curve


def run_trainer(folder: Path, steps: int, seed: int, batch_size: int) -> Curve:
    """transformers' Trainer: AdamW 1e-3, betas 0.9 and 0.98, warmup 6 %, linear decay, bfloat16, dropout 0.1."""
    import torch
    import transformers

    from benchmarks.pretrain import peer_model
    from roberta_core.data.packing import PAD
    from roberta_core.data.tokenizer import load_tokenizer, save_tokenizer
    from roberta_core.model import RobertaForMaskedLM

    rows, held_out = _data(folder)

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, number: int) -> dict:
            ids = rows.rows([number])[0]
            return {"input_ids": ids, "attention_mask": ids != PAD, "special_tokens_mask": ids < 3}

    with tempfile.TemporaryDirectory() as temporary:
        save_tokenizer(load_tokenizer(folder / "models" / "tokenizer"), Path(temporary), rows.max_length)
        tokenizer = transformers.AutoTokenizer.from_pretrained(temporary)
        transformers.set_seed(seed)
        model = peer_model(rows.manifest["vocab_size"], rows.max_length)
        due = [round(steps * share) for share in POINTS] + [steps]
        curve = Curve("trainer", seed)

        class Score(transformers.TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs) -> None:
                if state.global_step == due[0]:
                    due.pop(0)
                    kwargs["model"].save_pretrained(temporary)
                    scored = held_out.score(RobertaForMaskedLM.from_pretrained(temporary), torch.device("cpu"), "bf16")
                    curve.add(state.global_step * batch_size * rows.max_length, scored.loss, scored.accuracy)

        arguments = transformers.TrainingArguments(
            output_dir=temporary,
            use_cpu=True,
            bf16=True,
            per_device_train_batch_size=batch_size,
            max_steps=steps,
            learning_rate=1e-3,
            adam_beta2=0.98,
            warmup_steps=round(0.06 * steps),
            lr_scheduler_type="linear",
            seed=seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        transformers.Trainer(
            model,
            arguments,
            train_dataset=Rows(),
            data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
            callbacks=[Score()],
        ).train()
    return curve


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["prepare", "ours", "trainer"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("corpus", nargs="?", type=Path, help="prepare: a folder of WikiExtractor files")
    parser.add_argument("--minutes", type=float, default=2.0, help="ours: the budget")
    parser.add_argument("--steps", type=int, default=525, help="trainer: updates; 525 of 64 rows are 4.3 M tokens")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--recipe", default="fast", help="ours")
    parser.add_argument("--batch-size", type=int, help="rows an update; 16 for ours, 64 for the Trainer")
    parser.add_argument(
        "--mask-prob", type=float, nargs="+", default=[0.15], help="ours: the share masked, and that at the end"
    )
    asked = parser.parse_args()
    if len(asked.mask_prob) > 2:
        parser.error("--mask-prob takes one share, or that of the beginning and that of the end")
    if asked.what == "prepare":
        if asked.corpus is None:
            parser.error("prepare needs a corpus")
        prepare(asked.folder, asked.corpus)
        return
    _, held_out = _data(asked.folder)
    print(json.dumps({"unigram_entropy": round(held_out.unigram_entropy(), 4), "masked": len(held_out.targets)}))
    curves = [
        run_ours(asked.folder, asked.minutes, seed, asked.recipe, asked.batch_size or 16, asked.mask_prob)
        if asked.what == "ours"
        else run_trainer(asked.folder, asked.steps, seed, asked.batch_size or 64)
        for seed in asked.seeds
    ]
    for points in zip(*(curve.points for curve in curves)):
        row = {key: statistics.median(point[key] for point in points) for key in points[0]}
        print(json.dumps({"median_of": len(curves), **row, "losses": [point["loss"] for point in points]}))


if __name__ == "__main__":
    main()
