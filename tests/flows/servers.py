"""Prefect's server and worker as processes of their own on the loopback, as the README starts them; ended by their group."""

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import httpx

from flows.guard import end_group
from flows.pages import free_port


class Servers:
    """One server with its database in `home`, a work pool, and workers in a project's folder."""

    def __init__(self, home: Path, project: Path, **environment: str):
        self.home, self.project = home, project
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        home.mkdir(parents=True, exist_ok=True)
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW"))}
        self.env |= {
            "PREFECT_HOME": str(home), "PREFECT_API_URL": self.api, "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(project), os.environ.get("PYTHONPATH")])),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
            "PREFECT_API_REQUEST_TIMEOUT": "180",  # a busy machine
        } | environment  # fmt: skip
        self.running: list[subprocess.Popen] = []

    def start(self, *command: str) -> subprocess.Popen:
        """`prefect …` in the background; its lines go to `<home>/<number>.log`."""
        with open(self.home / f"{len(self.running)}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *command], cwd=self.project, env=self.env, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.running.append(process)
        return process

    def start_server(self) -> subprocess.Popen:
        """Returns when it answers."""
        process = self.start("server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        until = time.monotonic() + 240
        while time.monotonic() < until:
            with suppress(OSError), urllib.request.urlopen(f"{self.api}/health", timeout=2):
                break
            time.sleep(0.5)
        return process

    def start_worker(self) -> subprocess.Popen:
        return self.start("worker", "start", "--pool", "roberta")

    def call(self, *command: str) -> str:
        """`prefect …` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *command], cwd=self.project, env=self.env, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path: str, **body) -> list[dict] | dict:
        return httpx.post(f"{self.api}/{path}", json=body, timeout=120).raise_for_status().json()

    def run_deployment(self, name: str) -> str:
        """Asks for a run of a deployment now. Returns the flow run's id."""
        found = httpx.get(f"{self.api}/deployments/name/{name}", timeout=120).raise_for_status().json()
        return self.ask(f"deployments/{found['id']}/create_flow_run", state={"type": "SCHEDULED"})["id"]

    def state_of(self, run: str) -> dict:
        return httpx.get(f"{self.api}/flow_runs/{run}", timeout=120).raise_for_status().json()["state"]

    def log_of(self, process: subprocess.Popen) -> str:
        return (self.home / f"{self.running.index(process)}.log").read_text()

    def stop(self) -> None:
        for process in reversed(self.running):
            end_group(process.pid, 10.0)
            process.wait()
