"""Stage `pretrain`: packed rows to `models/encoder/`.

Checkpoints lie outside the outputs, under `.work/pretrain/<fingerprint>/`, because DVC removes a stage's outputs before
it runs it: a killed run goes on from there, and a run with other parameters, data or tokenizer never sees them. The
last one stays when the stage has ended, so that a repeat (DVC could not record the output) takes seconds. Milestones
are models that nothing here removes: `models/milestones/<fingerprint>/step-000010000/`.

On a machine with several GPUs this process is rank 0 and starts the others; under torchrun, on one node or many, every
rank runs this same module.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch

from roberta_core.atomic import atomic_dir, digest_of, write_json
from roberta_core.data.packed import PackedRows
from roberta_core.data.tokenizer import load_tokenizer, save_tokenizer
from roberta_core.data.word_table import word_table
from roberta_core.device import pick_device, set_threads
from roberta_core.errors import BadInput, UserError
from roberta_core.hardware import peak_flops, used_memory
from roberta_core.lock import held_lock
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.train.checkpoint import Checkpoints, clear_finished, fingerprint
from roberta_core.train.evaluate import PLATEAU_NATS, HeldOut, perplexity
from roberta_core.train.history import write_curve
from roberta_core.train.loop import Pretraining, RunConfig, TrainConfig
from roberta_core.train.ranks import Ranks, followers
from roberta_core.train.recipes import recipe
from roberta_core.train.start import start
from tasks.params import Params
from tasks.params_file import load_params
from tasks.stage import LOGS, WORK, main
from tasks.start import check_tokenizer, find_start, load_start
from tasks.tracking import open_run

PACKED = Path("data/packed")
TOKENIZER = Path("models/tokenizer")
OUT = Path("models/encoder")
MILESTONES = Path("models/milestones")
RUNS = WORK / "pretrain"
INIT = {"init", "init_path"}
"""Keys that `training.json` has only where a run goes on from a model."""


def train_config(params: Params) -> TrainConfig:
    """What decides the result, from the params file."""
    section = params.pretrain
    chosen = recipe(
        section.recipe,
        section.size,
        section.max_steps,
        section.max_minutes is not None,
        optimizer=section.optimizer,
        schedule=section.schedule,
        decay_from=section.decay_from,
        peak_lr=section.peak_lr,
        warmup_steps=section.warmup_steps,
        weight_decay=section.weight_decay,
        dropout=section.dropout,
        clip_norm=section.clip_norm,
    )
    if section.init:  # its words have their vectors, and its heads have learned where to look
        chosen = replace(chosen, word_vectors=False, neighbours=False)
    own = {field.name for field in fields(TrainConfig)} - {"recipe", "seed"}
    return TrainConfig(recipe=chosen, seed=params.seed, **{name: getattr(section, name) for name in own})


class Job:
    """What every rank builds alike from params and data: model, rows, configuration, and the run's fingerprint."""

    def __init__(self, params: Params):
        section, runtime = params.pretrain, params.runtime
        self.runtime = runtime
        self.device = pick_device(runtime.device)
        local = _processes(params) if self.device.type == "cpu" else 1
        self.threads = set_threads(runtime.threads or max(1, set_threads(0) // local))
        self.config = train_config(params)
        self.rows, self.validation = PackedRows(PACKED / "train"), PackedRows(PACKED / "validation")
        tokenizer = load_tokenizer(TOKENIZER)
        vocab_size = tokenizer.get_vocab_size()
        self.word_table = word_table(tokenizer) if self.config.objective.needs_words else None
        if self.rows.manifest["tokenizer_sha256"] != digest_of(TOKENIZER / "tokenizer.json"):
            raise BadInput("The packed rows were made with another tokenizer.", "Run the pack stage: dvc repro pack")
        dropout = self.config.recipe.dropout
        data = {"train": self.rows.manifest, "validation": self.validation.manifest}
        self.start = find_start(Path(), section, seed=params.seed, **data)
        if self.start:
            check_tokenizer(self.start, TOKENIZER)
            self.model = load_start(self.start, vocab_size, dropout)
        else:
            config = RobertaConfig.named(section.size, vocab_size, self.rows.max_length, dropout)
            self.model = RobertaForMaskedLM(config, params.seed)
        self.model_config = self.model.config
        begun = {"start": self.start.sha256} if self.start else {}
        self.fingerprint = fingerprint(config=self.config, model=self.model_config, **data, **begun)
        self.checkpoints = Checkpoints(
            RUNS / self.fingerprint,
            self.fingerprint,
            runtime.keep_checkpoints,
            MILESTONES / self.fingerprint,
            sorted(TOKENIZER.glob("*.json")),
        )
        self.held_out = HeldOut(self.validation, section.eval_rows, vocab_size)
        if not self.start and not self.checkpoints.latest():
            start(self.model, self.rows, self.config.recipe, params.seed)
        self._stopping: list[int] = []
        signal.signal(signal.SIGTERM, lambda signum, frame: self._stopping.append(signum))

    def training(self, on_point: Callable[[int, dict], None] = lambda step, numbers: None) -> Pretraining:
        """The run, resumed from its newest checkpoint."""
        runtime = self.runtime
        return Pretraining(
            self.model,
            self.rows,
            self.held_out,
            self.config,
            RunConfig(
                self.device,
                runtime.micro_batch,
                runtime.compile,
                runtime.checkpoint_minutes * 60,
                peak_flops(self.device, self.config.precision),
                runtime.milestone_steps,
                runtime.shard,
                runtime.checkpoint_share,
            ),
            self.checkpoints,
            on_point=on_point,
            should_stop=lambda: bool(self._stopping),
            ranks=Ranks(self.device),
            word_table=self.word_table,
        )


def _processes(params: Params) -> int:
    """Ranks on this machine: as torchrun says, else as asked, else one a GPU, else one."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    if params.runtime.processes:
        return params.runtime.processes
    return max(1, torch.cuda.device_count()) if params.runtime.device != "cpu" else 1


def run(params: Params) -> dict:
    """Trains to the end, or resumes; writes the encoder, its curves, and the numbers."""
    with (
        held_lock(RUNS / "lock", "Another pretraining of this project is going on"),
        followers(_processes(params), [sys.executable, "-m", "tasks.pretrain"]),
    ):
        return _run(params)


def follow() -> int:
    """A rank beside the first: trains, and writes nothing."""
    try:
        training = Job(load_params()).training()
        training.train()
        training.weights()
        training.ranks.close()
    except UserError as error:  # rank 0 says the same
        return error.exit_code
    return 0


def _run(params: Params) -> dict:
    section = params.pretrain
    job = Job(params)
    clear_finished(RUNS, job.fingerprint)
    config, model_config, held_out = job.config, job.model_config, job.held_out
    unigram = held_out.unigram_entropy()
    ranks = _processes(params)
    if section.max_minutes:
        print(
            f"pretrain: the schedule follows the clock, {section.max_minutes:g} minutes: no second run will give the same bits",
            flush=True,
        )
    if job.start:
        print(
            f"pretrain: goes on from {job.start.resolved}, whose shape it takes (pretrain.size {section.size} is not used)",
            flush=True,
        )
    print(
        f"pretrain: {'continued' if job.start else section.size}, {model_config.parameters() / 1e6:.1f} M parameters, "
        f"recipe {section.recipe}, "
        f"{section.max_steps} updates of {section.batch_size} × {job.rows.max_length} tokens, {section.precision} on "
        f"{job.device} ({job.threads} threads{f', {ranks} processes' if ranks > 1 else ''}); "
        f"unigram entropy of the held-out masked tokens {unigram:.3f}",
        flush=True,
    )
    flat = {f"pretrain.{name}": value for name, value in section.model_dump().items()}
    flat |= {f"recipe.{name}": value for name, value in vars(config.recipe).items()}
    begun = job.start.record() if job.start else {}
    flat |= {"seed": params.seed, "fingerprint": job.fingerprint, **begun}
    if params.runtime.shard != "none" and ranks == 1 and int(os.environ.get("WORLD_SIZE", 1)) == 1:
        print("pretrain: runtime.shard has no effect on one process", flush=True)
    with open_run("pretrain", params, section=flat, inputs={"packed": PACKED}) as tracked:
        training = job.training(on_point=tracked.log)
        final = training.train()
        weights = training.weights()
        training.ranks.close()
        gain = unigram - final.loss
        on_plateau = gain < PLATEAU_NATS
        if on_plateau:
            print(
                f"pretrain: the held-out loss {final.loss:.3f} is still on the unigram plateau ({unigram:.3f}): the model knows "
                "which tokens are frequent, and nothing of their context. Train longer, or use pretrain.recipe fast.",
                flush=True,
            )
        metrics = {
            "steps": training.step,
            "skipped": training.skipped,
            "tokens": training.history.tokens,
            "epochs": round(config.batches.start_of(training.step) / len(job.rows), 4),
            "parameters": model_config.parameters(),
            "train_loss": round(training.history.train[-1]["loss"], 6),
            "loss": round(final.loss, 6),
            "perplexity": round(perplexity(final.loss), 4),
            "accuracy": round(final.accuracy, 6),
            "masked_tokens": len(held_out.targets),
            "unigram_entropy": round(unigram, 6),
            "gain_over_unigram": round(gain, 6),
            "on_plateau": int(on_plateau),
        }
        with atomic_dir(OUT) as out:
            training.model.save_pretrained(out, weights)
            save_tokenizer(load_tokenizer(TOKENIZER, plain_text=False), out, model_config.max_length)
            write_json(
                out / "training.json",
                {"fingerprint": job.fingerprint, "seed": params.seed, **section.model_dump(exclude=INIT)}
                | begun
                | metrics,
            )
        write_curve(training.history.train, Path("plots/pretrain.csv"))
        write_curve(training.history.validation, Path("plots/validation.csv"))
        meter, history = training.meter, training.history
        speed = {
            "tokens_per_s": round(meter.tokens_per_s(), 1),
            "tflops": round(meter.tokens_per_s() * meter.flops_per_token / 1e12, 4),
            "mfu": round(meter.mfu(meter.tokens_per_s()) or 0.0, 4),  # 0: the device's peak is not known
            "padded_share": round(1 - history.tokens / history.slots, 6),
            "memory_mb": round(used_memory(job.device) / 2**20),
        }
        if meter.seconds:  # a run that was already done has no speed of its own
            write_json(
                LOGS / "pretrain.speed.json",
                speed | {"device": str(job.device), "threads": job.threads, "precision": section.precision},
            )
        tracked.finish(metrics | speed, OUT)
    job.checkpoints.finish()
    return metrics


if __name__ == "__main__":
    sys.exit(follow() if int(os.environ.get("RANK", 0)) else main("pretrain", run))
