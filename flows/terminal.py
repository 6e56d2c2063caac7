"""What a person sees while the flow runs: one line a running stage on a terminal, plain lines elsewhere.

On a terminal the lines of running stages rewrite themselves below the list of the finished ones. Through a pipe every
event is a line of its own, and a stage's progress shows at most every ten seconds, so that a log file stays short.
"""

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from roberta_core.atomic import read_json
from roberta_core.progress import human_time
from tasks.candidates import model_names
from tasks.params import Params

PLAIN_EVERY_S = 10.0
MARKS = {"done": "✓", "restored": "✓", "up to date": "·", "failed": "✗", "not run": "–"}
STYLES = {"done": "green", "restored": "green", "up to date": "dim", "failed": "bold red", "not run": "yellow"}


def _fall_silent(console: object) -> None:
    """What a rich console does when nobody reads it any more; its own way is to end the process."""
    console.quiet = True
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(silence, stream.fileno())


def outlive_reader() -> None:
    """Lets this process go on when nobody reads its output any more.

    A run that a worker started has the worker for its reader. When that is killed, the next line to any rich console,
    and Prefect's log writes through one, would end the run in mid-training.
    """
    from rich.console import Console

    Console.on_broken_pipe = _fall_silent


class Board:
    """Shows the stages of one run. Safe to call from the threads of the stages."""

    def __init__(self, total: int):
        from rich.console import Console

        outlive_reader()
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = None
        self._lock = threading.Lock()
        self._running: dict[str, tuple[float, str]] = {}
        self._shown: dict[str, float] = {}
        self._total, self._ended = total, 0

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            from rich.live import Live

            self._console.soft_wrap = False
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def _render(self):
        from rich.text import Text

        with self._lock:
            running = list(self._running.items())
        lines = []
        for name, (since, last) in running:
            line = Text.assemble(
                (" ▸ ", "cyan"), (name, "bold"), (f"  {human_time(time.monotonic() - since)}  ", "cyan")
            )
            # the stage's own prefix says its name again
            line.append(last.removeprefix(f"{name.replace('@', '-')}: "), "dim")
            line.truncate(max(20, self._console.width - 1), overflow="ellipsis")
            lines.append(line)
        return Text("\n").join(lines)

    def say(self, text: str, style: str = "") -> None:
        """A line of its own."""
        from rich.text import Text

        self._console.print(Text(text, style=style))

    def started(self, name: str) -> None:
        with self._lock:
            self._running[name] = (time.monotonic(), "")
            self._shown[name] = time.monotonic()
        if not self._live:
            self.say(f"{name}: started")

    def line(self, name: str, text: str) -> None:
        """A line that a running stage printed."""
        with self._lock:
            since, _ = self._running.get(name, (time.monotonic(), ""))
            self._running[name] = (since, text)
            due = not self._live and time.monotonic() - self._shown.get(name, 0.0) >= PLAIN_EVERY_S
            if due:
                self._shown[name] = time.monotonic()
        if due:
            self.say(f"{name}: {text.removeprefix(name.replace('@', '-') + ': ')}")

    def ended(self, name: str, how: str, seconds: float = 0.0, note: str = "") -> None:
        """A stage or a step has ended; `how` is a key of `MARKS`."""
        with self._lock:
            self._running.pop(name, None)
            self._ended += 1
            count = f"[{self._ended}/{self._total}]"
            took = f" in {human_time(seconds)}" if how in ("done", "restored") else ""
            told = "restored from the cache" if how == "restored" else how
            self.say(f"{count} {MARKS[how]} {name}: {told}{took}{f' – {note}' if note else ''}", STYLES[how])


def show_status(stages: list, stale: dict[str, list[str]]) -> None:
    """The stages that are stale with their reasons, or one line when none is."""
    if not stale:
        print(f"Everything is up to date: {len(stages)} stages.")
        return
    print(f"{len(stale)} of {len(stages)} stages are stale:")
    for stage in stages:
        if stage.name in stale:
            reasons = stale[stage.name]
            more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            print(f"  {stage.name}: {', '.join(reasons[:3])}{more}")


def show_table(rows: list[dict[str, str]]) -> None:
    """Rows of text under their keys; a column that is empty everywhere is left out."""
    columns = [key for key in (rows[0] if rows else ()) if any(row[key] for row in rows)]
    widths = [max(len(key), *(len(row[key]) for row in rows)) for key in columns]
    for cells in [columns, *([row[key] for key in columns] for row in rows)] if rows else ():
        print("  ".join(text.ljust(width) for text, width in zip(cells, widths)).rstrip())


def show_results(root: Path, params: Params, ended: dict[str, str]) -> None:
    """The table at the end of a run: documents, tokens, loss, accuracy, scores, champions; then the report's path."""
    from rich.console import Console
    from rich.table import Table

    from tasks.registry import overview

    console = Console(highlight=False)
    stages = [how for name, how in ended.items() if name not in ("register", "promote", "report")]
    if stages and all(how == "up to date" for how in stages):
        console.print("Everything is up to date.", style="bold green")
    summary = root / "metrics" / "summary.json"
    if not summary.is_file():
        return
    numbers = read_json(summary)
    champions = {row["name"]: row for row in overview(params, root) if "champion" in row["alias"]}
    table = Table(box=None, pad_edge=False, header_style="dim")
    for header in ("", "value", "champion"):
        table.add_column(header, justify="right" if header == "value" else "left", no_wrap=True)

    def add(label: str, key: str, form: str, name: str = "") -> None:
        champion = f"{name} version {champions[name]['version']}" if name in champions else ""
        if numbers.get(key) is not None or champion:
            value = numbers.get(key)
            table.add_row(label, "" if value is None else format(value, form), champion)

    add("documents seen", "documents_seen", ",")
    add("documents kept", "documents_kept", ",")
    add("tokens", "tokens", ",")
    add("unigram entropy", "unigram_entropy", ".3f")
    names = model_names(params)
    add("held-out masked loss", "loss", ".3f", names.pop(""))
    add("masked-token accuracy", "accuracy", ".1%")
    kind = "sample task" if params.glue.data == "sample" else "GLUE dev"
    for task, name in names.items():
        add(f"{task} ({'own task' if task in params.finetune.tasks else kind})", f"scores.{task}", ".3f", name)
    add("mean score without WNLI", "mean_score", ".3f")
    add("the leaderboard's mean without WNLI", "leaderboard_mean", ".3f")
    console.print(table)
    report = root / "reports" / "index.html"
    if report.is_file():
        console.print(f"report: {report}", soft_wrap=True)
