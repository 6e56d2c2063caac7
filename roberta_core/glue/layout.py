"""Reads and writes tasks in the official GLUE folder layout: tab-separated, one row a line, no quoting.

Fields hold raw quote characters, so nothing is ever unquoted; lines end at a line feed alone, since texts may hold any
other character that Unicode calls a line end. Columns are found by their names, so an extra one does no harm; CoLA's
train and dev have no header and are read by position. Labels of test files are hidden: a column of labels there is
ignored. The official files hold a handful of rows with missing fields (QQP): such rows are counted and left out, but
only in train and dev, and only up to `MAX_BROKEN_SHARE`; beyond it the file is refused.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roberta_core.atomic import atomic_file
from roberta_core.errors import BadInput
from roberta_core.glue.tasks import SCORE_MAX, Task

MAX_BROKEN_SHARE = 0.001
"""QQP's official train file has some 3 broken rows in 364 thousand; more than one in a thousand is a damaged file."""


@dataclass
class Split:
    """The rows of one file.

    Attributes:
        texts: one tuple a row: a text, or a pair of texts.
        labels: ids (classification) or scores from 0 to 5 (regression), one a row; empty for test files.
        index: number of each row in its file, counted from 0 without the header.
        broken: rows left out because their fields were not all there.
    """

    texts: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[int] | list[float] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    broken: int = 0

    def __len__(self) -> int:
        return len(self.texts)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Line numbers (from 1) and lines, without byte order mark and line end."""
    try:
        with open(file, "rb") as handle:
            for number, raw in enumerate(handle, 1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf8")
                except UnicodeDecodeError as error:
                    raise BadInput(
                        f"{file}, line {number}: the bytes at position {error.start} are not UTF-8.",
                        "Save the file as UTF-8.",
                    ) from None
                yield number, line.removesuffix("\n").removesuffix("\r")
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            f"{file} is missing.", "Give a folder in GLUE's official layout, or take the task out of glue.tasks."
        ) from None


def _label(text: str, task: Task, where: str) -> int | float:
    if task.values:
        if text not in task.values:
            raise BadInput(f"{where}: unknown label {text!r}.", f"{task.name} takes {', '.join(task.values)}.")
        return task.values.index(text)
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= SCORE_MAX:
        raise BadInput(f"{where}: {text!r} is no score.", f"{task.name} takes numbers from 0 to {SCORE_MAX:g}.")
    return score


def read_file(file: Path, task: Task, split: str) -> Split:
    """Reads one file of `task` as its `split` (train, dev or test).

    Raises:
        BadInput: one line that names the file, the line and the column: no such file, bytes that are not UTF-8, a
            missing column, an unknown label, rows with missing fields, no rows, or (train) a label without a row.
    """
    rows, result = _lines(file), Split()
    columns: Sequence[str] = task.columns[split]
    if split not in task.headerless:
        _, header = next(rows, (1, ""))
        columns = header.split("\t")
        needed = (*task.texts, task.label) if split != "test" else task.texts
        for name in needed:
            if name not in columns:
                found = ", ".join(columns) if header else "nothing"
                raise BadInput(
                    f"{file}, line 1: the column {name} is missing (found: {found}).",
                    f"{task.name} needs the columns {', '.join(needed)}, separated by tabs.",
                )
    where_texts = [columns.index(name) for name in task.texts]
    where_label = columns.index(task.label) if split != "test" else None
    broken: list[tuple[int, str]] = []
    number = first = 1 if split in task.headerless else 2
    for number, line in rows:
        fields = line.split("\t")
        if len(fields) != len(columns):
            broken.append((number, line))
            continue
        result.texts.append(tuple(fields[at] for at in where_texts))
        result.index.append(number - first)
        if where_label is not None:
            result.labels.append(_label(fields[where_label], task, f"{file}, line {number}, column {task.label}"))
    while broken and broken[-1] == (number, ""):  # blank lines at the end are nobody's rows
        broken.pop()
        number -= 1
    if not result.texts and not broken:
        raise BadInput(f"{file} has no rows.", "Give the whole file.")
    result.broken = len(broken)
    if broken:
        line, text = broken[0]
        found = len(text.split("\t")) if text else 0
        told = f"{file}, line {line}: {found} fields instead of {len(columns)}"
        told += f" ({len(broken)} such rows)" if len(broken) > 1 else ""
        if split == "test" or len(broken) > MAX_BROKEN_SHARE * (len(broken) + len(result)):
            mend = "Mend the row: fields are separated by one tab, and a text holds no tab or line break."
            raise BadInput(f"{told}.", mend)
        print(f"{told}: left out", file=sys.stderr, flush=True)
    if split == "train" and task.values:
        absent = sorted(set(range(len(task.values))) - set(result.labels))
        if absent:
            raise BadInput(
                f"{file}, column {task.label}: the label {task.values[absent[0]]} never occurs.",
                "A classifier needs rows of every label in train; give the whole file.",
            )
    return result


def read_split(folder: Path, task: Task, split: str) -> dict[str, Split]:
    """Reads all files of one split of the task that lies in `folder`: by file name, the one that counts first.

    Raises:
        BadInput: as in `read_file`; a test split that is wholly absent is no error and gives nothing.
    """
    names = task.files(split)
    if split == "test" and not any((folder / name).exists() for name in names):
        return {}
    return {name: read_file(folder / name, task, split) for name in names}


def one_line(text: str) -> str:
    """A text as a field: runs of tabs, line breaks and spaces become one space."""
    return " ".join(text.split())


def write_file(file: Path, task: Task, split: str, rows: Split, genre: str) -> None:
    """Writes `rows` as one file of `task`, with all official columns.

    Row numbers and identifiers count from 0; `genre` fills the columns that say where a row comes from, and the rest
    (parses, the single annotators' labels) stays empty or repeats the label. Texts are brought to one line.
    """
    columns = task.columns[split]
    with atomic_file(file) as handle:
        if split not in task.headerless:
            handle.write("\t".join(columns) + "\n")
        for number, texts in enumerate(rows.texts):
            label = ""
            if split != "test":
                label = task.values[int(rows.labels[number])] if task.values else f"{rows.labels[number]:.3f}"
            known = dict(zip(task.texts, map(one_line, texts)))
            for name in columns:
                if name in known:
                    continue
                if name == task.label or name.startswith("label") or name == "is_duplicate":
                    known[name] = label
                elif name in ("genre", "filename", "source", "source1", "source2"):
                    known[name] = genre
                elif name in ("index", "id", "old_index", "promptID", "pairID"):
                    known[name] = str(number)
                elif name in ("#1 ID", "qid1"):
                    known[name] = str(2 * number)
                elif name in ("#2 ID", "qid2"):
                    known[name] = str(2 * number + 1)
                else:
                    known[name] = ""
            handle.write("\t".join(known[name] for name in columns) + "\n")
