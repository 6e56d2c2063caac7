"""One stage as `dvc --wait-for-lock repro -s <stage>`: a process group of its own, that never outlives the run.

Why a process: DVC keeps state a process, its lock would be held for all stages of this one, and a stage that dies must
not take the flow with it. Why a group of its own: ending `dvc` alone leaves the trainer running. The group ends with
the flow in all ways that there are: an error, Ctrl-C, SIGTERM, and SIGKILL too (`guard.py` watches a pipe).
Price: 0.4 s a stage for starting DVC, and 20 ms for the guard.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from flows.guard import end_group
from roberta_core.errors import EXIT_TRY_AGAIN, TryAgain, UserError

GRACE_S = 30.0
"""For a stage that saves its state: a checkpoint of a large model is gigabytes."""
GUARD = Path(__file__).with_name("guard.py")

# what DVC says about itself, between the lines of the stage
_DVC_LINES = (
    "ERROR:",
    "WARNING:",
    "Running stage",
    "> ",
    "Updating lock",
    "Generating lock",
    "Use `dvc ",
    "To track ",
    "git add ",
    "To enable auto staging",
    "dvc config core.autostage",
)
_EXITED = re.compile(r"exited with (-?\d+)$")
_BY_SIGTERM = (-signal.SIGTERM, 128 + signal.SIGTERM)
"""How a process ends by SIGTERM before it has a handler, as in the second in which it imports torch; a shell adds 128."""
_SKIPPED = re.compile(r"^Stage '.*' didn't change, skipping$")
_RESTORED = re.compile(r"^Stage '.*' is cached - skipping run")


class StageFailed(UserError):
    """A stage ended with an error: its own last line is the message."""

    def __init__(self, stage: str, told: str, log: Path):
        self.stage = stage
        super().__init__(told if told.startswith(stage.replace("@", "-")) else f"{stage}: {told}", f"(log: {log})")


class StageTryAgain(TryAgain):
    """A stage ended with exit code 75: it may pass by itself."""


@dataclass(frozen=True)
class Ended:
    """How a stage ended: `done`, `restored` (from DVC's run cache) or `up to date`."""

    how: str
    seconds: float


class Groups:
    """The process groups that this process has started. `stop()` ends them all, and lets no new one begin."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self.stopping = threading.Event()

    def start(self, command: list[str], root: Path, environment: dict[str, str]) -> subprocess.Popen:
        with self._lock:
            if self.stopping.is_set():
                raise TryAgain("The run is being stopped.", "Run again to go on.")
            process = subprocess.Popen(
                command, cwd=root, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf8", errors="replace",
            )  # fmt: skip
            self._running.add(process)
            return process

    def forget(self, process: subprocess.Popen) -> None:
        with self._lock:
            self._running.discard(process)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Ends every group: SIGTERM, `grace_s` seconds, SIGKILL. Returns when all are gone."""
        with self._lock:
            self.stopping.set()
            running = list(self._running)
        enders = [threading.Thread(target=end_group, args=(each.pid, grace_s)) for each in running]
        for each in enders:
            each.start()
        for each in enders:
            each.join()


def _environment() -> dict[str, str]:
    """The child's: this Python first on the path, so that `python -m tasks.x` in dvc.yaml is this one; unbuffered lines."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"}


def _guard(group: int, keep_open: int | None) -> subprocess.Popen:
    """Starts the guard of a group. `keep_open` is a file descriptor (the run's lock) that it holds until it ends."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), str(group), str(GRACE_S)],
        stdin=subprocess.PIPE, start_new_session=True, pass_fds=() if keep_open is None else (keep_open,),
    )  # fmt: skip


def shield_server() -> None:
    """Gives the server that Prefect starts for a run a process group of its own, with a guard.

    A terminal sends Ctrl-C to the whole group in front: the server would end first, and Prefect would wait for it for
    minutes and end in tracebacks. Prefect has no setting for this, so its module gets another `Popen`.
    """
    from prefect.server.api import server

    guards = []  # a guard whose pipe is let go ends its group

    def start(*args, **more) -> subprocess.Popen:
        process = subprocess.Popen(*args, **more | {"start_new_session": True})
        guards.append(_guard(process.pid, None))
        return process

    server.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": start})


def run_stage(
    stage: str,
    root: Path,
    groups: Groups,
    on_line: Callable[[str], None] = lambda line: None,
    lock_fd: int | None = None,
    more: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Runs one stage through DVC and waits for it. Every line goes to `logs/<stage>.log` and to `on_line`.

    `more` goes to `dvc repro`, and `environment` to the stage beside this process's own.

    Raises:
        StageTryAgain: the stage ended with exit code 75.
        StageFailed: it ended with another error.
    """
    log = root / "logs" / f"{stage.replace('@', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    process = groups.start(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *more, "-s", stage],
        root,
        _environment() | (environment or {}),
    )
    lines: list[str] = []

    def read() -> None:
        with open(log, "w", encoding="utf8") as handle:
            for line in process.stdout:
                handle.write(line)
                handle.flush()
                if line.strip():
                    # the end of a stage is what counts: its last words, then DVC's
                    lines.append(line.strip())
                    del lines[:-50]
                    if not lines[-1].startswith(_DVC_LINES):
                        # who shows a line may fail; who reads must not: a full pipe would stop the stage
                        with suppress(Exception):
                            on_line(lines[-1])

    reader = threading.Thread(target=read, name=f"log of {stage}", daemon=True)
    guard = None
    try:
        guard = _guard(process.pid, lock_fd)
        reader.start()
        code = process.wait()
    finally:
        # DVC ends at once when it is stopped; the stage below it has the grace to save its state. A child that outlives
        # the stage would hold the pipe open, and a GPU.
        end_group(process.pid, GRACE_S)
        process.wait()
        groups.forget(process)
        if guard is not None:
            with suppress(BrokenPipeError):
                guard.communicate(b"done")
    reader.join(10)
    seconds = time.monotonic() - started
    if code == 0:
        how = (
            "up to date"
            if any(map(_SKIPPED.match, lines))
            else "restored"
            if any(map(_RESTORED.match, lines))
            else "done"
        )
        return Ended(how, seconds)
    if groups.stopping.is_set():
        raise StageTryAgain(f"{stage}: stopped.", "Run again to go on.")
    raise _failure(stage, code, lines, log.relative_to(root))


def _failure(stage: str, code: int, lines: list[str], log: Path) -> UserError:
    """The error for a stage that ended badly: the stage's own last line where it said one, else DVC's."""
    by_dvc = next((line for line in reversed(lines) if line.startswith("ERROR:")), "")
    if "is busy, it is being blocked by" in by_dvc:
        return StageTryAgain(
            f"{stage}: another dvc command is at work on its files.", "Wait until it is done, or stop it."
        )
    exited = _EXITED.search(by_dvc)
    own = [line for line in lines if not line.startswith(_DVC_LINES)]
    if exited and own:
        told = own[-1]
    else:
        told = by_dvc.removeprefix("ERROR:").strip() or f"dvc ended with {code}"
    if code in _BY_SIGTERM or (exited and int(exited[1]) in _BY_SIGTERM):
        return StageTryAgain(f"{stage}: stopped by SIGTERM.", "Run again to go on.")
    if exited and int(exited[1]) == EXIT_TRY_AGAIN:
        return StageTryAgain(told if told.startswith(stage.replace("@", "-")) else f"{stage}: {told}", f"(log: {log})")
    return StageFailed(stage, told, log)
