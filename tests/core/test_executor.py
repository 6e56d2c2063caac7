"""Work over processes: no worker outlives the process that began the work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
