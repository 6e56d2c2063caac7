"""How far a running stage is, as a progress artifact on Prefect's page: its newest progress line and percentage.

One thread a run sends them, at most every few seconds, and what it sends may fail: a server that is slow or away must
never stop the thread that reads a stage's lines, because a full pipe would stop the trainer.
"""

import contextvars
import re
import threading
from contextlib import suppress
from dataclasses import dataclass

EVERY_S = 3.0
END_WAIT_S = 5.0
_PERCENT = re.compile(r" · (\d{1,3})%(?: ·|$)")
"""As in roberta_core/progress.py: `pretrain: 120/1.0k updates · 12% · …`."""


def key_of(stage: str) -> str:
    """`glue@STS-B` -> `progress-glue-sts-b`: what Prefect takes as a key."""
    return "progress-" + re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")


@dataclass
class _Bar:
    context: contextvars.Context
    percent: float = 0.0
    line: str = ""
    changed: bool = False
    artifact: object = None


class Live:
    """Takes the lines of running stages, and shows the newest of each on Prefect's page."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: dict[str, _Bar] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)

    def __enter__(self) -> "Live":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(END_WAIT_S)

    def started(self, stage: str) -> None:
        """Call it inside the stage's Prefect task: the artifact is then that task's."""
        with self._lock:
            self._bars[stage] = _Bar(contextvars.copy_context())

    def line(self, stage: str, text: str) -> None:
        """A line that a stage printed; one without a percentage is none of progress."""
        found = _PERCENT.search(text)
        if not found:
            return
        with self._lock:
            bar = self._bars[stage]
            bar.percent, bar.line, bar.changed = min(100.0, float(found[1])), text, True

    def ended(self, stage: str, told: str) -> None:
        """The last word: only of a stage that ended well, and that had shown progress."""
        with self._lock:
            bar = self._bars[stage]
            if bar.line:
                bar.percent, bar.line, bar.changed = 100.0, told, True

    def _work(self) -> None:
        while True:
            last = self._over.wait(EVERY_S)
            with self._lock:
                due = [(stage, bar, bar.percent, bar.line) for stage, bar in self._bars.items() if bar.changed]
                for _, bar, _, _ in due:
                    bar.changed = False
            for stage, bar, percent, line in due:
                with suppress(Exception):
                    bar.context.run(self._send, stage, bar, percent, line)
            if last:
                return

    @staticmethod
    def _send(stage: str, bar: _Bar, percent: float, line: str) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if bar.artifact is None:
            bar.artifact = create_progress_artifact(percent, key=key_of(stage), description=line)
        else:
            update_progress_artifact(bar.artifact, percent, description=line)
