"""prefect.yaml on a real server: every deployment goes up as it is, and a scheduled run happens by itself."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from flows.guard import end_group
from flows.pages import free_port
from flows.pipeline import pipeline

from .conftest import REPO

FILE = yaml.safe_load((REPO / "prefect.yaml").read_text(encoding="utf8"))


def test_each_deployment_names_a_flow_and_parameters_that_it_takes():
    import importlib
    import inspect

    assert [each["name"] for each in FILE["deployments"]] == ["refresh", "nightly-data", "evaluate"]
    for each in FILE["deployments"]:
        file, _, name = each["entrypoint"].partition(":")
        takes = inspect.signature(
            getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name).fn
        )
        takes.bind(**each["parameters"])
        assert each["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert each["tags"][0] == "roberta" and each["work_pool"]["name"] == "roberta"
        for schedule in each.get("schedules", ()):
            assert schedule["timezone"] and len(schedule["cron"].split()) == 5
    until = FILE["deployments"][1]["parameters"]["until"]
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text(encoding="utf8"))["stages"]
    assert set(until) <= set(stages) and pipeline.name == "pipeline"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployed_schedule_runs_by_itself(project, tmp_path):
    """Server, pool, deploy and worker as in the README, each a process of its own on the loopback, ended by its group."""
    import httpx

    for name in ("flows", "tasks", "roberta_core"):
        shutil.copytree(REPO / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW"))}
    env |= {
        "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": api,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(project), os.environ.get("PYTHONPATH")])),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
        "PREFECT_API_REQUEST_TIMEOUT": "180",  # a busy machine
    }  # fmt: skip
    (tmp_path / "prefect").mkdir()
    deployments = yaml.safe_load((REPO / "prefect.yaml").read_text(encoding="utf8"))
    refresh = deployments["deployments"][0]
    refresh["parameters"]["publish"] = False
    running: list[subprocess.Popen] = []

    def start(*command: str) -> subprocess.Popen:
        log = open(tmp_path / f"{len(running)}.log", "w")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command], cwd=project, env=env, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        running.append(process)
        return process

    def call(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *command],
            cwd=project,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(path: str, **body) -> list[dict]:
        return httpx.post(f"{api}/{path}", json=body, timeout=120).raise_for_status().json()

    try:
        start("server", "start", "--host", "127.0.0.1", "--port", str(port))
        until = time.monotonic() + 240
        while time.monotonic() < until:
            with suppress(OSError), urllib.request.urlopen(f"{api}/health", timeout=2):
                break
            time.sleep(0.5)
        call("work-pool", "create", "--type", "process", "roberta")
        # due every minute from now on: whatever the deploying takes, the first run is some seconds away
        due = datetime.now(UTC) + timedelta(seconds=20)
        refresh["schedules"] = [{"interval": 60, "anchor_date": due.isoformat(), "timezone": "UTC", "active": True}]
        (project / "prefect.yaml").write_text(yaml.safe_dump(deployments))
        told = call("--no-prompt", "deploy", "--all")
        assert told.count("successfully created") == 3, told
        limits = {each["name"]: each["concurrency_options"] for each in ask("deployments/filter")}
        assert limits == dict.fromkeys(
            ["refresh", "nightly-data", "evaluate"], {"collision_strategy": "ENQUEUE"} | next(iter(limits.values()))
        )
        start("worker", "start", "--pool", "roberta")
        until = time.monotonic() + 400
        seen: list[dict] = []
        while time.monotonic() < until:
            seen = [
                each for each in ask("flow_runs/filter") if each["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")
            ]
            if seen:
                break
            time.sleep(1)
        assert seen, (tmp_path / "1.log").read_text()
        assert seen[0]["state"]["type"] == "COMPLETED", seen[0]["state"]
        assert seen[0]["auto_scheduled"] and Path(project / "d").is_file()
        assert datetime.fromisoformat(seen[0]["start_time"].replace("Z", "+00:00")) >= due - timedelta(seconds=1)
    finally:
        for process in reversed(running):
            end_group(process.pid, 10.0)
            process.wait()
