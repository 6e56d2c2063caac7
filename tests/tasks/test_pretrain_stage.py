"""The stage `pretrain` as a process: stopped, killed, repeated, doubled, and shared by torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from roberta_core.atomic import digest_of, write_json
from roberta_core.data.packing import write_packed
from roberta_core.data.tokenizer import save_tokenizer, train_tokenizer
from roberta_core.model import RobertaForMaskedLM
from tests.tasks.stage_processes import BASE, ROOT, finish, start

UPDATES, VOCAB, LENGTH = 60, 280, 32


def write_inputs(folder: Path, **runtime: object) -> None:
    """A tokenizer, packed rows of random words, and params.yaml."""
    tokenizer = train_tokenizer(["the cat sat on the mat, and the dog ran after it. "] * 50, VOCAB, 2)
    save_tokenizer(tokenizer, folder / "models" / "tokenizer")
    rng = np.random.default_rng(1)
    for split, count in (("train", 100), ("validation", 20)):
        rows = folder / "data" / "packed" / split
        rows.mkdir(parents=True)
        documents = [rng.integers(4, VOCAB - 1, 60).astype(np.uint16) for _ in range(count)]
        write_packed(iter([documents]), rows / "part-00000.arrow", "full-sentences", LENGTH, VOCAB)
        digest = digest_of(folder / "models" / "tokenizer" / "tokenizer.json")
        write_json(
            rows / "manifest.json", {"tokenizer_sha256": digest, "mode": "full-sentences", "max_length": LENGTH}
        )
    pretrain = {"size": "tiny", "recipe": "fast", "max_steps": UPDATES, "batch_size": 8, "precision": "fp32"}
    pretrain |= {"eval_every": 20, "eval_rows": 16}
    runtime = {
        "threads": 1,
        "device": "cpu",
        "checkpoint_minutes": 1e-5,
        "checkpoint_share": 0,
        "milestone_steps": 25,
    } | runtime
    (folder / "params.yaml").write_text(yaml.safe_dump({**BASE, "pretrain": pretrain, "runtime": runtime}))


def newest(folder: Path) -> int:
    return max((int(path.name[5:]) for path in (folder / ".work" / "pretrain").glob("*/step-*")), default=0)


def wait_for_update(folder: Path, number: int, process: subprocess.Popen) -> None:
    while newest(folder) < number:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def encoder(folder: Path) -> tuple[bytes, dict]:
    weights = (folder / "models" / "encoder" / "model.safetensors").read_bytes()
    return weights, json.loads((folder / "metrics" / "pretrain.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_inputs(folder)
    code, said = finish(start(folder, "pretrain"))
    assert code == 0, said
    return folder


def heeds_sigterm(pid: int) -> bool:
    """Whether the process has a handler for it."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_sigterm_in_the_first_second_means_try_again(tmp_path):
    process = start(tmp_path, "pretrain")
    while not heeds_sigterm(process.pid):
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 75 and said == "Stopped by SIGTERM before it began. Run again to go on.\n"


@pytest.mark.slow
def test_a_stop_a_kill_and_a_second_trainer(tmp_path, whole):
    write_inputs(tmp_path)
    first = start(tmp_path, "pretrain")
    wait_for_update(tmp_path, 5, first)
    asked = time.monotonic()
    first.send_signal(signal.SIGTERM)
    code, said = finish(first)
    assert code == 75 and "a checkpoint is kept. Run again to go on from there." in said
    assert time.monotonic() - asked < 30

    second = start(tmp_path, "pretrain")
    wait_for_update(tmp_path, newest(tmp_path) + 5, second)
    os.kill(second.pid, signal.SIGSTOP)  # alive, and holding its lock, for as long as the third needs to start
    code, said = finish(start(tmp_path, "pretrain"))
    assert code == 75 and f"going on here (process {second.pid})" in said
    os.kill(second.pid, signal.SIGKILL)  # the lock goes with it
    finish(second)
    assert not (tmp_path / "models" / "encoder").exists()

    code, said = finish(start(tmp_path, "pretrain"))
    assert code == 0, said
    assert encoder(tmp_path) == encoder(whole)


@pytest.mark.slow
def test_a_repeat_of_a_finished_run_trains_nothing_and_a_change_clears_it(tmp_path, whole):
    expected = encoder(whole)
    milestones = sorted((whole / "models" / "milestones").glob("*/step-*"))
    assert [path.name for path in milestones] == ["step-000000025", "step-000000050"]
    RobertaForMaskedLM.from_pretrained(milestones[0])
    (whole / "models" / "encoder" / "model.safetensors").unlink()  # DVC removes outputs before it runs a stage
    again = start(whole, "pretrain")
    said, _ = again.communicate()
    assert again.returncode == 0 and f"resumed at update {UPDATES}" in said
    assert encoder(whole) == expected

    params = yaml.safe_load((whole / "params.yaml").read_text())
    (whole / "params.yaml").write_text(yaml.safe_dump(params | {"seed": 2}))
    code, said = finish(start(whole, "pretrain"))
    assert code == 0, said
    assert len(list((whole / ".work" / "pretrain").glob("*/finished"))) == 1
    assert encoder(whole) != expected and milestones[0].exists()


@pytest.mark.slow
def test_two_ranks_of_torchrun_are_stopped_and_go_on_sharded(tmp_path):
    for name in ("one", "two"):
        write_inputs(tmp_path / name, shard="fsdp")
    code, said = finish(start(tmp_path / "one", "pretrain"))
    assert code == 0, said
    folder = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]

    def torchrun() -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "tasks.pretrain"],
            cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    ranks = torchrun()
    wait_for_update(folder, 5, ranks)
    ranks.send_signal(signal.SIGTERM)
    _, said = finish(ranks)
    assert "a checkpoint is kept" in said and 5 <= newest(folder) < UPDATES
    code, said = finish(torchrun())
    assert code == 0, said
    (_, alone), (_, shared) = encoder(tmp_path / "one"), encoder(folder)
    assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-5)
    assert shared["train_loss"] == pytest.approx(alone["train_loss"], abs=1e-5)
