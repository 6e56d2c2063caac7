"""`dvc exp run` and its queue as the guide shows them: each experiment's MLflow run is tied to it; curves side by side."""

import json
import os

import pytest

from tasks.tracking import home_of, open_client, upload_spool
from tests.tasks.tiny_models import REPO

from .conftest import dvc
from .test_remotes import git

PIPELINE = """\
stages:
  pretrain:
    cmd: python train.py
    deps:
      - train.py
    params:
      - seed
      - pretrain.peak_lr
    outs:
      - model
    metrics:
      - metrics/pretrain.json:
          cache: false
    plots:
      - plots/validation.csv:
          cache: false
          x: step
          y: loss
"""
TRAIN = """\
from pathlib import Path
from roberta_core.atomic import write_json
from tasks.params_file import load_params
from tasks.tracking import open_run

params = load_params()
lr = params.pretrain.peak_lr or 0.0
with open_run("pretrain", params, {"peak_lr": lr}) as run:
    curve = [(step, 7.0 - lr * step) for step in (10, 20)]
    for step, loss in curve:
        run.log(step, {"loss": loss})
    write_json(Path("metrics/pretrain.json"), {"loss": curve[-1][1]})
    Path("plots").mkdir(exist_ok=True)
    Path("plots/validation.csv").write_text("step,loss\\n" + "".join(f"{step},{loss}\\n" for step, loss in curve))
    Path("model").write_text(f"{lr}")
    run.finish({"loss": curve[-1][1]})
"""


@pytest.fixture
def sweep(template, tmp_path, monkeypatch):
    import shutil

    root = tmp_path / "sweep"
    shutil.copytree(template, root)
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "train.py").write_text(TRAIN)
    params = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(params.replace("pretrain:\n", "pretrain:\n  peak_lr: 0.001\n"))
    shutil.copy(REPO / ".gitignore", root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")])))
    for key in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{key}_NAME", "test")
        monkeypatch.setenv(f"{key}_EMAIL", "test@example.org")
    dvc(root, "repro", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "baseline")
    return root


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_queue_of_experiments_with_their_runs_and_curves(sweep):
    for name, lr in (("low", 0.01), ("high", 0.1)):
        dvc(sweep, "exp", "run", "--queue", "-n", name, "-S", f"pretrain.peak_lr={lr}")
    dvc(sweep, "exp", "run", "--run-all", "-j", "1")
    shown = json.loads(dvc(sweep, "exp", "show", "--json").stdout)
    found = {
        exp["name"]: exp["revs"][0]["data"]["metrics"]["metrics/pretrain.json"]["data"]["loss"]
        for state in shown
        for exp in state["experiments"] or ()
    }
    assert found == {"low": pytest.approx(6.8), "high": pytest.approx(5.0)}
    client = open_client(sweep)
    upload_spool(client, sweep)  # on a busy machine the runs ended before MLflow had made its tables
    runs = client.search_runs([client.get_experiment_by_name("roberta").experiment_id])
    by_exp = {run.data.tags.get("dvc_exp", ""): run for run in runs}
    assert set(by_exp) == {"", "low", "high"}
    assert by_exp["high"].data.metrics["final.loss"] == pytest.approx(5.0)
    assert by_exp["high"].data.tags["dvc_exp_baseline"] == git(sweep, "rev-parse", "HEAD").strip()
    # the folder itself is as it was, and takes the better one
    assert (sweep / "model").read_text() == "0.001" and git(
        sweep, "status", "--porcelain", "--untracked-files=no"
    ) == ""
    compared = json.loads(dvc(sweep, "plots", "diff", "low", "high", "--json").stdout)["data"]
    (curves,) = (shown for name, (shown,) in compared.items() if "validation.csv" in name)
    assert sorted(curves["revisions"]) == ["high", "low"]
    assert str(curves["content"]).count("rev") >= 4  # two points of each on one page
    dvc(sweep, "exp", "apply", "high")
    assert (sweep / "model").read_text() == "0.1" and "peak_lr: 0.1" in (sweep / "params.yaml").read_text()


def test_the_store_of_an_experiment_s_copy_is_the_project_s(tmp_path):
    assert home_of(tmp_path) == tmp_path.resolve()
    assert home_of(tmp_path / ".dvc/tmp/exps/standalone/tmpabc") == tmp_path.resolve()
    assert home_of(tmp_path / ".dvc/tmp/other") == (tmp_path / ".dvc/tmp/other").resolve()
