"""The data stages on a Dask cluster: the same bytes as on this machine alone, with a worker killed on the way."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("distributed", reason="dask.distributed is an extra: pip install -e '.[dask]'")

from roberta_core.atomic import digest_of
from tests.core.dask_cluster import Cluster

ROOT = Path(__file__).parents[2]
BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf8"))
STAGES = ("download texts", "clean texts", "dedup", "shard", "tokenizer", "pack")


def article(number: int) -> str:
    """Text of its own for each number; every fifth is nearly the one before it."""
    drawn = random.Random(number - (number % 5 == 4)).choices(range(5000), k=120)
    return " ".join(f"word{each}" for each in drawn) + f" ends {number}"


def build(folder: Path, scheduler: str) -> dict[str, str]:
    """Runs the data stages as processes; digests of what they made."""
    params = {
        **BASE,
        "corpus": {"sources": {"texts": {"kind": "files", "path": "in"}}},
        "shard": {"shard_mb": 0.3, "validation_share": 0.2},
        "tokenizer": {"vocab_size": 400},
        "dedup": {"threshold": 0.8, "paragraphs": True},
        "runtime": {"workers": 1, "dask_scheduler": scheduler},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf8")
    for stage in STAGES:
        done = subprocess.run(
            [sys.executable, "-m", *f"tasks.{stage}".split()],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    return {name: digest_of(folder / name) for name in ("data", "models", "metrics")}


@pytest.mark.slow
def test_the_same_bytes_with_a_worker_killed_on_the_way(tmp_path):
    project = tmp_path / "project"
    (project / "in").mkdir(parents=True)
    for part in range(12):
        rows = [json.dumps({"text": article(number)}) for number in range(part * 400, part * 400 + 400)]
        (project / "in" / f"{part:02d}.jsonl").write_text("\n".join([*rows, "x" * 17_000_000]))  # a part a file
    running = Cluster(tmp_path)
    try:
        doomed = running.add_worker()
        running.add_worker()

        def kill_in_clean() -> None:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                if len(list((project / "data/clean").glob(".texts.tmp/signatures-*.arrow"))) >= 3:
                    return os.kill(doomed.pid, signal.SIGKILL)
                time.sleep(0.005)

        killer = threading.Thread(target=kill_in_clean)
        killer.start()
        on_cluster = build(project, running.address)
        killer.join()
        assert doomed.poll() == -signal.SIGKILL
    finally:
        running.close()
    for name in ("data", "models", "metrics"):
        shutil.rmtree(project / name)
    assert build(project, "") == on_cluster
