"""The flow on a real Prefect server, a real DVC project, real processes."""

import os
import shutil
import time

import pytest

from roberta_core.errors import TryAgain

from .conftest import dvc

pytestmark = pytest.mark.usefixtures("prefect_server")


def run(folder):
    from flows.pipeline import pipeline

    return pipeline(str(folder), publish=False)


def ask(path: str, **body) -> list[dict]:
    """Prefect's answer by its own address: the client sends empty filters, which the server of 3.8 refuses."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.request("POST", path, json=body).json()


def task_runs() -> dict[str, tuple[str, str]]:
    """Tasks of the newest flow run: name -> state's name and message."""
    newest = ask("/flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]
    tasks = ask("/task_runs/filter", flow_runs={"id": {"any_": [newest["id"]]}})
    return {each["name"]: (each["state"]["name"], each["state"]["message"]) for each in tasks}


def settled(names: set[str]) -> dict[str, tuple[str, str]]:
    """Task runs reach the server as events, a little later than the flow ends."""
    for _ in range(100):
        found = task_runs()
        if set(found) == names and all(state not in ("Pending", "Running") for state, _ in found.values()):
            return found
        time.sleep(0.1)
    return task_runs()


def test_three_doors_write_the_same_lock(project, tmp_path):
    other, work = tmp_path / "other", project / "work.sh"
    work.write_text(work.read_text().replace("sleep 0.8", "sleep 4"))  # longer than a busy machine holds up a@y
    shutil.copytree(project, other)
    ended = run(project)
    assert ended == dict.fromkeys(["a@x", "a@y", "b", "c", "d"], "done")
    dvc(other, "repro")
    assert (project / "dvc.lock").read_bytes() == (other / "dvc.lock").read_bytes()
    # side by side: a@y, which is quick, ended before a@x, and the lock has them in the plan's order all the same
    assert list(ended).index("a@y") < list(ended).index("a@x")

    states = settled({"a@x", "a@y", "b", "c", "d"})
    assert {name: state for name, (state, _) in states.items()} == dict.fromkeys(ended, "Completed")

    assert run(project) == dict.fromkeys(ended, "up to date")
    assert settled(set(ended)) == dict.fromkeys(ended, ("UpToDate", "up to date"))
    assert dvc(project, "status").stdout.strip() == "Data and pipelines are up to date."

    for folder in (project, other):
        params = folder / "params.yaml"
        params.write_text(params.read_text().replace("seed: 1907", "seed: 7"))
    # c's output comes out the same, so d is skipped by DVC
    assert run(project) == dict.fromkeys(ended, "up to date") | {"c": "done"}
    dvc(other, "repro")
    assert (project / "dvc.lock").read_bytes() == (other / "dvc.lock").read_bytes()


def test_a_failed_stage_stops_what_needs_it_and_nothing_else(project):
    from flows.pipeline import RunFailed

    (project / "work.sh").write_text(
        '[ $1 = a-x ] && { echo "a-x: no ink left. Fill it." >&2; exit 1; }; echo $1 > $1'
    )
    with pytest.raises(RunFailed, match=r"^a-x: no ink left. Fill it. \(log: logs/a-x.log\)$"):
        run(project)
    states = settled({"a@x", "a@y", "c"})
    assert states["a@x"][0] == "Failed" and "no ink left" in states["a@x"][1]
    assert states["a@y"][0] == states["c"][0] == "Completed"
    assert not (project / "b").exists()
    # mended, the next run goes on from there
    (project / "work.sh").write_text("echo $1 > $1")
    assert run(project)["d"] == "done"


def test_exit_75_is_tried_again_after_a_pause(project, monkeypatch):
    from flows import pipeline

    monkeypatch.setattr(pipeline, "RETRY_AFTER_S", (0.1, 0.1))
    (project / "work.sh").write_text(
        "echo x >> tries-$1; [ $1 = a-x ] && [ $(wc -l < tries-$1) -lt 3 ] && exit 75; echo $1 > $1"
    )
    assert run(project)["a@x"] == "done"
    assert (project / "tries-a-x").read_text() == "x\n" * 3
    (project / "work.sh").write_text("exit 75")
    with pytest.raises(TryAgain) as told:
        run(project)
    assert told.value.exit_code == 75


def test_one_run_at_a_time(project):
    from flows.pipeline import run_lock

    with run_lock(project), pytest.raises(TryAgain, match="Another run is going on in this folder") as told:
        run(project)
    assert told.value.exit_code == 75
    assert not (project / "a-x").exists()


def test_artifacts_hold_a_table_and_a_summary(project):
    (project / "reports").mkdir()
    (project / "reports" / "summary.md").write_text("# All of it\n")
    run(project)
    newest = {each["key"]: each["data"] for each in ask("/artifacts/filter", sort="UPDATED_DESC", limit=2)}
    assert '"stage": "a@x"' in newest["stages"]
    assert "# All of it" in newest["summary"]


def test_an_error_in_the_flow_ends_its_stages(project, monkeypatch):
    from flows import pipeline

    (project / "work.sh").write_text("echo $$ > pid-$1; sleep 300")
    pids = [project / "pid-a-x", project / "pid-a-y"]
    from .test_process import alive, wait_until

    def start_and(then, run):
        for name in ("a@x", "a@y"):
            pipeline.stage_task.with_options(name=name).submit(name, True)
        then()

    def interrupt():
        for pid in pids:
            assert wait_until(lambda pid=pid: pid.exists() and pid.read_text().strip(), 20)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.Board, "ended", lambda *_: None)
    monkeypatch.setattr(pipeline, "_run_stages", lambda run, plan, stale: start_and(interrupt, run))
    with pytest.raises(KeyboardInterrupt):
        run(project)
    assert not any(alive(int(pid.read_text())) for pid in pids)


def test_the_report_is_written_anew_only_when_something_it_shows_is_newer(tmp_path):
    from flows.pipeline import _is_newest

    page = tmp_path / "index.html"
    sources = [tmp_path / name for name in ("dvc.lock", "params.yaml", "mlflow.db", "tasks/report.py")]
    (tmp_path / "tasks").mkdir()
    for each in (page, *sources):
        assert not _is_newest(tmp_path, page)
        each.write_text("")
        os.utime(each, (1000, 1000))
    os.utime(page, (2000, 2000))
    assert _is_newest(tmp_path, page)
    for each in sources:
        os.utime(each, (3000, 3000))
        assert not _is_newest(tmp_path, page), each
        os.utime(each, (1000, 1000))


def test_the_gate_s_words_and_table_are_an_artifact(project, monkeypatch):
    """The registry's rows are given; register, promote, report and the artifact are real."""
    from flows.pipeline import pipeline
    from roberta_core.bootstrap import Gain
    from tasks import registry
    from tasks.gate import Check, Verdict

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    numbers = ("accuracy", 250, 0.5, 0.55, 0.05, -0.01, 0.11, 0.061, 1, True)
    gains = [Gain("RTE", *numbers), Gain("mean", *numbers)]
    told = Verdict(False, "not promoted: too close", gains, [Check("p below 0.05", "0.061", False)])
    row = {"name": "roberta-rte", "version": "2", "alias": "challenger", "score": 0.55, "measure": "accuracy"}
    row |= {"data": "sample", "run_id": "", "run_url": "", "promoted": told.why, "gate": told.as_json()}
    monkeypatch.setattr(registry, "overview", lambda *_: [row])
    assert pipeline(str(project))["report"] == "done"
    newest = {each["key"]: each["data"] for each in ask("/artifacts/filter", sort="UPDATED_DESC", limit=3)}
    assert newest["gate"].startswith("## roberta-rte 2 (challenger)\n\nnot promoted: too close\n\n| task | metric |")
    assert "| RTE | accuracy | 250 | 0.5000 | 0.5500 | +0.0500 |" in newest["gate"]
    assert "- failed: p below 0.05: 0.061" in newest["gate"]
    page = (project / "reports" / "index.html").read_text()
    assert "not promoted: too close" in page and "<td>+0.0500</td>" in page
