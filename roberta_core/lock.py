"""Locks that die with their holder: `flock` on a small file. A killed process leaves nothing to clean up by hand.

A forked worker lets go of what its parent holds, so that the lock ends with the parent and not with the last worker.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roberta_core.errors import TryAgain

_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def held_lock(file: Path, what: str) -> Iterator[int]:
    """Holds `file` exclusively for the block; gives its descriptor, which a child may share.

    `what` begins the error's sentence: "Another run is going on".

    Raises:
        TryAgain: another process holds it (exit code 75).
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip()
            raise TryAgain(f"{what} (process {holder or 'unknown'}).", "Wait until it is done, or stop it.") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        _held.add(handle)
        yield handle
    finally:
        _held.discard(handle)
        os.close(handle)
