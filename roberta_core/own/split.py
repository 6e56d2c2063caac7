"""A share of the rows held out where no file is given for them: the same rows each time, on any machine.

Rows with equal keys stay together, so no text stands on both sides, and no article of a set of questions. A row's side
is decided by a hash of its key alone: rows added later move none of those that were there. Few groups (articles) would make
shares far from what was asked; there the groups with the lowest hashes are taken until the share is reached.
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path

from roberta_core.errors import BadInput

FEW = 1000
"""Below so many groups the share is reached by counting rows: of 100, a tenth by hash alone may be 4 or 16."""


def _place(key: str, salt: str) -> float:
    """A number from 0 to 1 that the key alone decides."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{key}".encode()).digest()[:8]) / 2**64


def hold_out(keys: Sequence[str], share: float, salt: str, file: Path) -> list[bool]:
    """Which rows are held out.

    Args:
        keys: of each row what it is told apart by.
        share: of the rows, above 0 and below 1.
        salt: another one gives another choice: `dev` and `test` are drawn apart.
        file: named in the error.

    Raises:
        BadInput: all rows have one key, so there is nothing to divide.
    """
    groups = Counter(keys)
    if len(groups) < 2:
        raise BadInput(
            f"{file} cannot be divided: all its rows are of one text or article.", "Name files for train and dev."
        )
    if len(groups) >= FEW:
        lowest = min(groups, key=lambda each: _place(each, salt))  # a tiny share is one row at least
        return [_place(key, salt) < share or key == lowest for key in keys]
    taken: set[str] = set()
    rows = 0
    for key in sorted(groups, key=lambda each: (_place(each, salt), each))[:-1]:
        # the group that comes nearest to the share is the last one; one at least
        if taken and rows + groups[key] / 2 > share * len(keys):
            break
        taken.add(key)
        rows += groups[key]
    return [key in taken for key in keys]


def shared(train: Sequence[str], other: Sequence[str]) -> int:
    """How many rows of `other` stand in `train` too."""
    known = set(train)
    return sum(key in known for key in other)


def contradictory(rows: Sequence[tuple[Hashable, Hashable]]) -> tuple[int, Hashable]:
    """How many rows have the text of another row and not its label; and the first such text, None without one.

    Args:
        rows: of each its text and its label.
    """
    labels: dict[Hashable, set[Hashable]] = {}
    for text, label in rows:
        labels.setdefault(text, set()).add(label)
    found = [text for text, _ in rows if len(labels[text]) > 1]
    return len(found), found[0] if found else None
