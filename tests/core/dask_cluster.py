"""A real Dask cluster on this machine, for tests: a scheduler and workers, each a process of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A scheduler and workers without nannies: a killed worker stays dead."""

    def __init__(self, folder: Path):
        self.address, self.folder = f"tcp://127.0.0.1:{free_port()}", folder
        self.log = open(folder / "dask.txt", "w")  # noqa: SIM115 (it lives as long as the processes)
        self.processes = [self._start("scheduler", "--host", "127.0.0.1", "--port", self.address.rsplit(":", 1)[1])]
        self.workers: list[subprocess.Popen] = []

    def _start(self, what: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", what, *arguments, "--no-dashboard"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "20s"}
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=self.log, stderr=self.log)

    def add_worker(self) -> subprocess.Popen:
        self.workers.append(
            self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
        )
        return self.workers[-1]

    def close(self) -> None:
        for process in (*self.workers, *self.processes):
            process.kill()
            process.wait()
        self.log.close()
