"""What stages made for sources that params.yaml no longer has, out of the way of what comes after them.

`dedup` and `summary` depend on the folders data/raw and data/clean as a whole: a folder left there by a source that was
taken out would change their hashes, and with them dvc.lock, against a clone that never had the source. It is moved to
.work/removed, not deleted: a download may have been long. DVC's cache has it too.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from tasks.stage import WORK

REMOVED = WORK / "removed"


def set_aside(folders: Iterable[Path], sources: Iterable[str]) -> list[Path]:
    """Moves the folders inside `folders` that have none of these names to .work/removed. Returns them, as they were."""
    moved, known = [], set(sources)
    for folder in folders:
        for found in sorted(folder.iterdir()) if folder.is_dir() else ():
            # a hidden one is the temporary folder of a stage that runs, or .gitignore
            if found.is_dir() and not found.name.startswith(".") and found.name not in known:
                target = REMOVED / folder.name / found.name
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(found, target)
                print(f"{found} is of no source in params.yaml: moved to {target}", flush=True)
                moved.append(found)
    return moved
