"""A disk that fills in the middle of a stage: one line, nothing half-written, and the same bytes once there is room."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from roberta_core.atomic import digest_of
from tests.tasks.stage_processes import OUT, STAGES, finish, start, write_project


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or os.geteuid()
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64m", "none", folder]).returncode
    ):
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, left_bytes: int) -> Path:
    """A file that takes the room but for so many bytes."""
    filler = folder / "filler"
    room = shutil.disk_usage(folder).free - left_bytes
    with open(filler, "wb") as handle:
        handle.write(b"x" * room)
    return filler


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_says_so_and_leaves_nothing(small_disk):
    write_project(small_disk, 3000)
    for stage in STAGES:
        name = stage.split()[0]
        out, metrics = small_disk / OUT[name], small_disk / "metrics"
        told = sorted(metrics.iterdir()) if metrics.is_dir() else []
        # room for the temporary folders and some of the output
        filler = fill(small_disk, 20_000 if name in ("dedup", "tokenizer") else 300_000)
        code, said = finish(start(small_disk, stage))
        assert code == 1 and "The disk is full" in said and "Free some space" in said, (stage, said)
        assert len(said.splitlines()) == 1, said
        assert not out.exists() and not list(out.parent.glob(".*.tmp")), stage
        assert (sorted(metrics.iterdir()) if metrics.is_dir() else []) == told, stage
        filler.unlink()
        code, said = finish(start(small_disk, stage))
        assert code == 0, (stage, said)
    made = {out: digest_of(small_disk / out) for out in OUT.values()}
    shutil.rmtree(small_disk / "data")
    shutil.rmtree(small_disk / "models")
    shutil.rmtree(small_disk / ".work")
    for stage in STAGES:
        assert finish(start(small_disk, stage))[0] == 0
    assert {out: digest_of(small_disk / out) for out in OUT.values()} == made
