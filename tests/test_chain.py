"""The real chain at its smallest, through two doors: the same lock byte for byte, and only what is stale runs again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def clone(folder: Path) -> Path:
    """The tracked files as they are now, in a git repository of their own, with the smallest preset."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "presets/smoke.yaml", folder / "params.yaml")
    for command in (["init"], ["add", "-A"], ["commit", "-m", "start"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True)
    return folder


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def roberta(folder: Path, *arguments: str) -> str:
    return run(folder, sys.executable, "-m", "flows.cli", *arguments)


def stale(folder: Path) -> set[str]:
    return set(json.loads(run(folder, "dvc", "status", "--json")))


@pytest.fixture(scope="module")
def through_the_flow(tmp_path_factory):
    folder = clone(tmp_path_factory.mktemp("flow"))
    return folder, roberta(folder, "run")


def test_both_doors_write_the_same_lock(through_the_flow, tmp_path_factory):
    folder, _ = through_the_flow
    other = clone(tmp_path_factory.mktemp("repro"))
    run(other, "dvc", "repro")
    assert (other / "dvc.lock").read_bytes() == (folder / "dvc.lock").read_bytes()


def test_what_a_run_leaves(through_the_flow):
    folder, told = through_the_flow
    for name in ("models/encoder", "models/glue/CoLA", "models/glue/STS-B"):
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
            path.name for path in (folder / name).iterdir()
        }
    summary = json.loads((folder / "metrics/summary.json").read_text())
    assert summary["documents_kept"] > 500 and summary["loss"] > 0 and "scores.CoLA" in summary
    assert "sample tasks" in (folder / "reports/index.html").read_text(encoding="utf8")
    assert "roberta-encoder" in told and "reports/index.html" in told
    assert roberta(folder, "predict", "models:/roberta-cola@champion", "This is a list.").startswith("{")
    assert "%" in roberta(folder, "fill", "roberta-encoder", "Return the <mask> of the list.")
    assert not list(folder.rglob("*.tmp"))


def test_nothing_changed_nothing_runs(through_the_flow):
    folder, _ = through_the_flow
    lock = (folder / "dvc.lock").read_bytes()
    assert "up to date" in roberta(folder, "run") and (folder / "dvc.lock").read_bytes() == lock


def test_a_changed_parameter_reruns_what_depends_on_it(through_the_flow):
    folder, _ = through_the_flow
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("weight_decay: 0.1", "weight_decay: 0.05"))
    assert stale(folder) == {"glue@CoLA", "glue@STS-B"}
    encoder = (folder / "models/encoder/model.safetensors").stat().st_mtime_ns
    roberta(folder, "run")
    assert stale(folder) == set() and (folder / "models/encoder/model.safetensors").stat().st_mtime_ns == encoder
    assert "summary" in run(folder, "dvc", "metrics", "show") and "glue@CoLA" in run(folder, "dvc", "dag")
    run(folder, "dvc", "plots", "show")
