"""Runs as MLflow has them, with the tracker up, down, and slow."""

import json
import os
import subprocess
import time

import pytest

from roberta_core.atomic import digest_of
from roberta_core.errors import Preempted
from tasks import tracking
from tasks.tracking import SPOOL, git_commit, open_client, open_run, recorded_md5, tracking_uri

from .tiny_models import REPO, load_params


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A fresh MLflow database, which takes seconds to make; each test gets a copy of it."""
    folder = tmp_path_factory.mktemp("store")
    open_client(folder).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def project(store, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(store.read_bytes())
    (tmp_path / "text.txt").write_text("some data")
    return tmp_path


@pytest.fixture
def params():
    return load_params(REPO / "params.yaml")


def runs(root):
    client = open_client(root)
    experiment = client.get_experiment_by_name("roberta")
    return client.search_runs([experiment.experiment_id]) if experiment else []


def test_a_run_has_params_points_data_and_tags(project, params, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    with open_run("pretrain", params, {"size": "tiny", "lr": 0.1}, {"packed": tmp_path / "text.txt"}) as run:
        for step in range(1500):
            run.log(step, {"loss": 1 / (step + 1)})
        run.finish({"loss": 2.5, "steps": 1500, "note": "no number"}, tmp_path / "model")
    (only,) = runs(project)
    assert only.info.status == "FINISHED" and only.info.run_name == "pretrain"
    assert only.data.params == {"size": "tiny", "lr": "0.1"}
    assert only.data.metrics == {"loss": 1 / 1500, "final.loss": 2.5, "final.steps": 1500}
    history = open_client(project).get_metric_history(only.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(s, 1 / (s + 1)) for s in range(1500)]
    assert only.data.tags["model_sha256"] == digest_of(tmp_path / "model" / "model.safetensors")
    (data,) = only.inputs.dataset_inputs
    assert data.dataset.name == "packed" and data.dataset.digest == digest_of(tmp_path / "text.txt", "md5")
    assert not (project / SPOOL).exists()


def test_an_error_and_a_stop_show_as_such(project, params):
    for error, status in ((RuntimeError("x"), "FAILED"), (Preempted("Stopped.", "Again."), "KILLED")):
        with pytest.raises(type(error)), open_run("pretrain", params, {}) as run:
            run.log(1, {"loss": 1.0})
            raise error
        assert runs(project)[0].info.status == status


def test_a_tracker_that_is_down_costs_a_warning_and_an_upload_later(project, params, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    begun = time.monotonic()
    with open_run("pretrain", params, {"size": "tiny"}) as run:
        for step in range(10):
            run.log(step, {"loss": float(step)})
        assert time.monotonic() - begun < 1, "logging waited for the tracker"
        run.finish({"loss": 1.0})
    assert time.monotonic() - begun < tracking.FINISH_WAIT_S + 5
    assert capsys.readouterr().err.count("tracking: MLflow at http://127.0.0.1:9") == 1
    (spooled,) = (project / SPOOL).glob("*.json")
    assert json.loads(spooled.read_text())["status"] == "FINISHED"

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with open_run("glue-CoLA", params, {}):
        pass
    found = {run.info.run_name: run for run in runs(project)}
    assert found.keys() == {"pretrain", "glue-CoLA"}
    assert found["pretrain"].data.metrics == {"loss": 9.0, "final.loss": 1.0}
    assert found["pretrain"].info.status == "FINISHED"
    assert not list((project / SPOOL).glob("*.json"))


def test_a_slow_tracker_is_not_waited_for(project, params, monkeypatch):
    monkeypatch.setattr(tracking, "FINISH_WAIT_S", 0.3)
    monkeypatch.setattr(tracking, "open_client", lambda root: time.sleep(30))
    begun = time.monotonic()
    with open_run("pretrain", params, {}) as run:
        run.log(1, {"loss": 1.0})
    assert time.monotonic() - begun < 5
    (spooled,) = (project / SPOOL).glob("*.json")
    assert [point[:2] for point in json.loads(spooled.read_text())["points"]] == [["loss", 1.0]]


def test_the_store_is_absolute_and_can_be_named(project, monkeypatch):
    assert tracking_uri(".") == f"sqlite:///{project}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    assert tracking_uri(".") == "http://somewhere"


def test_md5_is_the_one_in_the_lock(project):
    assert recorded_md5(project, "text.txt") == digest_of(project / "text.txt", "md5")
    (project / "dvc.lock").write_text(
        "stages:\n  a:\n    cmd: x\n    deps:\n    - path: text.txt\n      md5: from-deps\n"
        "  b:\n    cmd: x\n    outs:\n    - path: text.txt\n      md5: from-outs\n"
    )
    assert recorded_md5(project, "text.txt") == "from-outs"


def test_the_commit_says_when_the_tree_differs(tmp_path):
    assert git_commit(tmp_path / "..") == "" or len(git_commit(tmp_path / "..")) >= 40
    env = os.environ | {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_COMMITTER_NAME": "a"}
    env |= {"GIT_COMMITTER_EMAIL": "a@b.c"}
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "dvc.lock").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=env, check=True)
    clean = git_commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "dvc.lock").write_text("2")
    assert git_commit(tmp_path) == clean
    (tmp_path / "code.py").write_text("2")
    assert git_commit(tmp_path) == f"{clean}-dirty"
