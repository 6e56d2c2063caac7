"""`roberta ui`: Prefect's and MLflow's own pages, on this project's stores, on free ports of this machine alone."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from flows.guard import end_group
from roberta_core.errors import UserError
from tasks.tracking import shown_uri, tracking_uri

START_S = 120.0


class PageDied(UserError):
    """A page's server ended by itself."""


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(name: str, process: subprocess.Popen, address: str, log: Path) -> None:
    """Returns when the page answers."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise PageDied(f"{name}'s page does not start.", f"{log} says why.")


def serve(root: Path) -> None:
    """Starts both pages, prints their addresses, and waits until Ctrl-C; then ends both.

    A server that PREFECT_API_URL or MLFLOW_TRACKING_URI names has a page already; then only its address is shown.
    """
    started: list[tuple[str, subprocess.Popen, Path]] = []
    addresses: list[tuple[str, str]] = []
    logs = root / "logs"
    logs.mkdir(exist_ok=True)

    def start(name: str, address: str, health: str, *command: str) -> None:
        log = logs / f"{name.lower()}-page.log"
        with open(log, "w", encoding="utf8") as handle:
            # a session of its own: MLflow's server has workers, and all of them must end
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=root,
                stdout=handle,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append((name, process, log))
        addresses.append((address, health))

    try:
        tracking = tracking_uri(root)
        if tracking.startswith("http"):
            print(f"MLflow: {shown_uri(root)}")
        else:
            port = str(free_port())
            command = ("mlflow", "server", "--backend-store-uri", tracking, "--host", "127.0.0.1", "--port", port)
            artifacts = (root / "mlartifacts").as_uri()
            start("MLflow", f"http://127.0.0.1:{port}", "/health", *command, "--workers", "1",
                  "--artifacts-destination", artifacts)  # fmt: skip
        if api := os.environ.get("PREFECT_API_URL"):
            print(f"Prefect: {api.removesuffix('/').removesuffix('/api')}")
        else:
            port = str(free_port())
            os.environ["PREFECT_UI_API_URL"] = f"http://127.0.0.1:{port}/api"
            command = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
            start("Prefect", f"http://127.0.0.1:{port}", "/api/health", *command)
        for (name, process, log), (address, health) in zip(started, addresses):
            _wait_for(name, process, address + health, log)
            print(f"{name}: {address}", flush=True)
        print("Ctrl-C ends the pages." if started else "Both run elsewhere; nothing to start here.", flush=True)
        while started:
            time.sleep(0.5)
            for name, process, log in started:
                if process.poll() is not None:
                    raise PageDied(f"{name}'s page has ended.", f"{log} says why.")
    except KeyboardInterrupt:
        print("ending", flush=True)
    finally:
        for _, process, _ in started:
            end_group(process.pid, 5.0)
            process.wait()
