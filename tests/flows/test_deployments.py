"""prefect.yaml on a real server: every deployment goes up as it is, and a scheduled run happens by itself."""

import json
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from flows.notify import LOST, TOLD
from flows.pipeline import pipeline

from .conftest import REPO
from .listeners import addresses
from .servers import Servers
from .test_process import wait_until

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


class Receiver(BaseHTTPRequestHandler):
    """Takes what a webhook is sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def a_failure_is_told(servers: Servers) -> None:
    """`roberta notify` twice, a stage that fails, and one message at a receiver on the loopback."""
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    receiver.got = []
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    (servers.project / "work.sh").write_text('echo "$1: no ink left. Fill it." >&2; exit 3')
    env = servers.env | {"ROBERTA_WEBHOOK": f"http://127.0.0.1:{receiver.server_port}/hook/s3cret"}
    try:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-m", "flows.cli", "notify"],
                cwd=servers.project,
                env=env,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [f"automation: {name}" for name in (TOLD, LOST)]
        assert sorted(each["name"] for each in servers.ask("automations/filter")) == sorted([TOLD, LOST])
        # the address is a key: the server keeps it encrypted, and its API does not give it away
        blocks = servers.ask("block_documents/filter")
        assert "s3cret" not in json.dumps(blocks) and any(each["name"] == "roberta-webhook" for each in blocks)
        run = servers.run_deployment("pipeline/refresh")
        wait_until(lambda: servers.state_of(run)["type"] in ("FAILED", "CRASHED"), 200)
        assert wait_until(lambda: receiver.got, 60), servers.state_of(run)
        path, message = receiver.got[0]
        assert path == "/hook/s3cret" and "of pipeline is Failed" in message["text"]
        assert "no ink left. Fill it." in message["text"]
    finally:
        receiver.shutdown()
        receiver.server_close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_deployed_schedule_runs_by_itself(project, tmp_path):
    """Server, pool, deploy and worker as in the README, each a process of its own on the loopback, ended by its group."""
    for name in ("flows", "tasks", "roberta_core"):
        shutil.copytree(REPO / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    deployments = yaml.safe_load((REPO / "prefect.yaml").read_text(encoding="utf8"))
    refresh = deployments["deployments"][0]
    refresh["parameters"]["publish"] = False
    servers = Servers(tmp_path / "prefect", project)
    try:
        server = servers.start_server()
        servers.call("work-pool", "create", "--type", "process", "roberta")
        # due every minute from now on: whatever the deploying takes, the first run is some seconds away
        due = datetime.now(UTC) + timedelta(seconds=20)
        refresh["schedules"] = [{"interval": 60, "anchor_date": due.isoformat(), "timezone": "UTC", "active": True}]
        (project / "prefect.yaml").write_text(yaml.safe_dump(deployments))
        told = servers.call("--no-prompt", "deploy", "--all")
        assert told.count("successfully created") == 3, told
        limits = {each["name"]: each["concurrency_options"] for each in servers.ask("deployments/filter")}
        assert limits == dict.fromkeys(
            ["refresh", "nightly-data", "evaluate"], {"collision_strategy": "ENQUEUE"} | next(iter(limits.values()))
        )
        worker = servers.start_worker()
        assert addresses(server.pid) == {"127.0.0.1"}
        until = time.monotonic() + 400
        seen: list[dict] = []
        while time.monotonic() < until:
            seen = [
                each
                for each in servers.ask("flow_runs/filter")
                if each["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")
            ]
            if seen:
                break
            time.sleep(1)
        assert seen, servers.log_of(worker)
        assert seen[0]["state"]["type"] == "COMPLETED", seen[0]["state"]
        assert seen[0]["auto_scheduled"] and Path(project / "d").is_file()
        assert datetime.fromisoformat(seen[0]["start_time"].replace("Z", "+00:00")) >= due - timedelta(seconds=1)
        a_failure_is_told(servers)
    finally:
        servers.stop()
