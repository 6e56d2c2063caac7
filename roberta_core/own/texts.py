"""Rows of one text or a pair, with a class, several labels, or a number.

The same reader serves train, dev and test. A file whose labels are all absent is a test set with hidden labels, which
is predicted and not scored; one label absent among others is a fault of that row.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from roberta_core.data.funnel import Funnel
from roberta_core.errors import BadInput
from roberta_core.own.reading import read_table, refuse_if_bad, text_fault, unwritable

Kind = Literal["classification", "multi-label", "regression"]
Label = str | tuple[str, ...] | float
TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no", "")
"""How a column of zeros and ones may be written, in lower case."""
_UNWRITABLE = "the label cannot be written as UTF-8"
MAX_NUMBER = 1e30
"""Size of a regression's label: its square is a float64, and the model's own answer, in float32, is no infinity."""
_NUMBER = re.compile(r"-?\d{1,18}")


@dataclass
class TextRows:
    """The rows of a file.

    Attributes:
        texts: a text, or a pair, a row.
        labels: one a row: a class's name, a sorted tuple of names, or a number; empty where the file hides them.
        lines: of each row its line in the file.
        notes: what was left out, one line a reason.
    """

    texts: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, chosen: Sequence[int]) -> "TextRows":
        """The chosen rows; notes stay with the file."""
        labels = [self.labels[row] for row in chosen] if self.labels else []
        return TextRows([self.texts[row] for row in chosen], labels, [self.lines[row] for row in chosen])

    def keys(self) -> list[str]:
        """Of each row the text that decides on which side of a split it goes: equal rows go together."""
        return ["\t".join(each) for each in self.texts]

    def texts_of_rows(self) -> list[str]:
        """The same: a row is its text."""
        return self.keys()

    def labelled_rows(self) -> list[tuple[str, Label]]:
        """Of each row its text and its label."""
        return list(zip(self.keys(), self.labels))


@dataclass(frozen=True)
class Columns:
    """Where a task's values stand.

    Attributes:
        text: the column of the text, or the two of a pair.
        label: the column of the label; of several labels one column with a list, or one column of 0 and 1 a label.
        separator: between the labels of a list that is written as text.
    """

    text: tuple[str, ...]
    label: tuple[str, ...]
    separator: str = ","


def _name(value: object) -> str:
    """A label as text: 1, 1.0 and "1" are one label, and so are true and "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _absent(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def _several(row: dict, columns: Columns) -> tuple[str, ...] | str:
    """The labels of a row, or why there are none."""
    if len(columns.label) > 1:
        found = []
        for name in columns.label:
            value = _name(row.get(name, "")).lower()
            if value not in TRUE + FALSE:
                return f"{name} is {value!r:.40}, neither 0 nor 1"
            found += [name] if value in TRUE else []
        return tuple(sorted(found))
    value = row.get(columns.label[0])
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") and _is_list(value) else value.split(columns.separator)
    if not isinstance(value, list):
        return f"{columns.label[0]} is {value!r:.40}, no list of labels"
    if any(each is None or isinstance(each, list | dict) for each in value):
        return f"{columns.label[0]} is {value!r:.40}, no list of names"
    return tuple(sorted({_name(each) for each in value} - {""}))


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _label(row: dict, kind: Kind, columns: Columns) -> tuple[Label | None, str]:
    """The label, or None and why there is none."""
    if kind == "multi-label":
        found = _several(row, columns)
        if isinstance(found, str):
            return None, found
        return (None, _UNWRITABLE) if any(map(unwritable, found)) else (found, "")
    value = row.get(columns.label[0])
    if kind == "classification":
        if isinstance(value, list | dict):
            return None, f"{columns.label[0]} is a {type(value).__name__}, no class"
        return (None, _UNWRITABLE) if unwritable(_name(value)) else (_name(value), "")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    # of nan, too, this is not true
    fits = abs(number) <= MAX_NUMBER
    return (
        (number, "") if fits else (None, f"{columns.label[0]} is {value!r:.40}, no finite number up to {MAX_NUMBER:g}")
    )


def read_texts(file: Path, kind: Kind, columns: Columns, may_hide: bool = False) -> TextRows:
    """Reads a table of a task on texts.

    Args:
        may_hide: a test set, whose label column may be absent or empty.

    Raises:
        BadInput: the file cannot be read, a column is missing, or too many of its rows cannot be used.
    """
    funnel = Funnel()
    try:
        rows = read_table(file, (*columns.text, *columns.label), funnel)
        hidden = may_hide and all(_absent(row.get(name)) for _, row in rows for name in columns.label)
    except BadInput:
        if not may_hide:
            raise
        funnel, hidden = Funnel(), True
        rows = read_table(file, columns.text, funnel, "text")
    result = TextRows()
    for line, row in rows:
        where = f"{file}, line {line}"
        faults = [(name, text_fault(row.get(name))) for name in columns.text]
        name, fault = next(((name, fault) for name, fault in faults if fault), ("", ""))
        if fault:
            funnel.drop(fault, f"{where}, column {name}")
            continue
        if not hidden:
            label, why = _label(row, kind, columns)
            if kind != "multi-label" and _absent(row.get(columns.label[0])):
                funnel.drop("no_label", f"{where}, column {columns.label[0]}")
                continue
            if label is None:
                funnel.drop("bad_label", f"{where}: {why}")
                continue
            result.labels.append(label)
        result.texts.append(tuple(row[name] for name in columns.text))
        result.lines.append(line)
    result.notes = refuse_if_bad(file, funnel, len(result))
    if hidden:
        result.notes.append(f"{file} hides its labels: predicted, and not scored")
    return result


def label_names(train: TextRows, kind: Kind, file: Path) -> list[str]:
    """The labels that occur in training, in order: as numbers where all are numbers, else by the alphabet.

    Raises:
        BadInput: there is one class only, or no label at all, or a number that never changes.
    """
    if kind == "regression":
        if len(set(train.labels)) < 2:
            raise BadInput(f"{file}: every row has the label {train.labels[0]}.", "There is nothing to learn from it.")
        return []
    seen = Counter(name for each in train.labels for name in (each if isinstance(each, tuple) else (each,)))
    if len(seen) < (2 if kind == "classification" else 1):
        told = f"every row has the label {next(iter(seen))!r}" if seen else "no row has a label"
        raise BadInput(f"{file}: {told}.", "There is nothing to tell apart; give rows of two labels at least.")
    if kind == "classification" and len(seen) > max(2, len(train) // 2):
        raise BadInput(
            f"{file}: {len(seen):,} different labels in {len(train):,} rows.",
            "That is no class; is it the wrong column, or kind: regression?",
        )
    if all(_NUMBER.fullmatch(name) for name in seen):
        return sorted(seen, key=int)
    return sorted(seen)


def unseen_labels(rows: TextRows, names: Sequence[str], file: Path) -> list[str]:
    """One line for each label that training does not know; a model cannot give it, so its rows count as wrong.

    Raises:
        BadInput: no row has a label that training knows.
    """
    known, found, knowing = set(names), {}, 0
    for line, each in zip(rows.lines, rows.labels):
        own = each if isinstance(each, tuple) else (each,)
        knowing += not own or any(name in known for name in own)
        for name in own:
            if name not in known:
                found.setdefault(name, []).append(line)
    if found and not knowing:
        name, at = next(iter(found.items()))
        raise BadInput(
            f"{file}, line {at[0]}: the label {name!r}, like all others there, never occurs in training.",
            f"Training knows: {', '.join(names[:20])}.",
        )
    return [
        f"the label {name!r} never occurs in training: {len(at):,} {'row counts' if len(at) == 1 else 'rows count'} "
        f"as wrong ({file}, line {at[0]})"
        for name, at in sorted(found.items())
    ]
