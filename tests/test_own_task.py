"""A user's csv through the real `dvc repro`, MLflow and the command line, to a served model; only what is stale runs again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.core.glue.tiny_encoder import write_encoder
from tests.tasks.own_data import TEXT, sentences
from tests.test_chain import clone, roberta, run, stale

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A clone with an encoder that nobody has to train, and a csv with its entry in params.yaml."""
    folder = clone(tmp_path_factory.mktemp("own"))
    words = " ".join(text for text, *_ in sentences())
    write_encoder(folder / "given", (TEXT + words + " abcdefghijklmnopqrstuvwxyz the and that with from") * 2)
    (folder / "pets.csv").write_text("\n".join(["text,label", *(f"{text},{pet}" for text, pet, _, _ in sentences())]))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    task = {
        "kind": "classification",
        "path": "pets.csv",
        "epochs": 8,
        "batch_size": 8,
        "peak_lr": 3e-3,
        "dropout": 0.0,
    }
    params["finetune"] = {
        "encoder": "given",
        "tasks": {"pets": task, "other": task | {"path": "pets.csv", "epochs": 1}},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "dvc", "repro", "finetune")
    return folder


def test_the_stage_runs_through_dvc_and_only_what_is_stale_again(project):
    lock = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert {"finetune@pets", "finetune@other"} <= set(lock)
    assert not {name for name in stale(project) if name.startswith("finetune")}
    results = json.loads((project / "models/tasks/pets/results.json").read_text())
    assert results["score"] == json.loads((project / "metrics/finetune-pets.json").read_text())["score"] > 0.9
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("epochs: 1\n", "epochs: 2\n"))
    assert {name for name in stale(project) if name.startswith("finetune")} == {"finetune@other"}
    (project / "params.yaml").write_text(params)
    rows = (project / "pets.csv").read_text()
    (project / "pets.csv").write_text(rows + "\nThat cat hid .,cat")
    assert {name for name in stale(project) if name.startswith("finetune")} == {"finetune@pets", "finetune@other"}
    (project / "pets.csv").write_text(rows)


def test_from_the_command_line_to_a_served_model(project):
    texts = ["The cat sat on the mat .", "The dog sat on the mat ."]
    told = roberta(project, "predict", "models/tasks/pets", *texts)
    answers = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert [each["label"] for each in answers] == ["cat", "dog"]
    made = roberta(project, "register")
    assert "new versions" in made and "roberta-pets 1" in made
    told = roberta(project, "predict", "roberta-pets", *texts)
    assert [json.loads(line) for line in told.splitlines() if line.startswith("{")] == answers
    told = roberta(project, "lineage", "roberta-pets")
    assert "finetune@pets" in told and "pets.csv" in told
    exported = roberta(project, "export", "roberta-pets", "out")
    assert (
        "loaded back with equal predictions" in exported and "own task pets" in (project / "out/README.md").read_text()
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/roberta-pets@champion",
        "-p",
        str(port),
        "--env-manager",
        "local",
    ]
    server = subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        served = _ask(f"http://127.0.0.1:{port}/invocations", {"inputs": texts}, server)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    assert [each["label"] for each in served["predictions"]] == ["cat", "dog"]


def _ask(address: str, payload: dict, server: subprocess.Popen) -> dict:
    """The server's answer, once it is up."""
    request = urllib.request.Request(address, json.dumps(payload).encode(), {"Content-Type": "application/json"})
    end = time.monotonic() + 240
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except OSError:
            assert server.poll() is None and time.monotonic() < end, "the server did not come up"
            time.sleep(1)


def test_a_killed_stage_goes_on_with_the_next_seed(project):
    """Killed by SIGKILL after its first seed; the end is the undisturbed one's, byte for byte."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["finetune"]["tasks"]["pets"] |= {"seeds": [1, 2, 3], "epochs": 3}
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    command = [sys.executable, "-m", "tasks.finetune", "pets"]
    run(project, *command)
    folder, work = project / "models/tasks/pets", project / ".work/finetune/pets"
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    shutil.rmtree(work)
    shutil.rmtree(folder)
    environment = os.environ | {"PYTHONPATH": str(project)}
    stage = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not list(work.glob("*/*-1/result.json")):
        assert stage.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    stage.kill()
    stage.wait()
    assert not folder.exists()
    first = next(iter(work.glob("*/*-1/result.json"))).stat().st_mtime_ns
    run(project, *command)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole
    assert next(iter(work.glob("*/*-1/result.json"))).stat().st_mtime_ns == first, "the first seed was not done again"
