"""Kills a tiny pretraining again and again, and compares how it ends: `python killed_run.py FOLDER RECIPE TRIALS`.

Torch is imported once and each run is a fork, so that a run costs its updates alone. Every update is followed by a
checkpoint, so most kills come while one is being written. The moments are drawn from fixed seeds: an update to wait
for, and a part of an update's time after it. Prints one JSON line a trial.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from roberta_core.atomic import write_json
from tests.core.train.tiny_run import STEPS, build

UPDATE_S = 0.05


def start(folder: Path, name: str) -> int:
    """Forks a run that goes on from what lies in `folder`; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(folder / "log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        training = build(folder, name)
        training.train()
        training.model.save_pretrained(folder / "done", training.weights())
        write_json(
            folder / "done" / "history.json",
            {"train": training.history.train, "validation": training.history.validation},
        )
        code = 0
    finally:
        os._exit(code)


def finish(folder: Path, name: str) -> tuple[bytes, bytes]:
    """Runs to the end; the bytes of the weights and of the logged numbers."""
    _, status = os.waitpid(start(folder, name), 0)
    assert status == 0, (folder / "log").read_text()
    return (folder / "done" / "model.safetensors").read_bytes(), (folder / "done" / "history.json").read_bytes()


def newest(folder: Path) -> int:
    return max((int(path.name[5:]) for path in (folder / "work").glob("step-*")), default=0)


def kill(folder: Path, name: str, target: int, after_s: float) -> dict:
    """SIGKILL some time after update `target` was saved; says what lay there then."""
    pid = start(folder, name)
    while newest(folder) < target and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"step": newest(folder), "writing": any((folder / "work").glob(".step-*.tmp"))}


def main(root: Path, name: str, trials: int) -> None:
    (root / "whole").mkdir(parents=True)
    expected = finish(root / "whole", name)
    for number in range(trials):
        rng = random.Random(number)
        first, second = root / f"{number}-first", root / f"{number}-second"
        first.mkdir()
        shutil.copytree(root / "whole" / "train", first / "train")
        shutil.copytree(root / "whole" / "validation", first / "validation")
        kills = [kill(first, name, rng.randint(0, STEPS - 3), rng.random() * UPDATE_S)]
        shutil.copytree(first, second)
        kills.append(kill(second, name, min(kills[0]["step"] + rng.randint(0, 4), STEPS - 2), rng.random() * UPDATE_S))
        same = [finish(first, name) == expected, finish(second, name) == expected]
        print(json.dumps({"trial": number, "kills": kills, "same": same}), flush=True)
        shutil.rmtree(first)
        shutil.rmtree(second)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
