"""Outputs that are whole or absent.

Everything a stage writes goes to a name that ends in `.tmp` beside its final place, is flushed to the disk, and is
then renamed. A killed stage leaves at most a `.tmp`, which git, DVC and every reader here ignore, and which the next
run removes. Files under DVC may be hard links into its cache, so an output is always replaced, never changed in place.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Waits until what was written to a file, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_dir(final: Path) -> Iterator[Path]:
    """Gives an empty temporary directory that becomes `final` when the block ends without an error."""
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.tmp")
    old = final.with_name(f".{final.name}.old.tmp")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                sync(path)
        if final.exists():
            os.replace(final, old)
        os.replace(temporary, final)
        sync(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def atomic_file(final: Path, mode: str = "w") -> Iterator:
    """Gives an open temporary file (`mode` "w" for UTF-8 text, "wb" for bytes) that becomes `final` when the block ends well."""
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.tmp")
    try:
        with open(
            temporary, mode, encoding=None if "b" in mode else "utf8", newline=None if "b" in mode else "\n"
        ) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, final)
        sync(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(final: Path, value: object) -> None:
    """Writes `value` as indented JSON with keys in the order given: the same value gives the same bytes."""
    with atomic_file(final) as handle:
        json.dump(value, handle, indent=2, ensure_ascii=False, allow_nan=False)
        handle.write("\n")


def read_json(path: Path) -> dict:
    """Reads a JSON file that one of this project's stages wrote."""
    return json.loads(Path(path).read_text(encoding="utf8"))


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file, or of a folder: then of its relative file names and their digests, in name order."""
    path = Path(path)
    if path.is_file():
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, algorithm).hexdigest()
    total = hashlib.new(algorithm)
    for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.endswith(".tmp")):
        total.update(f"{file.relative_to(path).as_posix()} {digest_of(file, algorithm)}\n".encode())
    return total.hexdigest()
