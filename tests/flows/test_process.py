"""A stage as a process group: its exit code and last line, its log, and that nothing of it outlives its starter."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flows.process import Groups, StageFailed, StageTryAgain, run_stage
from roberta_core.errors import TryAgain

from .conftest import REPO

SLEEPER = """\
stages:
  sleeper:
    cmd: sh -c 'echo $$ > pid-shell; sleep 300 & echo $! > pid-child; echo ready; wait'
    outs:
      - never
  stubborn:
    cmd: sh -c 'trap "" TERM; echo $$ > pid-shell; sleep 300 & echo $! > pid-child; echo ready; while true; do sleep 1; done'
    outs:
      - nothing
  saver:
    cmd: sh -c 'trap "sleep 2; echo kept > kept; exit 75" TERM; echo $$ > pid-shell; while true; do sleep 0.1; done'
  again:
    cmd: sh -c 'echo "again - the network is away. Try later." >&2; exit 75'
  broken:
    cmd: sh -c 'echo one; echo "there is no such file x. Make it." >&2; exit 3'
  silent:
    cmd: sh -c 'exit 4'
  early:
    cmd: sh -c 'kill -TERM $$'
  early-in-a-shell:
    cmd: sh -c 'kill -TERM $$'; exit $?
"""


@pytest.fixture
def sleepers(template, tmp_path):
    import shutil

    folder = tmp_path / "sleepers"
    shutil.copytree(template, folder)
    (folder / "dvc.yaml").write_text(SLEEPER)
    return folder


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def pids(folder) -> list[int]:
    return [int((folder / name).read_text()) for name in ("pid-shell", "pid-child")]


def test_lines_go_to_the_log_and_to_the_caller(project):
    lines = []
    ended = run_stage("a@y", project, Groups(), lines.append)
    assert ended.how == "done"
    assert "working on a-y" in lines
    assert "working on a-y" in (project / "logs" / "a-y.log").read_text().splitlines()
    assert run_stage("a@y", project, Groups()).how == "up to date"
    (project / "dvc.lock").unlink()
    (project / "a-y").unlink()
    assert run_stage("a@y", project, Groups()).how == "restored"


def test_exit_75_means_try_again_and_its_own_line_is_told(sleepers):
    with pytest.raises(
        StageTryAgain, match=r"^again - the network is away. Try later. .log: logs/again.log.$"
    ) as told:
        run_stage("again", sleepers, Groups())
    assert told.value.exit_code == 75


@pytest.mark.parametrize("stage", ["early", "early-in-a-shell"])
def test_sigterm_before_the_stage_has_a_handler_means_try_again(sleepers, stage):
    with pytest.raises(StageTryAgain, match=f"^{stage}: stopped by SIGTERM") as told:
        run_stage(stage, sleepers, Groups())
    assert told.value.exit_code == 75


def test_another_exit_code_is_a_failure_with_the_last_line(sleepers):
    with pytest.raises(StageFailed, match=r"^broken: there is no such file x. Make it. ") as told:
        run_stage("broken", sleepers, Groups())
    assert told.value.exit_code == 1
    with pytest.raises(StageFailed, match="exited with 4"):
        run_stage("silent", sleepers, Groups())


def test_stop_ends_the_whole_group(sleepers):
    groups, errors = Groups(), []

    def run():
        try:
            run_stage("sleeper", sleepers, groups)
        except StageTryAgain as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert wait_until((sleepers / "pid-child").exists, 20)
    assert wait_until(lambda: (sleepers / "pid-child").read_text().strip())
    started = pids(sleepers)
    assert all(map(alive, started))
    groups.stop()
    thread.join(10)
    assert not any(map(alive, started))
    assert len(errors) == 1 and "stopped" in str(errors[0])
    with pytest.raises(TryAgain, match="being stopped"):
        run_stage("sleeper", sleepers, groups)


def test_a_stopped_stage_has_the_time_to_save(sleepers):
    """DVC itself ends at once on SIGTERM; the trainer below it writes its checkpoint."""
    groups = Groups()

    def run():
        with pytest.raises(StageTryAgain):
            run_stage("saver", sleepers, groups)

    thread = threading.Thread(target=run)
    thread.start()
    assert wait_until(lambda: (sleepers / "pid-shell").exists() and (sleepers / "pid-shell").read_text().strip(), 20)
    groups.stop()
    thread.join(10)
    assert (sleepers / "kept").read_text() == "kept\n"


def test_a_group_that_ignores_sigterm_is_killed(sleepers):
    groups = Groups()

    def run():
        with pytest.raises(StageTryAgain):
            run_stage("stubborn", sleepers, groups)

    thread = threading.Thread(target=run)
    thread.start()
    assert wait_until((sleepers / "pid-child").exists, 20)
    assert wait_until(lambda: (sleepers / "pid-child").read_text().strip())
    started = pids(sleepers)
    groups.stop(grace_s=0.5)
    thread.join(10)
    assert wait_until(lambda: not any(map(alive, started)))


def test_sigkill_of_the_starter_ends_the_group_too(sleepers):
    code = (
        "from pathlib import Path; from flows.process import *; "
        f"run_stage('sleeper', Path({str(sleepers)!r}), Groups())"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=REPO)
    try:
        assert wait_until((sleepers / "pid-child").exists, 20)
        assert wait_until(lambda: (sleepers / "pid-child").read_text().strip())
        started = pids(sleepers)
        assert all(map(alive, started))
    finally:
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
    assert wait_until(lambda: not any(map(alive, started)))


def test_files_that_another_dvc_holds_are_one_line_and_another_attempt(project):
    """DVC keeps in `rwlock` which process reads and writes what; here it is this process that writes `b`."""
    held = {"write": {str(project / "b"): {"pid": os.getpid(), "cmd": "dvc repro b"}}, "read": {}}
    (project / ".dvc" / "tmp").mkdir(exist_ok=True)
    (project / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    for stage in ("a@x", "a@y"):
        run_stage(stage, project, Groups())
    with pytest.raises(
        StageTryAgain, match=r"b: another dvc command is at work on its files. Wait until it is done"
    ) as told:
        run_stage("b", project, Groups())
    assert told.value.exit_code == 75
    (project / ".dvc" / "tmp" / "rwlock").unlink()
    assert run_stage("b", project, Groups()).how == "done"


def test_who_shows_the_lines_may_fail(project):
    shown = []

    def show(line: str) -> None:
        shown.append(line)
        raise OSError("nobody reads")

    count = "i=0; while [ $i -lt 3000 ]; do echo a line of some forty characters $i; i=$((i+1)); done"
    (project / "work.sh").write_text(f"{count}; echo > $1\n")
    assert run_stage("a@y", project, Groups(), show).how == "done"
    assert len(shown) == 3000


def test_a_board_that_nobody_reads_falls_silent():
    code = (
        "import sys; from flows.terminal import Board; from rich.console import Console\n"
        "with Board(2) as board:\n"
        "    sys.stdin.readline()\n"
        "    Console(file=sys.stderr).print('a line of another console, as of Prefect\\'s log')\n"
        "    for _ in range(3): board.ended('pack', 'done', 1.0)\n"
        "open(sys.argv[1], 'w').write('went on')"
    )
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        running = subprocess.Popen(
            [sys.executable, "-c", code, file.name], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        running.stdout.close()
        running.stderr.close()
        running.stdin.write(b"\n")
        running.stdin.close()
        assert running.wait(60) == 0
        assert file.read() == b"went on"
