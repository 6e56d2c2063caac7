"""The data stages as processes in a folder, over a small corpus of random words: for tests that kill and starve them."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf8"))
STAGES = ("download texts", "clean texts", "dedup", "shard", "tokenizer", "pack")
OUT = {
    "download": "data/raw/texts",
    "clean": "data/clean/texts",
    "dedup": "data/dedup",
    "shard": "data/shards",
    "tokenizer": "models/tokenizer",
    "pack": "data/packed",
}
"""What each stage makes, by the first word of its command."""


def article(number: int, words: int = 120) -> str:
    """Text of its own for each number."""
    return (
        " ".join(f"word{drawn}" for drawn in random.Random(number).choices(range(5000), k=words)) + f" ends {number}"
    )


def write_project(folder: Path, documents: int, **sections: dict) -> None:
    """params.yaml and in/*.jsonl; the corpus has one source, `texts`."""
    (folder / "in").mkdir(parents=True)
    for part, start in enumerate(range(0, documents, 500)):
        rows = [json.dumps({"text": article(number)}) for number in range(start, min(start + 500, documents))]
        (folder / "in" / f"{part:03d}.jsonl").write_text("\n".join(rows))
    params = {
        **BASE,
        "corpus": {"sources": {"texts": {"kind": "files", "path": "in"}}},
        "shard": {"shard_mb": 0.5, "validation_share": 0.1},
        "tokenizer": {"vocab_size": 600},
        "runtime": {"workers": 2},
        **sections,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf8")


def start(folder: Path, stage: str) -> subprocess.Popen:
    """A stage as a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", *f"tasks.{stage}".split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code, and what it said to stderr."""
    _, said = process.communicate()
    return process.returncode, said
