"""Stage `pretrain`: packed rows to `models/encoder/`.

Checkpoints lie outside the outputs, under `.work/pretrain/<fingerprint>/`, because DVC removes a stage's outputs before
it runs it: a killed run goes on from there, and a run with other parameters, data or tokenizer never sees them.
"""

import shutil
import signal
import sys
from pathlib import Path

from roberta_core.atomic import atomic_dir, digest_of, write_json
from roberta_core.data.packed import PackedRows
from roberta_core.data.tokenizer import load_tokenizer, save_tokenizer
from roberta_core.device import pick_device, set_threads
from roberta_core.errors import BadInput
from roberta_core.lock import held_lock
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.model.neighbours import start_with_neighbours
from roberta_core.train.checkpoint import Checkpoints, fingerprint
from roberta_core.train.evaluate import PLATEAU_NATS, HeldOut
from roberta_core.train.loop import Pretraining, RunConfig, TrainConfig, write_curve
from roberta_core.train.recipes import recipe
from tasks.params import Params
from tasks.stage import LOGS, WORK, main
from tasks.tracking import open_run

PACKED = Path("data/packed")
TOKENIZER = Path("models/tokenizer")
OUT = Path("models/encoder")


def train_config(params: Params) -> TrainConfig:
    """What decides the result, from the params file."""
    section = params.pretrain
    chosen = recipe(
        section.recipe,
        section.size,
        section.max_steps,
        peak_lr=section.peak_lr,
        warmup_steps=section.warmup_steps,
        weight_decay=section.weight_decay,
        dropout=section.dropout,
        clip_norm=section.clip_norm,
    )
    shared = ("max_steps", "batch_size", "mask_prob", "precision", "eval_every", "eval_rows", "log_every")
    return TrainConfig(recipe=chosen, seed=params.seed, **{name: getattr(section, name) for name in shared})


def run(params: Params) -> dict:
    """Trains to the end, or resumes; writes the encoder, its curves, and the numbers."""
    with held_lock(WORK / "pretrain" / "lock", "Another pretraining of this project is going on"):
        return _run(params)


def _run(params: Params) -> dict:
    section, runtime = params.pretrain, params.runtime
    threads = set_threads(runtime.threads)
    device = pick_device(runtime.device)
    config = train_config(params)
    rows, validation = PackedRows(PACKED / "train"), PackedRows(PACKED / "validation")
    tokenizer = load_tokenizer(TOKENIZER)
    vocab_size = tokenizer.get_vocab_size()
    tokenizer_hash = digest_of(TOKENIZER / "tokenizer.json")
    if rows.manifest["tokenizer_sha256"] != tokenizer_hash:
        raise BadInput("The packed rows were made with another tokenizer.", "Run the pack stage: dvc repro pack")
    model_config = RobertaConfig.named(section.size, vocab_size, rows.max_length, config.recipe.dropout)
    run_fingerprint = fingerprint(
        config=config, model=model_config, train=rows.manifest, validation=validation.manifest
    )
    held_out = HeldOut(validation, section.eval_rows, vocab_size)
    unigram = held_out.unigram_entropy()
    print(
        f"pretrain: {section.size}, {model_config.parameters() / 1e6:.1f} M parameters, recipe {section.recipe}, "
        f"{section.max_steps} updates of {section.batch_size} × {rows.max_length} tokens, {section.precision} on {device} "
        f"({threads} threads); unigram entropy of the held-out masked tokens {unigram:.3f}",
        flush=True,
    )
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, frame: stopping.append(signum))
    flat = {f"pretrain.{name}": value for name, value in section.model_dump().items()}
    flat |= {f"recipe.{name}": value for name, value in vars(config.recipe).items()} | {
        "seed": params.seed,
        "fingerprint": run_fingerprint,
    }
    work = WORK / "pretrain" / run_fingerprint
    model = RobertaForMaskedLM(model_config, params.seed)
    if config.recipe.neighbours:
        start_with_neighbours(model, params.seed)
    with open_run("pretrain", params, section=flat, inputs={"packed": PACKED}) as tracked:
        training = Pretraining(
            model,
            rows,
            held_out,
            config,
            RunConfig(device, runtime.micro_batch, runtime.compile, runtime.checkpoint_minutes * 60),
            Checkpoints(work, run_fingerprint, runtime.keep_checkpoints),
            on_point=tracked.log,
            should_stop=lambda: bool(stopping),
        )
        final = training.train()
        gain = unigram - final.loss
        on_plateau = gain < PLATEAU_NATS
        if on_plateau:
            print(
                f"pretrain: the held-out loss {final.loss:.3f} is still on the unigram plateau ({unigram:.3f}): the model knows which tokens "
                "are frequent, and nothing of their context. Train longer, or use pretrain.recipe fast.",
                flush=True,
            )
        metrics = {
            "steps": config.max_steps,
            "tokens": training.history.tokens,
            "epochs": round(config.max_steps * config.batch_size / len(rows), 4),
            "parameters": model_config.parameters(),
            "train_loss": round(training.history.train[-1]["loss"], 6),
            "loss": round(final.loss, 6),
            "perplexity": round(2.718281828459045**final.loss, 4),
            "accuracy": round(final.accuracy, 6),
            "masked_tokens": len(held_out.targets),
            "unigram_entropy": round(unigram, 6),
            "gain_over_unigram": round(gain, 6),
            "on_plateau": int(on_plateau),
        }
        with atomic_dir(OUT) as out:
            training.model.save_pretrained(out)
            save_tokenizer(load_tokenizer(TOKENIZER, plain_text=False), out, model_config.max_length)
            write_json(
                out / "training.json",
                {"fingerprint": run_fingerprint, "seed": params.seed, **section.model_dump(), **metrics},
            )
        write_curve(training.history.train, Path("plots/pretrain.csv"))
        write_curve(training.history.validation, Path("plots/validation.csv"))
        flops = model_config.train_flops_per_token(rows.max_length, config.mask_prob)
        speed = {
            "tokens_per_s": round(training.tokens_per_s(), 1),
            "tflops": round(training.tokens_per_s() * flops / 1e12, 4),
        }
        if training.step_s:  # a run that was already done has no speed of its own
            write_json(
                LOGS / "pretrain.speed.json",
                speed | {"device": str(device), "threads": threads, "precision": section.precision},
            )
        tracked.finish(metrics | speed, OUT)
    shutil.rmtree(work, ignore_errors=True)
    return metrics


if __name__ == "__main__":
    sys.exit(main("pretrain", run))
