"""Progress and tables on Prefect's page, from a real server; and that a server that is away costs a stage nothing."""

import json
import time

import pytest

from flows import live
from flows.artifacts import funnel_rows, score_rows
from roberta_core.progress import Progress
from tasks.params_file import load_params
from tests.tasks.tiny_models import REPO

from .test_pipeline import ask, run


def newest(key: str) -> dict:
    found = ask("/artifacts/filter", sort="UPDATED_DESC", artifacts={"key": {"any_": [key]}}, limit=1)
    return found[0] if found else {}


def test_a_running_stage_shows_how_far_it_is(project, prefect_server, monkeypatch):
    monkeypatch.setattr(live, "EVERY_S", 0.2)
    sent: dict[str, list[float]] = {}
    send = live.Live._send
    monkeypatch.setattr(
        live.Live, "_send", staticmethod(lambda *a: (sent.setdefault(a[0], []).append(a[2]), send(*a)))
    )
    (project / "work.sh").write_text(
        'for n in 10 55; do echo "$1: $n/100 rows · $n% · 5 rows/s"; sleep 2; done; echo $1 > $1\n'
    )
    run(project)
    shown = newest("progress-a-x")
    assert shown["type"] == "progress" and float(shown["data"]) == 100.0
    assert shown["description"].startswith("a@x: done in") and shown["task_run_id"] and shown["flow_run_id"]
    # while it ran, and at the end; on a busy machine one in the middle may be passed over
    assert sent["a@x"][0] in (10.0, 55.0) and sent["a@x"][-1] == 100.0 and sent["a@x"] == sorted(sent["a@x"])
    # a stage that prints no percentage has none
    assert newest("progress-c") == {}


def test_the_lines_that_stages_print_are_understood():
    progress = Progress("pretrain", 1200, "updates")
    progress.done = 300
    assert live._PERCENT.search(progress.line("loss 5.1"))[1] == "25"
    progress.done = 1200
    assert live._PERCENT.search(progress.line())[1] == "100"
    assert live._PERCENT.search("CoLA: mcc 0.3 at 5%") is None
    assert live.key_of("glue@STS-B") == "progress-glue-sts-b"


def test_a_server_that_hangs_or_fails_does_not_hold_a_stage_up(monkeypatch):
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    monkeypatch.setattr(live, "END_WAIT_S", 0.05)
    calls = []

    def hang(*_):
        calls.append(1)
        if len(calls) == 1:
            raise OSError("away")
        time.sleep(2)

    monkeypatch.setattr(live.Live, "_send", staticmethod(hang))
    began = time.monotonic()
    with live.Live() as shown:
        shown.started("pack")
        while len(calls) < 2:
            shown.line("pack", f"pack: {len(calls)}/9 rows · 11% · 5 rows/s")
            time.sleep(0.005)
        for _ in range(1000):
            shown.line("pack", "pack: 5/9 rows · 55% · 5 rows/s")
    assert time.monotonic() - began < 1.9


@pytest.fixture
def written(tmp_path):
    """What stages of the smoke preset leave, as far as the tables read it."""
    for folder, seen, kept in (
        ("raw/python-docs", 12, 12),
        ("clean/python-docs", 12, 9),
        ("dedup", 9, 8),
        ("shards", 8, 8),
    ):
        path = tmp_path / "data" / folder / "funnel.json"
        path.parent.mkdir(parents=True)
        dropped = {"a": 1, "b": seen - kept - 1} if seen - kept > 1 else {}
        path.write_text(json.dumps({"seen": seen, "kept": kept, "chars": 1, "dropped": dropped, "examples": {}}))
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/pretrain.json").write_text(json.dumps({"loss": 6.5, "unigram_entropy": 7.0, "steps": 1000}))
    protocol = {"split": "dev", "seeds": [1], "epochs": 1, "steps": 4, "batch_size": 2, "peak_lr": 1e-4}
    protocol |= {"selection": "last epoch", "staged_from_mnli": False}
    folder = tmp_path / "models/glue/CoLA"
    folder.mkdir(parents=True)
    results = {"data": "sample", "metric": "mcc", "score": 0.25, "rows": {"train": 8}, "protocol": protocol}
    (folder / "results.json").write_text(json.dumps(results))
    return tmp_path, load_params(REPO / "presets" / "smoke.yaml")


def test_tables_of_funnel_and_scores(written):
    root, params = written
    rows = funnel_rows(root, params)
    assert [(row["step"], row["in"], row["out"]) for row in rows] == [
        ("download python-docs", 12, 12), ("clean python-docs", 12, 9), ("dedup", 9, 8), ("shard", 8, 8),
    ]  # fmt: skip
    assert rows[1]["dropped"] == "b 2, a 1"
    encoder, cola = score_rows(root, params)
    assert encoder["score"] == 6.5 and "unigram entropy 7.0" in encoder["protocol"]
    assert (cola["of"], cola["measure"], cola["score"]) == ("CoLA", "mcc", 0.25)
    assert cola["protocol"].startswith("sample data, quick: dev split, 1 seed (1), 1 epoch, batch 2")
