"""One line that says how far a long job is, how fast it goes, and how long it still takes.

On a terminal the line rewrites itself; through a pipe (Prefect, a log file) a new line comes every few seconds, so
that the flow can show the newest one.
"""

import sys
import time


def human_time(seconds: float) -> str:
    """`75` -> `1m15s`; two units at most."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def human_count(count: float) -> str:
    """`12345` -> `12.3k`."""
    for unit in ("", "k", "M", "G"):
        if abs(count) < 1000:
            return f"{count:.0f}" if unit == "" else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f}T"


class Progress:
    """Counts `total` units of work and prints one progress line at most every `every_s` seconds.

    `total` may be 0 when it is not known; then no percentage and no time left are shown.
    """

    def __init__(self, label: str, total: int, unit: str, every_s: float = 2.0, done: int = 0):
        self.label, self.total, self.unit, self.every_s = label, total, unit, every_s
        self.done = self._done_at_start = done
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def line(self, note: str = "") -> str:
        """The progress line for what is done now."""
        elapsed = time.monotonic() - self._start
        fresh = self.done - self._done_at_start
        rate = fresh / elapsed if elapsed > 0 else 0.0
        parts = [f"{self.label}: {human_count(self.done)}"]
        if self.total:
            parts = [
                f"{self.label}: {human_count(self.done)}/{human_count(self.total)} {self.unit}",
                f"{self.done / self.total:.0%}",
            ]
        else:
            parts[0] += f" {self.unit}"
        parts.append(
            f"{human_count(rate)} {self.unit}/s"
            if rate >= 1 or not rate
            else f"{1 / rate:.1f} s/{self.unit.rstrip('s')}"
        )
        if note:
            parts.append(note)
        if self.total and rate and self.done < self.total:
            parts.append(f"{human_time((self.total - self.done) / rate)} left")
        return " · ".join(parts)

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Adds `amount` units; prints when the last line is old enough."""
        self.done += amount
        now = time.monotonic()
        if now - self._shown >= self.every_s:
            self._shown = now
            print(
                f"\r\x1b[K{self.line(note)}" if self._terminal else self.line(note),
                end="" if self._terminal else "\n",
                flush=True,
            )

    def finish(self, note: str = "") -> float:
        """Prints the last line. Returns the seconds that the job took."""
        print(("\r\x1b[K" if self._terminal else "") + self.line(note), flush=True)
        return time.monotonic() - self._start
