"""Pretraining speed on one GPU: this project's step, and that of transformers' model, on the same rows.

    sh benchmarks/gpu.sh [--rows FOLDER] [--size base] [--length 512] [--out FILE]

Needs torch and numpy, no network; `transformers` takes part where it is installed. Rows are packed rows (`--rows`,
which needs pyarrow) or made up: random tokens, documents of log-normal lengths. What is timed: dynamic masking on the device,
forward and backward pass in bfloat16, the gradient's norm, fused AdamW. The host never waits for the device within a round.
Rounds of the contenders are interleaved. Speed counts true tokens; MFU is over the dense bfloat16 peak of the data sheet, with
`RobertaConfig.train_flops_per_token`, which counts the head on masked tokens alone, for transformers' model too.

On a CPU it runs as well, to try it out.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from roberta_core.device import autocast
from roberta_core.hardware import peak_flops
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.model.isolation import Isolation, has_varlen, isolate
from roberta_core.train.masking import mask_batch
from roberta_core.train.optimizer import Optimizers
from roberta_core.train.recipes import recipe

MASKED = 0.15
BATCHES = 4
"""Batches that lie on the device and take turns: reading rows is another benchmark."""
WARMUP = 5


class Rows(NamedTuple):
    """One batch: `ids` int64 [B, L] on the device, `documents` int32 [B, L] on the CPU, and the count of true tokens."""

    ids: torch.Tensor
    documents: torch.Tensor
    tokens: int


def made_up(batch: int, length: int, vocab: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Full rows of random tokens, and which document of its row each belongs to (median 180 tokens, cut at the row's end)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, vocab - 1, (batch, length), generator=generator)
    begins = torch.zeros(batch, length, dtype=torch.bool)
    begins[:, 0] = True
    for row in begins:
        place = 0
        while place < length:
            row[place] = True
            place += max(8, int(math.exp(5.2 + torch.randn((), generator=generator).item())))
    ids[begins] = 0
    return ids, (begins.cumsum(1) - 1).to(torch.int32)


def batches(asked: argparse.Namespace, device: torch.device) -> list[Rows]:
    """The batches of all contenders."""
    made = []
    for number in range(BATCHES):
        if asked.rows:
            import numpy as np

            from roberta_core.data.packed import PackedRows

            rows = PackedRows(asked.rows)
            numbers = (np.arange(asked.batch) + number * asked.batch) % len(rows)
            ids, documents = torch.from_numpy(rows.rows(numbers)), torch.from_numpy(rows.documents(numbers))
        else:
            ids, documents = made_up(asked.batch, asked.length, asked.vocab, number)
        made.append(Rows(ids.to(device), documents, int(ids.ne(1).sum())))
    return made


class Contender:
    """A model with its optimizer, which makes one update at a time.

    Args:
        model: on the device, in training mode.
        loss: from the model and one batch to the summed loss.
        data: the batches.
    """

    def __init__(
        self, model: torch.nn.Module, loss: Callable[[int], torch.Tensor], data: list[Rows], optimizer: Optimizers
    ):
        self.model, self.loss, self.data, self.optimizer = model, loss, data, optimizer
        self.done = 0
        self.seconds: list[float] = []
        self.memory_gb = 0.0

    def update(self) -> None:
        """Forward, backward, norm, optimizer; nothing waits for the device."""
        self.loss(self.done % len(self.data)).backward()
        gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.optimizer.step(1e-4, ~norm.isfinite(), norm)
        self.done += 1

    def round(self, updates: int) -> None:
        """Times `updates` updates."""
        synchronise()
        began = time.perf_counter()
        for _ in range(updates):
            self.update()
        synchronise()
        self.seconds.append((time.perf_counter() - began) / updates)

    def tokens_per_s(self) -> float:
        """True tokens a second, median over the rounds."""
        return statistics.mean(each.tokens for each in self.data) / statistics.median(self.seconds)


def synchronise() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def masked_batch(rows: Rows, number: int, vocab: int):
    """Dynamic masking, on the device."""
    keys = torch.arange(len(rows.ids), device=rows.ids.device)
    return mask_batch(rows.ids, keys, torch.full_like(keys, number), 1, MASKED, vocab)


def ours(asked: argparse.Namespace, data: list[Rows], dropout: float, isolated: bool) -> Contender:
    """This project's model: the head on masked tokens, the tiled loss."""
    device = data[0].ids.device
    config = RobertaConfig.named(asked.size, asked.vocab, asked.length, dropout)
    model = RobertaForMaskedLM(config, seed=1).to(device).train()
    forward = torch.compile(model, mode=asked.mode) if asked.compile else model
    apart: list[Isolation | None] = [None] * len(data)
    if isolated:
        varlen = has_varlen(device, "bf16", dropout)
        apart = [isolate(each.documents, config.pad_token_id, device, varlen) for each in data]

    def loss(number: int) -> torch.Tensor:
        masked = masked_batch(data[number], number, asked.vocab)
        with autocast(device, "bf16"):
            total, _ = forward(masked.input_ids, None, masked.positions, masked.labels, isolation=apart[number])
        return total / masked.labels.ne(-100).sum()

    return Contender(model, loss, data, Optimizers(model, recipe("paper", asked.size, 1000)))


def theirs(asked: argparse.Namespace, data: list[Rows], dropout: float) -> Contender:
    """transformers' model as `run_mlm` trains it with bf16 and compilation: logits of all tokens."""
    import transformers

    device = data[0].ids.device
    config = RobertaConfig.named(asked.size, asked.vocab, asked.length, dropout).to_hugging_face("RobertaForMaskedLM")
    config = {key: value for key, value in config.items() if key not in ("architectures", "torch_dtype", "model_type")}
    model = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**config)).to(device).train()
    forward = torch.compile(model) if asked.compile else model

    def loss(number: int) -> torch.Tensor:
        masked = masked_batch(data[number], number, asked.vocab)
        flat = torch.full((masked.input_ids.numel(),), -100, device=device)
        labels = flat.scatter(0, masked.positions, masked.labels).view_as(masked.input_ids)
        with autocast(device, "bf16"):
            return forward(input_ids=masked.input_ids, labels=labels).loss

    return Contender(model, loss, data, Optimizers(model, recipe("paper", asked.size, 1000)))


def build(asked: argparse.Namespace, device: torch.device) -> dict[str, Contender]:
    """All contenders, each warmed up alone so that its memory is its own; halves the batch of all until each fits."""
    makers: dict[str, Callable[[list[Rows]], Contender]] = {
        "ours dense, dropout 0.1": lambda data: ours(asked, data, 0.1, isolated=False),
        "ours dense, no dropout": lambda data: ours(asked, data, 0.0, isolated=False),
        "ours isolated, no dropout": lambda data: ours(asked, data, 0.0, isolated=True),
    }
    try:
        import transformers  # noqa: F401

        makers["transformers dense, dropout 0.1"] = lambda data: theirs(asked, data, 0.1)
    except ImportError:
        print("transformers is not installed: no side-by-side", flush=True)
    while True:
        data = batches(asked, device)
        built: dict[str, Contender] = {}
        try:
            for name, make in makers.items():
                began, before = time.perf_counter(), 0
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                    before = torch.cuda.memory_allocated()
                built[name] = make(data)
                for _ in range(WARMUP):
                    built[name].update()
                synchronise()
                if device.type == "cuda":
                    built[name].memory_gb = (torch.cuda.max_memory_allocated() - before) / 1e9
                print(
                    f"{name}: ready after {time.perf_counter() - began:.1f} s, {built[name].memory_gb:.1f} GB",
                    flush=True,
                )
            return built
        except torch.OutOfMemoryError:
            if asked.batch == 1:
                raise SystemExit(f"{name}: not even one row fits. Take a smaller --size or --length.") from None
            print(f"{name}: {asked.batch} rows do not fit; trying {asked.batch // 2}", flush=True)
            asked.batch //= 2
            built.clear()
            torch._dynamo.reset()
            torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> dict:
    """Runs all, prints a table, returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", default="base")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=50265)
    parser.add_argument("--batch", type=int, default=128, help="rows an update; halved until all contenders fit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=20, help="a round")
    parser.add_argument(
        "--mode", default="default", help="of torch.compile; reduce-overhead and max-autotune use CUDA graphs"
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--rows", type=Path, help="a folder of packed rows, such as data/packed/train")
    parser.add_argument("--out", type=Path, help="JSON with all figures")
    asked = parser.parse_args(arguments)
    device = torch.device(asked.device)
    contenders = build(asked, device)
    for _ in range(asked.rounds):
        for each in contenders.values():
            each.round(asked.updates)
    flops = RobertaConfig.named(asked.size, asked.vocab, asked.length, 0.1).train_flops_per_token(asked.length, MASKED)
    peak = peak_flops(device, "bf16")
    figures = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "size": asked.size,
        "length": asked.length,
        "vocab": asked.vocab,
        "batch": asked.batch,
        "compile": asked.mode if asked.compile else None,
        "peak_tflops": peak / 1e12,
        "mflop_a_token": flops / 1e6,
        "contenders": {},
    }
    for name, each in contenders.items():
        speed = each.tokens_per_s()
        mfu = speed * flops / peak if peak else None
        figures["contenders"][name] = {
            "tokens_per_s": round(speed),
            "mfu": mfu,
            "memory_gb": round(each.memory_gb, 2),
            "ms_an_update": [round(1000 * s, 2) for s in each.seconds],
        }
        shown = f"{speed:12,.0f} tokens/s" + (f"  MFU {mfu:6.1%}" if mfu else "") + f"  {each.memory_gb:6.1f} GB"
        print(f"{name:34}{shown}", flush=True)
    if "transformers dense, dropout 0.1" in contenders:
        ratios = zip(
            contenders["transformers dense, dropout 0.1"].seconds, contenders["ours dense, dropout 0.1"].seconds
        )
        figures["ratio"] = round(statistics.median(a / b for a, b in ratios), 3)
        print(f"ours / transformers, dense with dropout 0.1: {figures['ratio']}", flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
    sys.exit(0)
