"""Work over processes: no worker outlives the process that began the work."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from roberta_core.errors import BadInput
from roberta_core.executor import map_shards
from roberta_core.lock import held_lock

ROOT = Path(__file__).parents[2]
WORK = """
import os, sys, time
from pathlib import Path
from roberta_core.executor import map_shards

def work(number):
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(0.05)
    return number

if __name__ == "__main__":
    for _ in map_shards(work, range(100_000), 2):
        pass
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for(condition, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(condition())


def test_sigkill_of_a_stage_ends_its_workers(tmp_path):
    script, seen = tmp_path / "work.py", tmp_path / "seen"
    script.write_text(WORK)
    seen.mkdir()
    running = subprocess.Popen([sys.executable, str(script), str(seen)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        assert wait_for(lambda: len(list(seen.iterdir())) == 2)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert wait_for(lambda: not any(alive(int(each.name)) for each in seen.iterdir()), 10)


def tick_or_fail(number: int, folder: Path) -> None:
    """The first shard fails at once; the others write a file every 10 ms for a minute."""
    if not number:
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
        raise BadInput("The first is bad.", "Take another.")
    for tick in range(6000):
        (folder / f"{number}-{tick}").touch()
        time.sleep(0.01)


def test_an_error_ends_what_the_other_workers_do_before_it_is_raised(tmp_path):
    began = time.monotonic()
    with pytest.raises(BadInput, match="The first is bad"):
        list(map_shards(partial(tick_or_fail, folder=tmp_path), range(8), 2))
    assert time.monotonic() - began < 50, "it does not wait for the others"
    left = len(list(tmp_path.iterdir()))
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == left >= 2
    assert list(map_shards(abs, range(-3, 0), 2)) == [3, 2, 1], "and the next work is not harmed"


ALONE = """
import os, sys, threading
from roberta_core.executor import map_shards

def work(number):
    try:
        import pandas
        pandas = True
    except ImportError:
        pandas = False
    return os.getppid(), pandas

if __name__ == "__main__":
    if "thread" in sys.argv:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    if "torch" in sys.argv:
        import torch
    print(os.getpid(), *{each for each in map_shards(work, range(4), 2)})
"""


@pytest.mark.parametrize("beside, forked", [("", True), ("thread", False), ("torch", False)])
def test_workers_are_forked_from_a_process_of_one_thread_only(tmp_path, beside, forked):
    script = tmp_path / "work.py"
    script.write_text(ALONE)
    done = subprocess.run(
        [sys.executable, str(script), beside],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    parent, told = done.stdout.split(maxsplit=1)
    assert (told.strip() == f"({parent}, False)") == forked
    assert "True" not in told, "a worker imports no pandas"


def test_a_lock_ends_with_its_holder_though_a_worker_lives_on(tmp_path):
    with held_lock(tmp_path / "lock", "A"):
        ready, tell = os.pipe()
        worker = os.fork()
        if not worker:
            os.write(tell, b".")
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
    try:
        with held_lock(tmp_path / "lock", "B"):
            assert alive(worker)
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
