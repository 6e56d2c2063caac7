"""Two states of the data side by side: `roberta data diff A B`, from what git keeps of each state.

Read are params.yaml, dvc.lock and metrics/*.json of two commits, a few kilobytes in all: so it works for states whose
data is in no cache any more, and on a machine that never had it. Price: metrics/ must be committed with dvc.lock.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from roberta_core.errors import BadInput

HERE = "."
"""Instead of a commit: the folder as it is now."""
TOTALS = (
    ("documents found", "download-*", "seen"),
    ("documents read", "download-*", "kept"),
    ("documents clean", "clean-*", "kept"),
    ("documents unique", "dedup", "kept"),
    ("documents kept", "shard", "kept"),
    ("characters kept", "shard", "chars"),
    ("tokens", "pack", "train_tokens + validation_tokens"),
)
"""Rows of the table: name, the metrics file (or files) it is read from, and the key in it."""
DROPPED = "dropped_"


@dataclass(frozen=True)
class State:
    """The data at one commit: its sources, the md5 of what each one gave, and the metrics by stage (`clean-notes`)."""

    name: str
    sources: list[str]
    md5s: dict[str, str]
    metrics: dict[str, dict]

    def number(self, stage: str, key: str) -> int | None:
        """A number of a stage, or of all its sources together; None where the stage has not run."""
        stages = [f"{stage[:-1]}{source}" for source in self.sources] if stage.endswith("*") else [stage]
        if not stages or any(each not in self.metrics for each in stages):
            return None
        return sum(self.metrics[each].get(part, 0) for each in stages for part in key.split(" + "))


def read_state(root: Path, commit: str) -> State:
    """The data at a commit (a hash, a branch, a tag, `HEAD~1`), or here and now for `.`.

    Raises:
        BadInput: git does not know the commit, or it holds no metrics.
    """
    root = Path(root).resolve()
    if commit == HERE:
        files = {
            path.relative_to(root).as_posix(): path.read_text(encoding="utf8")
            for path in [root / "params.yaml", root / "dvc.lock", *sorted((root / "metrics").glob("*.json"))]
            if path.is_file()
        }
    else:
        files = dict(_files_at(root, commit))
    metrics = {Path(path).stem: json.loads(text) for path, text in files.items() if path.startswith("metrics/")}
    if not metrics or "params.yaml" not in files:
        raise BadInput(
            f"{commit} holds no metrics of the data.",
            "Commit them with every run: git add params.yaml dvc.lock metrics; `.` is the folder as it is now.",
        )
    sources = list(yaml.safe_load(files["params.yaml"])["corpus"]["sources"])
    lock = (yaml.safe_load(files.get("dvc.lock", "")) or {}).get("stages") or {}
    md5s = {name: out["md5"] for name in sources for out in lock.get(f"download@{name}", {}).get("outs", ())[:1]}
    return State(commit, sources, md5s, metrics)


def _files_at(root: Path, commit: str) -> Iterator[tuple[str, str]]:
    """params.yaml, dvc.lock and metrics of a commit, by their path in the project."""
    wanted = ["params.yaml", "dvc.lock", "metrics/"]
    listed = _git(root, "ls-tree", "-r", "--name-only", f"{commit}^{{commit}}", *wanted)
    if listed is None:
        raise BadInput(f"git knows no commit {commit} here.", "Name one of `git log`, or . for the folder as it is.")
    for path in listed.splitlines():
        if not path.startswith("metrics/") or path.endswith(".json"):
            yield path, _git(root, "show", f"{commit}:./{path}") or ""


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _row(name: str, old: int | None, new: int | None) -> dict[str, str]:
    row = {"": name, "before": "" if old is None else f"{old:,}", "after": "" if new is None else f"{new:,}"}
    change = "" if old is None or new is None or old == new else f"{new - old:+,}"
    return row | {"change": change + (f" ({(new - old) / old:+.1%})" if change and old else "")}


def totals(old: State, new: State) -> list[dict[str, str]]:
    """Documents after each step, characters and tokens."""
    return [_row(name, old.number(stage, key), new.number(stage, key)) for name, stage, key in TOTALS]


def by_source(old: State, new: State) -> list[dict[str, str]]:
    """What each source gave: documents read, clean and unique, before and after, and whether its bytes changed."""
    rows = []
    for source in dict.fromkeys([*old.sources, *new.sources]):
        row = {"source": source}
        for name, stage, key in (
            ("read", f"download-{source}", "kept"),
            ("clean", f"clean-{source}", "kept"),
            ("unique", "dedup", f"kept_{source}"),
        ):
            values = [state.number(stage, key) if source in state.sources else None for state in (old, new)]
            then, now = ("-" if value is None else f"{value:,}" for value in values)
            row[name] = now if then == now else f"{then} -> {now}"
        before, after = old.md5s.get(source), new.md5s.get(source)
        row["data"] = (
            "new" if source not in old.sources
            else "gone" if source not in new.sources
            else "the same bytes" if before == after and before
            else f"{(before or '?')[:8]} -> {(after or '?')[:8]}"
        )  # fmt: skip
        rows.append(row)
    return rows


def funnel(old: State, new: State) -> list[dict[str, str]]:
    """Reasons for which documents were dropped, where the count changed."""
    rows = []
    for stage in dict.fromkeys([*old.metrics, *new.metrics]):
        if not stage.startswith(("download-", "clean-", "dedup", "shard")):
            continue
        sides = [state.metrics.get(stage, {}) for state in (old, new)]
        for key in dict.fromkeys([*sides[0], *sides[1]]):
            values = [side.get(key, 0) for side in sides]
            if key.startswith(DROPPED) and values[0] != values[1]:
                rows.append(_row(f"{stage}: dropped, {key.removeprefix(DROPPED)}", *values))
    return rows
