"""Text to packed rows, against the tokenizer alone and against `datasets`, in one run.

    python benchmarks/data.py pack --rounds 3     # English Wikipedia from ../shared/data, or --data

Every contender is a fresh process, and they take turns: what one run has warmed helps no other, and a slow minute of the machine
hits all. Seconds are measured inside, from the first text to the last byte on the disk; imports and reading the corpus's
own format are left out for all, starting worker processes is not.

- `bare`: `tokenizers`' `encode_batch_fast` on two threads over texts in memory, 1,000 at a time; the ids are not even read out.
- `datasets`: as `run_mlm.py` of transformers: `map` of the tokenizer, then `map` of its grouping into rows, two processes.
- `ours 1`, `ours 2`: the pack stage as it stands, one and two processes: encode, pack, write, hash, manifest.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

LENGTH, VOCAB = 128, 16_000
SHARD_MB = 14.3
"""The 57 MB of the corpus in four equal shards: two processes have two each."""


def prepare(data: Path, sets: list[str], folder: Path) -> None:
    """A project in `folder` as the shard and tokenizer stages leave it."""
    from roberta_core.data.documents import read_shards, write_shards
    from roberta_core.data.funnel import Funnel
    from roberta_core.data.sources import Files, list_files, read_files
    from roberta_core.data.tokenizer import sample_by_hash, save_tokenizer, train_tokenizer

    documents = []
    for name in sets:
        files = Files(str(data / name), "wikiextractor" if name.startswith("wiki") else "auto")
        documents += read_files(files, [path for path, _ in list_files(files, "path")], name, Funnel())
    write_shards(documents[::100], folder / "data/shards/validation", SHARD_MB)
    write_shards(documents, folder / "data/shards/train", SHARD_MB)
    texts = (
        text
        for batch in read_shards(folder / "data/shards/train", ["text"])
        for text in batch.column("text").to_pylist()
    )
    save_tokenizer(train_tokenizer(sample_by_hash(texts, 0.25), VOCAB, 2), folder / "models/tokenizer", LENGTH)


def _texts() -> list[str]:
    from roberta_core.data.documents import read_shards

    return [text for batch in read_shards(Path("data/shards/train"), ["text"]) for text in batch.column(0).to_pylist()]


def bare() -> tuple[float, int]:
    """Seconds and tokens of the tokenizer alone."""
    from roberta_core.data.tokenizer import load_tokenizer

    tokenizer, texts = load_tokenizer(Path("models/tokenizer")), _texts()
    started, tokens = time.perf_counter(), 0
    for at in range(0, len(texts), 1000):
        tokens += sum(map(len, tokenizer.encode_batch_fast(texts[at : at + 1000], add_special_tokens=False)))
    return time.perf_counter() - started, tokens


def with_datasets() -> tuple[float, int]:
    """Seconds and tokens of two `map`s, as in run_mlm.py."""
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoTokenizer

    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained("models/tokenizer")
    tokenizer.model_max_length = int(1e9)  # else it warns of every document

    def tokenize(examples):
        return tokenizer(examples["text"], return_special_tokens_mask=True)

    def group(examples):
        joined = {name: list(chain(*examples[name])) for name in examples}
        total = len(joined["input_ids"]) // LENGTH * LENGTH
        return {name: [ids[at : at + LENGTH] for at in range(0, total, LENGTH)] for name, ids in joined.items()}

    lines = Dataset.from_dict({"text": _texts()})
    lines.save_to_disk("text")
    lines = Dataset.load_from_disk("text")
    started = time.perf_counter()
    tokenized = lines.map(tokenize, batched=True, num_proc=2, remove_columns=["text"])
    grouped = tokenized.map(group, batched=True, num_proc=2)
    seconds = time.perf_counter() - started
    return seconds, len(grouped) * LENGTH


def ours(workers: int) -> tuple[float, int]:
    """Seconds and tokens of the stage."""
    from tasks import pack
    from tasks.params import Params

    params = Params.model_validate(
        {
            "corpus": {"sources": {"wiki": {"kind": "files", "path": "wiki"}}},
            "pretrain": {"max_steps": 1, "batch_size": 1},
            "glue": {"tasks": ["CoLA"]},
            "pack": {"max_length": LENGTH},
            "runtime": {"workers": workers},
        }
    )
    started = time.perf_counter()
    metrics = pack.run(params)
    return time.perf_counter() - started, metrics["train_tokens"] + metrics["validation_tokens"]


CONTENDERS: dict[str, Callable[[], tuple[float, int]]] = {
    "bare": bare,
    "datasets": with_datasets,
    "ours 1": lambda: ours(1),
    "ours 2": lambda: ours(2),
}


def measure(name: str, folder: Path) -> tuple[float, int]:
    """One contender in a process of its own, in a folder of its own; two cores, but one for the single process."""
    here = folder / "run"
    here.mkdir()
    for part in ("data", "models"):
        shutil.copytree(folder / part, here / part)
    environment = {**os.environ, "HF_HOME": str(here / "hf"), "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": "1" if name == "ours 1" else "2"}
    if name == "datasets":  # its own processes take the cores
        environment["TOKENIZERS_PARALLELISM"] = "false"
    done = subprocess.run(
        [sys.executable, __file__, "one", name],
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    shutil.rmtree(here)
    seconds, tokens = json.loads(done.stdout.splitlines()[-1])
    return seconds, tokens


def pack(data: Path, sets: list[str], contenders: list[str], rounds: int) -> None:
    """Rounds of the contenders, medians and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(data, sets, folder)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(rounds):
            for contender in contenders:
                seconds, tokens = measure(contender, folder)
                rates[contender].append(tokens / seconds)
                print(f"round {number + 1}  {contender:9}{seconds:7.2f} s  {tokens:,} tokens", flush=True)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in middle.items():
        spread = f"{min(rates[name]) / 1e6:.2f}–{max(rates[name]) / 1e6:.2f}"
        print(f"{name:9}{rate / 1e6:6.2f} M tokens/s ({spread})")
    for one, other in (("ours 2", "bare"), ("ours 2", "datasets"), ("ours 2", "ours 1")):
        if one in middle and other in middle:
            print(f"{one} / {other}: {middle[one] / middle[other]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="text to packed rows")
    packing.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    packing.add_argument("--sets", nargs="+", default=["wiki_en"], help="folders in data")
    packing.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    packing.add_argument("--rounds", type=int, default=3)
    one = commands.add_parser("one", help="one contender of pack, in the folder that pack has made")
    one.add_argument("name", choices=CONTENDERS)
    given = parser.parse_args()
    if given.command == "one":
        print(json.dumps(CONTENDERS[given.name]()))
    else:
        pack(given.data, given.sets, given.contenders, given.rounds)


if __name__ == "__main__":
    main()
