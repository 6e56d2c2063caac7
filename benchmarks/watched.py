"""Runs a command and watches the memory of every process under it: the kernel's own high-water marks."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.05


@dataclass
class Watched:
    """What a command took.

    Attributes:
        seconds: wall clock.
        cpu_s: user and system, children included.
        peak_mb: largest resident set of any one process (VmHWM; mapped files count).
        anon_mb: largest anonymous memory of any one, as seen every 50 ms.
        processes: how many there were.
    """

    seconds: float
    cpu_s: float
    peak_mb: float
    anon_mb: float
    processes: int


def _below(pid: int) -> list[int]:
    """A process and all under it."""
    found = [pid]
    for each in found:
        try:
            for task in os.listdir(f"/proc/{each}/task"):
                found += map(int, Path(f"/proc/{each}/task/{task}/children").read_text().split())
        except (OSError, ValueError):
            continue
    return found


def _memory(pid: int) -> tuple[int, int]:
    """High-water mark of the resident set, and anonymous memory now, in kB; 0 for a process that is gone."""
    peak = anon = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1])
            elif line.startswith("RssAnon:"):
                anon = int(line.split()[1])
    except OSError:
        pass
    return peak, anon


def run(command: list[str], folder: Path, environment: dict[str, str], cores: int = 0) -> Watched:
    """Runs `command` in `folder` to its end, held to the first `cores` cores of this process (0: all).

    Raises:
        SystemExit: it failed; what it said is printed.
    """
    peaks: dict[int, int] = {}
    anons: dict[int, int] = {}
    ended = threading.Event()

    def watch(pid: int) -> None:
        while not ended.wait(EVERY_S):
            for each in _below(pid):
                peak, anon = _memory(each)
                peaks[each] = max(peaks.get(each, 0), peak)
                anons[each] = max(anons.get(each, 0), anon)

    log = folder / "logs" / "benchmark.txt"
    log.parent.mkdir(exist_ok=True)
    before, started = os.times(), time.monotonic()
    with open(log, "w+", encoding="utf8") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        os.sched_setaffinity(process.pid, sorted(os.sched_getaffinity(0))[: cores or None])
        watcher = threading.Thread(target=watch, args=(process.pid,))
        watcher.start()
        code = process.wait()
        seconds = time.monotonic() - started
        ended.set()
        watcher.join()
        if code:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {code}:\n{said.read()[-3000:]}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Watched(
        seconds, cpu, max(peaks.values(), default=0) / 1024, max(anons.values(), default=0) / 1024, len(peaks)
    )
