"""Training beside an MLflow server that takes connections and never answers: same points, an orderly end, a later upload."""

import json
import socket
import threading

import pytest

from tasks import tracking
from tasks.tracking import SPOOL, open_client, open_run
from tests.core.train.tiny_run import build

from .tiny_models import REPO, load_params


@pytest.fixture
def hanging():
    """Address of a server that accepts, reads, and says nothing as long as the test goes on; and who came."""
    server = socket.create_server(("127.0.0.1", 0))
    came: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                came.append(server.accept()[0])
            except OSError:  # closed
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", came
    server.close()
    for each in came:
        each.close()


@pytest.mark.slow
def test_training_neither_waits_nor_loses_a_point(tmp_path, monkeypatch, hanging, capsys):
    """That no update waits is shown by order, not by a clock: the whole run is over while the first request hangs."""
    address, came = hanging
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "FINISH_WAIT_S", 0.5)
    params = load_params(REPO / "params.yaml")
    calm: list = []
    quiet = build(tmp_path / "calm", steps=12, checkpoint_s=1e9)
    quiet.on_point = lambda step, numbers: calm.append((step, dict(numbers)))
    quiet.train()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with open_run("pretrain", params, {"size": "tiny"}) as tracked:
        while not came:  # MLflow is imported, and its first request hangs
            threading.Event().wait(0.05)
        training = build(tmp_path / "beside", steps=12, checkpoint_s=1e9)
        training.on_point = tracked.log
        final = training.train()
        assert tracked.run_id == ""  # nobody has answered yet
        tracked.finish({"loss": final.loss})
    assert "has not answered in time" in capsys.readouterr().err
    (spooled,) = (tmp_path / SPOOL).glob("*.json")
    record = json.loads(spooled.read_text())
    assert record["status"] == "FINISHED"

    def told(points) -> dict:
        return {(name, step): value for name, step, value in points if not name.startswith("speed/")}

    expected = told((name, step, value) for step, numbers in calm for name, value in numbers.items())
    assert told((name, step, value) for name, value, _, step in record["points"] if name != "final.loss") == expected
    assert {
        ("train/loss", 12),
        ("train/perplexity", 12),
        ("train/grad_norm", 12),
        ("train/accuracy", 4),
    } <= expected.keys()
    assert {name for name, *_ in record["points"]} >= {
        f"speed/{name}" for name in ("tokens_per_s", "memory_mb", "padded_share")
    }

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(tracking, "FINISH_WAIT_S", 60.0)  # its database is new, which takes seconds
    with open_run("glue-CoLA", params, {}):  # the next run finds a tracker that answers
        pass
    client = open_client(tmp_path)
    found = {run.info.run_name: run for run in client.search_runs(["1"])}
    history = client.get_metric_history(found["pretrain"].info.run_id, "train/loss")
    assert {("train/loss", point.step): point.value for point in history} == {
        key: value for key, value in expected.items() if key[0] == "train/loss"
    }
    assert not list((tmp_path / SPOOL).glob("*.json"))
