"""Promotion through a real MLflow server: promoters as processes of their own, and a server that is killed among them."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import pytest

from flows.guard import end_group
from flows.pages import free_port
from tasks.promotion import promote_by_hand, read_log

from .test_promotion import COLA, aliases, project, stock  # noqa: F401  (fixtures)
from .tiny_models import REPO

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PROMOTER = """
import sys, time
from pathlib import Path
from tasks import promotion
from tasks.params_file import load_params

root, me = Path(sys.argv[1]), Path(sys.argv[2])
params = load_params(root / "params.yaml")
promotion.CLAIM_WAIT_S = 500.0  # a busy machine
me.touch()  # ready
while not (root / "go").exists():
    time.sleep(0.01)
print(len(promotion.promote_all(params, root)))
"""

STOPS_AT_THE_LAST_CALL = """
import sys, time
from pathlib import Path
from tasks import promotion, stage

root = Path(sys.argv[1])

class Slow:
    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        call = getattr(self.client, name)

        def wait(*arguments, **more):
            if name == "set_registered_model_alias" and arguments[1] == "champion":
                (root / "there").touch()
                while not (root / "killed").exists():
                    time.sleep(0.01)
            return call(*arguments, **more)

        return wait

real = promotion.open_store
promotion.open_store = lambda root: Slow(real(root))
try:
    promotion.promote_by_hand(root, "roberta-cola", "2")
except Exception as error:
    line, code = stage.explain(error)
    print(line)
    sys.exit(code)
"""


class Registry:
    """An MLflow server on a project's database, as `roberta ui` starts it."""

    def __init__(self, root):
        self.root, self.port = root, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        store = f"sqlite:///{self.root}/mlflow.db"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1", "--port",
             str(self.port), "--workers", "1"],
            cwd=self.root, env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=2):
                return
            time.sleep(0.3)
        raise AssertionError("the server does not start")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def run(self, code: str, *arguments: str) -> subprocess.Popen:
        env = os.environ | {"MLFLOW_TRACKING_URI": self.address, "PYTHONPATH": str(REPO)}
        return subprocess.Popen(
            [sys.executable, "-c", code, str(self.root), *arguments], env=env, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture
def registry(project):  # noqa: F811
    root, _ = project
    promote_by_hand(root, COLA, "1")
    held = Registry(root)
    try:
        yield held
    finally:
        end_group(held.process.pid, 5.0)
        held.process.wait()


def test_of_two_promoters_at_once_one_wins(registry):
    root = registry.root
    ready = [root / "first", root / "second"]
    promoters = [registry.run(PROMOTER, str(each)) for each in ready]
    until = time.monotonic() + 120
    while not all(each.exists() for each in ready) and time.monotonic() < until:
        time.sleep(0.05)
    (root / "go").touch()
    decided = [each.communicate(timeout=200)[0].strip() for each in promoters]
    assert [each.returncode for each in promoters] == [0, 0]
    # encoder and classifier are decided on once each, by either of the two
    assert sum(map(int, decided)) == 2
    assert [each["version"] for each in read_log(root, COLA)] == ["1", "3"]
    assert aliases(root) == {"champion": "3", "previous": "1"}


def test_a_server_killed_in_mid_promotion_leaves_the_old_champion(registry):
    root = registry.root
    promoter = registry.run(STOPS_AT_THE_LAST_CALL)
    until = time.monotonic() + 120
    while not (root / "there").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert promoter.poll() is None
    registry.kill()
    (root / "killed").touch()
    told = promoter.communicate(timeout=300)[0]
    assert promoter.returncode == 75
    assert "The registry went away while roberta-cola 2 was promoted" in told and "version 1 is champion still" in told
    registry.start()
    assert aliases(root)["champion"] == "1" and [each["version"] for each in read_log(root, COLA)] == ["1"]
    # and once more: the claim of the dead promoter is in nobody's way
    again = registry.run(STOPS_AT_THE_LAST_CALL)
    assert again.wait(200) == 0
    assert aliases(root) == {"champion": "2", "previous": "1"}
