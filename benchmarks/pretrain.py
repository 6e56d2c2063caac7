"""Pretraining speed on a CPU: transformers' Trainer and this project, same data, model, batch, optimizer and schedule.

    python -m benchmarks.pretrain ../shared/data/wiki_en/text [--rounds 5] [--only NAME ...] [--out FILE]

Every contender is a process of its own that trains until it is asked to wait; the parent lets one at a time do some updates,
round after round, so that a machine that slows down slows all of them. What is timed is each side's own loop, from one
update's end to another's: its data, masking, forward and backward pass, clipping, optimizer, bookkeeping. Compilation and the
first updates come before. Each round also measures the peak of the machine's bfloat16 matrix product.

Same on both sides: RoBERTa mini (4 layers x 256, 4 heads), vocabulary 16,384, rows of 128 tokens packed from the corpus,
dropout 0.1, 15 % masked, batch 32, AdamW at the Trainer's defaults (5e-5 falling linearly, betas 0.9 and 0.999, no decay,
clipping at 1.0).
Each side has its own default for idle OpenMP threads: torch's for the Trainer, this project's for this project.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LENGTH, VOCAB, BATCH, MASKED, STEPS = 128, 16384, 32, 0.15, 100_000
CONTENDERS = {
    "trainer fp32": {"kind": "trainer"},
    "trainer bf16 compile": {"kind": "trainer", "bf16": True, "torch_compile": True},
    "trainer bf16": {"kind": "trainer", "bf16": True},
    "ours bf16": {"kind": "ours"},
    "ours fp32": {"kind": "ours", "precision": "fp32"},
    "peak": {"kind": "peak"},
}
DEFAULT = ["trainer fp32", "trainer bf16 compile", "ours bf16", "peak"]
ROUND_S = 5.0
WARMUP = 3
"""Updates before the first round; a compiled model compiles in the first ones."""


def prepare(corpus: Path, folder: Path) -> None:
    """Writes a tokenizer, and rows packed from about a million words of `corpus` (a folder of text files)."""
    from roberta_core.atomic import write_json
    from roberta_core.data.packing import write_packed
    from roberta_core.data.tokenizer import save_tokenizer, train_tokenizer

    texts, size = [], 0
    for file in sorted(path for path in corpus.rglob("*") if path.is_file()):
        texts += [text for text in file.read_text(encoding="utf8").split("\n\n") if len(text) > 200]
        size += file.stat().st_size
        if size > 8e6:
            break
    tokenizer = train_tokenizer(texts, VOCAB, 2)
    save_tokenizer(tokenizer, folder / "tokenizer", LENGTH)
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    import numpy as np

    documents = [np.array(each, np.uint16) for each in ids]
    (folder / "rows").mkdir()
    write_packed(iter([documents]), folder / "rows" / "part-00000.arrow", "full-sentences", LENGTH, VOCAB)
    write_json(folder / "rows" / "manifest.json", {})


class Rounds:
    """The child's side of the talk: waits at the end of an update, and tells the parent what the last ones took."""

    def __init__(self):
        self.left, self.done, self.began = WARMUP, 0, time.perf_counter()

    def update_ended(self, **more: float) -> None:
        """Called after every update."""
        self.left -= 1
        self.done += 1
        if self.left > 0:
            return
        print(
            "@" + json.dumps({"updates": self.done, "seconds": time.perf_counter() - self.began, **more}), flush=True
        )
        asked = sys.stdin.readline().strip()
        if not asked:
            os._exit(0)  # there is nothing to save
        self.left, self.done, self.began = int(asked), 0, time.perf_counter()


def peer_model(vocab_size: int, length: int):
    """transformers' own RoBERTa mini for rows of `length` tokens, with dropout 0.1 as it is by default."""
    import transformers

    return transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(
            vocab_size=vocab_size,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=1024,
            max_position_embeddings=length + 2,
            type_vocab_size=1,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        )
    )


def run_trainer(folder: Path, **flags: bool) -> None:
    """transformers' Trainer as `run_mlm.py` sets it up."""
    import pyarrow as pa
    import transformers
    from datasets import Dataset

    with pa.ipc.open_file(str(folder / "rows" / "part-00000.arrow")) as reader:
        rows = reader.read_all().column("input_ids").to_pylist()
    rows = [row for row in rows if 1 not in row]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    columns = {
        "input_ids": rows,
        "attention_mask": [[1] * LENGTH] * len(rows),
        "special_tokens_mask": [[int(token < 3) for token in row] for row in rows],
    }
    rounds = Rounds()

    class Waits(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            rounds.update_ended()

    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "trainer"),
        use_cpu=True,
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **flags,
    )
    transformers.Trainer(
        peer_model(VOCAB, LENGTH),
        arguments,
        train_dataset=Dataset.from_dict(columns),
        data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED),
        callbacks=[Waits()],
    ).train()


def run_ours(folder: Path, precision: str = "bf16") -> None:
    """This project's loop, with the Trainer's optimizer and schedule."""
    import torch

    from roberta_core.data.packed import PackedRows
    from roberta_core.device import set_threads
    from roberta_core.model import RobertaConfig, RobertaForMaskedLM
    from roberta_core.train.checkpoint import Checkpoints
    from roberta_core.train.evaluate import HeldOut
    from roberta_core.train.loop import Pretraining, RunConfig, TrainConfig
    from roberta_core.train.recipes import recipe

    set_threads(torch.get_num_threads())
    rows = PackedRows(folder / "rows")
    chosen = recipe(
        "paper",
        "mini",
        STEPS,
        peak_lr=5e-5,
        warmup_steps=0,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        clip_norm=1.0,
    )
    config = TrainConfig(
        max_steps=STEPS,
        batch_size=BATCH,
        mask_prob=MASKED,
        recipe=chosen,
        precision=precision,
        seed=1,
        eval_every=STEPS,
        eval_rows=BATCH,
        log_every=50,
    )
    model = RobertaForMaskedLM(RobertaConfig.named("mini", VOCAB, LENGTH, 0.1), seed=1)
    rounds = Rounds()
    data_s = [0.0]

    def update_ended() -> bool:
        """The loop asks this once an update whether to stop: from one question to the next is one update."""
        rounds.update_ended(data_s=data_s[0])
        if not rounds.done:
            data_s[0] = 0.0
        return False

    training = Pretraining(
        model,
        rows,
        HeldOut(rows, BATCH, VOCAB),
        config,
        RunConfig(torch.device("cpu"), checkpoint_s=1e9),
        Checkpoints(folder / "ours", "benchmark", 1),
        should_stop=update_ended,
    )
    batch_at = training.batches.at

    def timed(*args):
        began = time.perf_counter()
        batch = batch_at(*args)
        data_s[0] += time.perf_counter() - began
        return batch

    training.batches.at = timed
    training.train()


def run_peak(folder: Path) -> None:
    """The best that this machine's bfloat16 matrix product shows."""
    from roberta_core.hardware import measured_peak

    rounds = Rounds()
    while True:
        rounds.update_ended(peak=measured_peak("bf16"))


class Contender:
    """The parent's side: one process of `module`, and what its rounds took."""

    def __init__(self, name: str, folder: Path, threads: int, module: str = "benchmarks.pretrain"):
        self.name, self.log = name, folder / f"{name}.log"
        env = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        env |= {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--child", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            env=env,
            text=True,
        )
        self.rounds: list[dict] = []
        self.first = self._answer()

    def _answer(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise SystemExit(f"{self.name} ended: {self.log.read_text()[-2000:]}")

    def go(self, updates: int = 0) -> None:
        """One round of so many updates, or of about `ROUND_S` seconds."""
        last = (self.rounds or [self.first])[-1]
        fitting = max(2, round(ROUND_S * last["updates"] / last["seconds"])) if self.name != "peak" else 2
        updates = updates or fitting
        self.process.stdin.write(f"{updates}\n")
        self.process.stdin.flush()
        self.rounds.append(self._answer())

    def speeds(self) -> list[float]:
        """Tokens a second of each round."""
        return [BATCH * LENGTH * each["updates"] / each["seconds"] for each in self.rounds]

    def stop(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait(20)


def measure(names: list[str], folder: Path, rounds: int, threads: int) -> dict[str, Contender]:
    """Starts the contenders one after another, warms each, and lets them take turns."""
    contenders: dict[str, Contender] = {}
    try:
        for name in names:
            contenders[name] = Contender(name, folder, threads)
            print(f"{name}: ready, first {WARMUP} updates {contenders[name].first['seconds']:.1f} s", flush=True)
        for each in contenders.values():
            each.go()  # not counted: the first round finds how many updates fill one
            each.rounds.clear()
        for number in range(rounds):
            for each in contenders.values():
                each.go()
            shown = "  ".join(f"{n} {each.speeds()[-1]:,.0f}" for n, each in contenders.items() if n != "peak")
            print(f"round {number + 1}: {shown} tokens/s", flush=True)
    finally:
        for each in contenders.values():
            each.stop()
    return contenders


def report(contenders: dict[str, Contender]) -> dict:
    """Medians, ratios round by round, MFU and the data's share."""
    from roberta_core.model import RobertaConfig

    flops = RobertaConfig.named("mini", VOCAB, LENGTH, 0.1).train_flops_per_token(LENGTH, MASKED)
    peak = statistics.median(each["peak"] for each in contenders["peak"].rounds) if "peak" in contenders else 0.0
    figures: dict = {"peak_tflops": peak / 1e12, "mflop_a_token": flops / 1e6, "contenders": {}}
    racing = {name: each for name, each in contenders.items() if name != "peak"}
    for name, each in racing.items():
        speed = statistics.median(each.speeds())
        shown = {
            "tokens_per_s": round(speed),
            "rounds": [round(s) for s in each.speeds()],
            "first_s": each.first["seconds"],
        }
        shown |= {"mfu": round(speed * flops / peak, 4)} if peak else {}
        if "data_s" in each.rounds[0]:
            shown["data_share"] = round(statistics.median(r["data_s"] / r["seconds"] for r in each.rounds), 5)
        figures["contenders"][name] = shown
    figures["ratios"] = {
        f"{mine} / {theirs}": round(
            statistics.median(a / b for a, b in zip(racing[mine].speeds(), racing[theirs].speeds())), 3
        )
        for mine in racing
        for theirs in racing
        if mine.startswith("ours") and theirs.startswith("trainer")
    }
    return figures


def main() -> None:
    """Parses the command line; with `--child` runs one contender."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("corpus", nargs="?", type=Path, help="a folder of text files")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", default=DEFAULT, choices=list(CONTENDERS))
    parser.add_argument("--out", type=Path, help="JSON with all figures")
    asked = parser.parse_args()
    if asked.child:
        name, folder = asked.child
        flags = dict(CONTENDERS[name])
        run: dict[str, Callable] = {"trainer": run_trainer, "ours": run_ours, "peak": run_peak}
        run[flags.pop("kind")](Path(folder), **flags)
        return
    if asked.corpus is None:
        parser.error("give a folder of text files")
    with tempfile.TemporaryDirectory() as temporary:
        prepare(asked.corpus, Path(temporary))
        figures = report(measure(asked.only, Path(temporary), asked.rounds, asked.threads))
    import torch
    import transformers

    figures |= {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    figures |= {"threads": asked.threads, "batch": BATCH, "length": LENGTH}
    print(json.dumps(figures, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
