"""What wrote a file, beside its inputs and parameters: this package's code, and the packages whose versions show in bytes.

Two processes with the same digest write the same bytes from the same inputs. It is the code as the process first saw it
that counts: a worker that runs on after an edit has the digest of what it loaded.
"""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

WRITERS = ("numpy", "pyarrow", "tokenizers", "ftfy", "py3langid", "trafilatura", "jieba")
"""Packages whose version may show in the bytes of a data stage's output."""


@cache
def code_digest() -> str:
    """SHA-256, in hex, over every file of code in this package and the versions of `WRITERS`."""
    total = hashlib.sha256()
    root = Path(__file__).parent
    for file in sorted(root.rglob("*.py")):
        total.update(f"{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    for name in WRITERS:
        try:
            total.update(f"{name} {version(name)}\n".encode())
        except PackageNotFoundError:
            total.update(f"{name} is absent\n".encode())
    return total.hexdigest()
