"""Whatever is killed in mid-training, the run ends once, with the bytes of an undisturbed one: real servers, real training."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from roberta_core.atomic import digest_of
from tests.test_chain import clone
from tests.test_chain import run as command

from .listeners import family
from .servers import Servers
from .test_process import alive, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STEPS = 600
ENCODER = Path("models/encoder/model.safetensors")
NOBODY = "http://127.0.0.1:9/"


def said_by(pid: int) -> str:
    """A process's command line."""
    return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def trainers(project: Path) -> list[int]:
    """Processes of this project's pretraining that live now; a worker process of its data loader would count too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"tasks.pretrain" in (folder / "cmdline").read_bytes() and (folder / "cwd").readlink() == project:
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if alive(pid)]


def in_training(project: Path) -> bool:
    """Past its first checkpoint, and not done."""
    return bool(trainers(project)) and any((project / ".work/pretrain").glob("*/step-*/training/state.json"))


class Chain:
    """A project whose data is packed, with the deployment `refresh` cut down to the training, and its servers."""

    def __init__(self, base: Path):
        self.project = clone(base / "project").resolve()
        params = self.project / "params.yaml"
        given = yaml.safe_load(params.read_text())
        given["pretrain"] |= {"max_steps": STEPS, "batch_size": 32}
        given["runtime"] |= {"checkpoint_minutes": 0.02, "checkpoint_share": 0, "threads": 1}
        params.write_text(yaml.safe_dump(given, sort_keys=False))
        command(self.project, "dvc", "repro", "-q", "pack")
        self.lock = (self.project / "dvc.lock").read_bytes()
        command(self.project, "dvc", "repro", "-q", "-s", "pretrain")
        self.calm = (digest_of(self.project / ENCODER), (self.project / "dvc.lock").read_bytes())
        deployments = yaml.safe_load((self.project / "prefect.yaml").read_text())
        deployments["deployments"] = deployments["deployments"][:1]
        only = deployments["deployments"][0]
        only["parameters"] |= {"publish": False, "until": ["pretrain"]}
        only["schedules"] = []
        (self.project / "prefect.yaml").write_text(yaml.safe_dump(deployments))
        self.servers = Servers(base / "prefect", self.project)
        self.server = self.servers.start_server()
        self.servers.call("work-pool", "create", "--type", "process", "roberta")
        self.servers.call("--no-prompt", "deploy", "--all")
        self.worker = self.servers.start_worker()

    def notify(self) -> str:
        """`roberta notify`, with an address where nobody is: what is told is another test."""
        env = self.servers.env | {"ROBERTA_WEBHOOK": NOBODY}
        notify = [sys.executable, "-m", "flows.cli", "notify"]
        return subprocess.run(notify, cwd=self.project, env=env, capture_output=True, text=True, check=True).stdout

    def begin(self) -> str:
        """Puts the project back to before the training, starts a run, and returns its id in mid-training."""
        shutil.rmtree(self.project / "models/encoder", ignore_errors=True)
        shutil.rmtree(self.project / ".work/pretrain", ignore_errors=True)
        # DVC would restore the encoder from what it remembers of the calm run
        shutil.rmtree(self.project / ".dvc/cache/runs", ignore_errors=True)
        (self.project / "dvc.lock").write_bytes(self.lock)
        run = self.servers.run_deployment("pipeline/refresh")
        assert wait_until(lambda: in_training(self.project), 300), self.told()
        return run

    def ends(self, run: str, seconds: float = 300) -> dict:
        """The state in which a run ends."""
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        assert wait_until(lambda: self.servers.state_of(run)["type"] in final, seconds), self.told()
        return self.servers.state_of(run)

    def is_calm(self) -> bool:
        """Whether encoder and lock have the bytes of the undisturbed run, and nobody is at work any more."""
        now = (digest_of(self.project / ENCODER), (self.project / "dvc.lock").read_bytes())
        return now == self.calm and wait_until(lambda: not trainers(self.project), 20)

    def kept(self) -> int:
        """The newest checkpoint's step."""
        states = (self.project / ".work/pretrain").glob("*/step-*/training/state.json")
        return max(json.loads(each.read_text())["step"] for each in states)

    def told(self) -> str:
        return "\n".join(
            f"--- {index}\n{self.servers.log_of(each)[-3000:]}" for index, each in enumerate(self.servers.running)
        )


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    held = Chain(tmp_path_factory.mktemp("kills"))
    try:
        yield held
    finally:
        held.servers.stop()


def test_cancel_ends_the_whole_group_and_leaves_a_checkpoint_to_go_on_from(chain):
    run = chain.begin()
    started = trainers(chain.project)
    asked = time.monotonic()
    answer = chain.servers.ask(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"}, force=False)
    assert answer["status"] == "ACCEPT"
    assert wait_until(lambda: not any(map(alive, started)), 60)
    print(f"cancelled in {time.monotonic() - asked:.1f} s")
    assert chain.ends(run)["type"] == "CANCELLED"
    assert trainers(chain.project) == [] and not (chain.project / ENCODER).exists()
    assert 0 < chain.kept() < STEPS
    again = chain.servers.run_deployment("pipeline/refresh")
    assert chain.ends(again)["type"] == "COMPLETED" and chain.is_calm()


def test_sigkill_of_the_worker_costs_the_run_nothing(chain):
    """The run's process is its child, and goes on: nobody reads its lines any more, which must not end it."""
    run = chain.begin()
    started = trainers(chain.project)
    os.kill(chain.worker.pid, signal.SIGKILL)
    chain.worker.wait()
    chain.worker = chain.servers.start_worker()
    # the queue lets no second run begin beside it, nor would the folder
    second = chain.servers.run_deployment("pipeline/refresh")
    seen = set(trainers(chain.project))
    while chain.servers.state_of(run)["type"] == "RUNNING":
        seen |= set(trainers(chain.project))
        time.sleep(0.5)
    assert chain.servers.state_of(run)["type"] == "COMPLETED", chain.servers.state_of(run)
    assert chain.ends(second)["type"] == "COMPLETED"
    assert seen <= set(started) and chain.is_calm()


def test_sigkill_of_the_server_costs_the_run_nothing(chain):
    run = chain.begin()
    started = trainers(chain.project)
    os.killpg(chain.server.pid, signal.SIGKILL)
    chain.server.wait()
    time.sleep(5)
    assert trainers(chain.project) == started
    chain.server = chain.servers.start_server()
    assert chain.ends(run)["type"] == "COMPLETED", chain.told()
    assert chain.is_calm()


def test_sigkill_of_worker_and_run_is_noticed_and_the_next_run_goes_on(chain):
    """As when a machine dies: no heartbeat any more. The trainer has no orphan's life, the run no eternal one."""
    assert chain.notify().count("automation: ") == 2
    run = chain.begin()
    started = trainers(chain.project)
    flow = [pid for pid in family(chain.worker.pid) if pid != chain.worker.pid and "prefect" in said_by(pid)]
    os.kill(chain.worker.pid, signal.SIGKILL)
    for pid in flow:
        os.kill(pid, signal.SIGKILL)
    chain.worker.wait()
    assert wait_until(lambda: not any(map(alive, started)), 60)
    assert 0 < chain.kept() < STEPS and not (chain.project / ENCODER).exists()
    chain.worker = chain.servers.start_worker()
    assert chain.ends(run, 400)["type"] == "CRASHED"
    again = chain.servers.run_deployment("pipeline/refresh")
    assert chain.ends(again, 600)["type"] == "COMPLETED" and chain.is_calm()
