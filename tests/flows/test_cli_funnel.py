"""`roberta funnel` as a user meets it: in a folder where data stages have run, and in one where none has."""

import os
import subprocess
import sys
from pathlib import Path

from tests.tasks.stage_processes import ROOT, finish, start, write_project


def funnel(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "funnel", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_what_happened_to_every_document(tmp_path):
    write_project(tmp_path, 20, clean={"min_chars": 200})
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")  # a project's folder is known by it
    (tmp_path / "in" / "short.txt").write_text("An example that is too short.")
    before = funnel(tmp_path)
    assert before.returncode == 1 and "No data stage has run here yet" in before.stderr
    assert len(before.stderr.strip().splitlines()) == 1
    for stage in ("download texts", "clean texts"):
        assert finish(start(tmp_path, stage))[0] == 0
    told = funnel(tmp_path)
    assert told.returncode == 0, told.stderr
    assert "download texts: 21 of 21 documents kept (100.0%)" in told.stdout
    assert "clean texts: 20 of 21 documents kept (95.2%)" in told.stdout
    assert "too_short" in told.stdout and "An example that is too short." in told.stdout
    assert "An example" not in funnel(tmp_path, "--no-examples").stdout
