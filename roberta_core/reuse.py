"""Files that an earlier run made from the same input in the same way are linked, not made again.

A stage that makes one file of one (packing: a document shard, a packed shard) is rerun as a whole when one of its
inputs changes; DVC has removed its outputs by then. Here each file made is kept a second time, as a hard link under a
key: the SHA-256 of the input, of the parameters and of the code (`code_digest`). An accelerator and no more: the key
says all that the bytes depend on, what is taken is checked against its own SHA-256, and without the folder everything is
made anew, with the same bytes. Price: one reading of each input (1 GB/s), and no disk but for the last run's files while
they are replaced. On a file system without hard links nothing is kept.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from roberta_core.atomic import digest_of
from roberta_core.code_digest import code_digest
from roberta_core.executor import map_shards

Job = tuple[Path, Path]
"""The file to read, and the file to write."""


def _code_of(function: Callable) -> str:
    """A digest of this package and of the file that the function stands in."""
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    return code_digest() + digest_of(Path(inner.__code__.co_filename))


def _link(source: Path, target: Path) -> bool:
    """Makes `target` a hard link to `source`, in one step. False where that cannot be."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        os.replace(temporary, target)
    except OSError:
        return False
    return True


def _take(folder: Path, key: str, file: Path) -> Any:
    """What was returned when the kept file of this key was made, with the file in its place; None where there is none."""
    try:
        told = json.loads((folder / f"{key}.json").read_text(encoding="utf8"))
        if digest_of(folder / key) != told["sha256"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return told["result"] if _link(folder / key, file) else None


def _keep(folder: Path, key: str, file: Path, result: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not _link(file, folder / key):
        return
    told = folder / f".{key}.json.{os.getpid()}.tmp"
    told.write_text(json.dumps({"sha256": digest_of(file), "result": result}), encoding="utf8")
    os.replace(told, folder / f"{key}.json")


def _made_or_kept(job: Job, function: Callable[[Job], Any], recipe: str, folder: Path) -> tuple[Any, str, bool]:
    """The function's result, the key, and whether the file was there already."""
    source, file = job
    key = hashlib.sha256(f"{recipe}\n{digest_of(source)}".encode()).hexdigest()
    result = _take(folder, key, file)
    if result is not None:
        return result, key, True
    result = function(job)
    _keep(folder, key, file, result)
    return result, key, False


class Reuse:
    """Applies a function to jobs, as `map_shards`, and takes from `folder` what an earlier run made.

    Args:
        folder: where the files are kept; on the file system of the outputs.

    Attributes:
        taken: how many files were not made again.
    """

    def __init__(self, folder: Path):
        self.folder, self.taken = folder, 0
        self._used: set[str] = set()

    def map(
        self, function: Callable[[Job], Any], jobs: Sequence[Job], workers: int, recipe: dict[str, Any]
    ) -> Iterator[Any]:
        """Yields the results in the order of the jobs.

        Args:
            function: reads job[0], writes job[1], and returns something that JSON holds and that is not None (a tuple
                comes back as a list). Its file depends on job[0]'s bytes, on `recipe` and on the code, and on nothing else.
            recipe: the parameters that the file depends on, and digests of other files that do.
        """
        told = json.dumps([_code_of(function), recipe], sort_keys=True)
        work = partial(_made_or_kept, function=function, recipe=told, folder=self.folder)
        for result, key, taken in map_shards(work, jobs, workers):
            self._used.add(key)
            self.taken += taken
            yield result

    def forget_others(self) -> None:
        """Removes what this run did not use: call it when the whole run is done."""
        if not self.folder.is_dir():
            return
        for file in self.folder.iterdir():
            if file.name.removesuffix(".json") not in self._used:
                file.unlink(missing_ok=True)
