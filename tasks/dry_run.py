"""`roberta pretrain --dry-run`: what a run will cost, from params.yaml alone.

Nothing is written. The numbers are arithmetic (`roberta_core.train.plan`), but for the speed of this machine: that is measured
by real updates on made-up rows, for some seconds. For a GPU that is named and not here, the time is the FLOPs over the device's
peak at two shares of it: 26 % is what ModernBERT-base made of 8 H100s (derived from the paper's table 3), 40 % a goal.
Rows, vocabulary and epochs are those of the data where it exists already, else those that params.yaml asks for.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from roberta_core.atomic import write_json
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import write_packed
from roberta_core.data.tokenizer import load_tokenizer
from roberta_core.device import pick_device, set_threads
from roberta_core.errors import BadInput, BadParams
from roberta_core.hardware import GPUS, find_gpu, free_memory, peak_flops
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.progress import human_count, human_time
from roberta_core.train import plan
from roberta_core.train.checkpoint import Checkpoints
from roberta_core.train.evaluate import HeldOut
from roberta_core.train.loop import Pretraining, RunConfig, TrainConfig
from tasks.params import Params
from tasks.pretrain import PACKED, TOKENIZER, train_config

SHARES = (0.26, 0.40)
MEASURE_S = 2.0
"""An update that takes this long is long enough to be measured; a larger batch is extrapolated."""


@dataclass(frozen=True)
class Device:
    """Where the run would be: name, kind (`cpu` or `cuda`), bytes, and how many of them."""

    name: str
    kind: str
    memory: float
    count: int


@dataclass(frozen=True)
class Measured:
    """Speed of one device here in tokens/s, from updates of up to `rows` sequences; its peak in FLOP/s (0: not known)."""

    tokens_per_s: float
    rows: int
    peak: float


def choose_device(name: str, count: int, params: Params) -> Device:
    """The device that was named, or the one here.

    Raises:
        BadParams: there is no such device in the table.
    """
    if not name:
        here = pick_device()
        count = count or params.runtime.processes or (torch.cuda.device_count() if here.type == "cuda" else 1)
        shown = torch.cuda.get_device_name(here) if here.type == "cuda" else f"this CPU ({set_threads(0)} threads)"
        return Device(shown, here.type, free_memory(here), count)
    gpu = find_gpu(name)
    if gpu is None:
        raise BadParams(f"The device {name} is not known.", f"Known are: {', '.join(GPUS)}; without a name, this one.")
    return Device(name, "cuda", gpu.memory_gb * 1e9, count or params.runtime.processes or 1)


def measure(config: TrainConfig, model: RobertaConfig, share: int, fitting: int) -> Measured:
    """Real updates of this run on made-up rows: of one sequence, and of ever more until they take `MEASURE_S`.

    From the two follows what a sequence costs and what an update costs besides (the optimizer), and so the speed at `share`
    sequences an update.
    """
    device = pick_device()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        kind = np.uint16 if model.vocab_size <= 1 << 16 else np.uint32
        docs = [rng.integers(4, model.vocab_size - 1, 64 * model.max_length).astype(kind)]
        write_packed(iter([docs]), made / "part-00000.arrow", "full-sentences", model.max_length, model.vocab_size)
        write_json(made / "manifest.json", {})
        data = PackedRows(made)
        built = RobertaForMaskedLM(model)

        def seconds(rows: int, updates: int) -> float:
            known = replace(config, batch_size=rows, batch_from=None, batch_warmup_steps=0)
            run = RunConfig(device)
            training = Pretraining(
                built, data, HeldOut(data, 1, model.vocab_size), known, run, Checkpoints(made / "none", "", 1)
            )
            training.update(1e-5)  # the first one sets things up
            taken = []
            for _ in range(updates):
                _wait(device)
                started = time.perf_counter()
                training.update(1e-5)
                _wait(device)
                taken.append(time.perf_counter() - started)
            return statistics.median(taken)

        one = some = seconds(1, 3)
        rows, most = 1, max(1, min(share, fitting))
        while rows < most and some < MEASURE_S:
            rows = min(most, 4 * rows)
            some = seconds(rows, 3)
        each = (some - one) / (rows - 1) if some > one else some / rows
        whole = some + each * (share - rows)
        return Measured(share * model.max_length / whole, rows, peak_flops(device, config.precision))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def report(params: Params, device_name: str = "", count: int = 0) -> list[str]:
    """The lines that `roberta pretrain --dry-run` prints. Paths are relative to the project.

    Args:
        device_name: a name of `hardware.GPUS`, or longer; empty: this machine.
        count: of such devices; 0: `runtime.processes`, or one, or here all GPUs.
    """
    section, config, device = params.pretrain, train_config(params), choose_device(device_name, count, params)
    notes = []
    try:
        vocabulary = load_tokenizer(TOKENIZER).get_vocab_size()
    except BadInput:
        vocabulary = params.tokenizer.vocab_size
        notes.append("the tokenizer does not exist yet: vocabulary as in params.yaml")
    try:
        rows = len(packed := PackedRows(PACKED / "train"))
        length = packed.max_length
    except BadInput:
        rows, length = 0, params.pack.max_length
        notes.append("the packed rows do not exist yet: length as in params.yaml, epochs not known")
    model = RobertaConfig.named(section.size, vocabulary, length, config.recipe.dropout)
    masked = config.objective.most if params.runtime.compile else config.objective.mean
    flops = model.train_flops_per_token(length, masked)
    tokens = plan.total_tokens(config.batches, config.max_steps, length)
    share = -(-config.batch_size // device.count)
    shards = device.count if params.runtime.shard == "fsdp" else 1
    memory = plan.memory(
        model, length, config.objective.most, config.precision, config.recipe.optimizer, device.kind, share, shards
    )
    fitting = memory.fitting(device.memory)
    size = plan.micro_batch(fitting, share)

    epochs = (
        f" · {config.batches.start_of(config.max_steps) / rows:.2f} epochs of {human_count(rows)} rows" if rows else ""
    )
    lines = [
        f"model       {section.size}: {model.parameters() / 1e6:,.1f} M parameters, vocabulary {vocabulary:,}, rows of {length}",
        f"recipe      {section.recipe}: {config.recipe.optimizer}, {config.recipe.schedule}, peak {config.recipe.peak_lr:g}, "
        f"{config.recipe.warmup_steps:,} updates of warmup, dropout {config.recipe.dropout:g}",
        f"updates     {config.max_steps:,} of {config.batch_size:,} sequences",
        f"tokens      {human_count(tokens)}{epochs}",
        f"FLOPs       {flops / 1e6:,.1f} M a token · {tokens * flops:.3g} in all",
        f"memory      weights {_gb(memory.weights)} · gradients {_gb(memory.gradients)} · optimizer {_gb(memory.optimizer)} · "
        f"bf16 copies {_gb(memory.casts)} · loss {_gb(memory.loss)} · activations {_gb(memory.sequence)} a sequence",
    ]
    where = f"{device.count} × {device.name}" if device.count > 1 else device.name
    if not size:
        need = (memory.fixed + memory.sequence) / (1 - plan.MARGIN)
        lines.append(
            f"fits        nothing: {device.name} has {_gb(device.memory)}, one sequence at once needs {_gb(need)}"
        )
    else:
        lines.append(
            f"fits        {fitting:,} sequences at once in {_gb(device.memory)} of {device.name}: runtime.micro_batch "
            + (f"{size} ({-(-share // size)} parts an update)" if size < share else "0, the whole batch at once")
        )
        if params.runtime.micro_batch > fitting:
            notes.append(f"runtime.micro_batch is {params.runtime.micro_batch}, which does not fit")
    if device_name:
        peak = find_gpu(device_name).tflops * 1e12
        guesses = [plan.seconds(tokens, flops, peak, device.count, each) for each in SHARES]
        speeds = [human_count(peak * each / flops) for each in SHARES]
        lines.append(
            f"time        {human_hours(guesses[1])} to {human_hours(guesses[0])} on {where}: {speeds[0]} to {speeds[1]} "
            f"tokens/s each, {SHARES[0]:.0%} to {SHARES[1]:.0%} of {peak / 1e12:,.0f} TFLOP/s; not measured"
        )
        if model.hidden_size < 768:
            notes.append("a model this small keeps no GPU busy: it stays below these shares of the peak")
    elif size:
        set_threads(params.runtime.threads)
        here = measure(config, model, share, fitting)
        speed = here.tokens_per_s * device.count
        mfu = f", {here.tokens_per_s * flops / here.peak:.0%} of {here.peak / 1e12:.2f} TFLOP/s" if here.peak else ""
        lines.append(
            f"time        {human_hours(tokens / speed)} on {where}: {human_count(here.tokens_per_s)} tokens/s{mfu}, "
            f"measured at {'' if here.rows == share else '1 and '}{here.rows} sequences an update; "
            "evaluation and checkpoints not counted"
        )
    if config.max_minutes:
        notes.append(f"pretrain.max_minutes ends the run after {config.max_minutes:g} minutes, if it takes longer")
    return lines + [f"note        {note}" for note in notes]


def human_hours(seconds: float) -> str:
    """Hours and minutes below two days, else days."""
    return human_time(seconds) if seconds < 2 * 86400 else f"{seconds / 86400:,.1f} days"
