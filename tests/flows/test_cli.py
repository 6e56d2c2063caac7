"""`roberta` as a user meets it: processes, exit codes, one line an error."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import REPO, dvc
from .listeners import addresses as addresses_of
from .test_process import alive, wait_until

ROBERTA = [sys.executable, "-m", "flows.cli"]


def roberta(folder, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(REPO), "COLUMNS": "200"} | environment
    return subprocess.run([*ROBERTA, *arguments], cwd=folder, capture_output=True, text=True, env=env, timeout=300)


def one_line(done: subprocess.CompletedProcess) -> str:
    """The only line of the error output, which has no traceback."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("roberta: ")
    return lines[0]


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys, flows.cli\n"
        "try: flows.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'prefect', 'dvc', 'numpy', 'pyarrow', 'pydantic', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    # the process's own time: a busy machine does not count
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0, done.stderr
    commands = "run stage status predict fill ui report models compare promote rollback lineage evaluate"
    for command in commands.split():
        assert f" {command} " in done.stdout
    assert after.children_user - before.children_user < 0.5


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["stage", "dedupe"], "There is no stage dedupe. There are: a@x, a@y, b, c, d."),
        (["predict", "models/none", "x"], "models/none is no model folder: it has no readable config.json."),
    ],
)
def test_a_user_error_is_one_line(project, arguments, told):
    done = roberta(project, *arguments)
    assert done.returncode == 1
    assert told in one_line(done)


def test_outside_a_project_and_with_a_wrong_key(project, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "There is no dvc.yaml in" in one_line(roberta(empty, "status"))
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("min_chars: 200", "min_char: 200"))
    done = roberta(project, "run")
    assert done.returncode == 1
    line = one_line(done)
    assert "unknown key clean.min_char; did you mean min_chars?" in line and "params.yaml" in line
    assert "Traceback" in roberta(project, "--debug", "run").stderr


def test_a_prefect_server_that_is_away_is_one_line_at_once(project):
    done = roberta(project, "run", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 75
    assert "Prefect's server at http://127.0.0.1:9/api does not answer" in one_line(done)


def test_status_says_what_is_stale_and_that_nothing_is_registered(project):
    dvc(project, "repro", "-s", "c")
    printed = roberta(project, "status").stdout
    assert "4 of 5 stages are stale:" in printed
    assert "a@x: has not run yet" in printed
    assert "No model is registered yet." in printed
    assert not (project / "mlflow.db").exists()


def test_stage_runs_one_stage(project):
    done = roberta(project, "stage", "a@y")
    assert done.returncode == 0
    assert "working on a-y" in done.stdout and "a@y: done" in done.stdout
    assert (project / "a-y").read_text() == "a-y\n"


@pytest.fixture
def server(prefect_server):
    """The address of a Prefect server that is up: quicker than one embedded in each run, and the other way to run."""
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value()


def test_run_to_the_end_and_again(project, server):
    done = roberta(project, "run", "--no-publish", PREFECT_API_URL=server)
    assert done.returncode == 0, done.stderr
    assert "a@x: started" in done.stdout and "✓ d: done" in done.stdout
    again = roberta(project, "run", "--no-publish", PREFECT_API_URL=server)
    assert again.returncode == 0
    assert "[5/5] · d: up to date" in again.stdout and "Everything is up to date." in again.stdout
    assert done.stderr == again.stderr == ""


def test_a_failing_stage_is_one_line_and_an_exit_code(project, server):
    (project / "work.sh").write_text('echo "$1: no ink left. Fill it." >&2; exit 3')
    done = roberta(project, "run", "--no-publish", PREFECT_API_URL=server)
    assert done.returncode == 1
    # both fail side by side; the first one's line is told
    assert re.search(
        r"no ink left\. Fill it\. \(log: logs/a-[xy]\.log\) And 1 more failed, see above\.$", one_line(done)
    )
    assert "– b: not run" in done.stdout


def test_sigterm_ends_the_run_its_stages_and_the_second_run_is_refused(project, server):
    (project / "work.sh").write_text("echo $$ > pid-$1; sleep 300")
    env = os.environ | {"PYTHONPATH": str(REPO), "PREFECT_API_URL": server}
    command = [*ROBERTA, "run", "--no-publish"]
    running = subprocess.Popen(
        command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pids = [project / "pid-a-x", project / "pid-a-y"]
    try:
        for pid in pids:
            assert wait_until(lambda pid=pid: pid.exists() and pid.read_text().strip(), 60)
        second = roberta(project, "run", "--no-publish", PREFECT_API_URL=server)
        assert second.returncode == 75
        assert f"Another run is going on in this folder (process {running.pid})" in one_line(second)
        assert "A run is going on" in roberta(project, "status").stdout
    finally:
        running.send_signal(signal.SIGTERM)
        _, told = running.communicate(timeout=60)
    assert running.returncode == 75
    assert told.strip() == "roberta: Stopped; its stages have ended too. Run again to go on."
    assert not any(alive(int(pid.read_text())) for pid in pids)


def heed_ctrl_c() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_is_one_line_and_leaves_nothing_behind(project):
    """A terminal sends it to every process in front, Prefect's server too, unless that stands apart."""
    import fcntl
    import pty
    import termios
    import threading

    (project / "work.sh").write_text("echo sleeping\nexec sleep 300\n")

    def in_front() -> None:
        heed_ctrl_c()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW"))}
    running = subprocess.Popen(
        [*ROBERTA, "run"], cwd=project, env=env | {"PYTHONPATH": str(REPO), "TERM": "xterm"}, stdin=theirs, stdout=theirs,
        stderr=theirs, start_new_session=True, preexec_fn=in_front,
    )  # fmt: skip
    shown = bytearray()

    def read() -> None:
        try:
            while part := os.read(ours, 1 << 16):
                shown.extend(part)
        except OSError:  # how Linux says that a terminal's other end is closed
            pass

    threading.Thread(target=read, daemon=True).start()
    try:
        assert wait_until(lambda: b"sleeping" in shown, 90)
        # the server that Prefect starts for the run is a descendant
        assert addresses_of(running.pid) == {"127.0.0.1"}
        os.write(ours, b"\x03")
        assert running.wait(60) == 75
        assert wait_until(lambda: b"roberta: Stopped; its stages have ended too. Run again to go on." in shown, 5)
        assert b"Traceback" not in shown and b"ERROR" not in shown
        assert shown.rfind(b"\x1b[?25l") < shown.rfind(b"\x1b[?25h"), "the cursor is hidden"
        assert termios.tcgetattr(theirs) == before
    finally:
        running.kill()
        running.wait()
        os.close(theirs)


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    below, todo = [], [pid]
    while todo:
        for tasks in (Path("/proc") / str(todo.pop()) / "task").glob("*/children"):
            found = [int(child) for child in tasks.read_text().split()]
            below += found
            todo += found
    return below


@pytest.mark.slow
def test_sigkill_of_the_run_ends_its_stages_and_prefects_server(project):
    (project / "work.sh").write_text("echo $$ > pid-$1; sleep 300")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW"))}
    running = subprocess.Popen(
        [*ROBERTA, "run", "--no-publish"], cwd=project, env=env | {"PYTHONPATH": str(REPO)}, stdout=subprocess.DEVNULL
    )
    try:
        assert wait_until(lambda: (project / "pid-a-x").exists() and (project / "pid-a-x").read_text().strip(), 120)
        below = descendants(running.pid)
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below if alive(pid)]
        assert any(b"uvicorn" in command for command in commands), commands
    finally:
        running.kill()
        running.wait()
    assert wait_until(lambda: not any(map(alive, below)), 60), [pid for pid in below if alive(pid)]


@pytest.mark.slow
def test_ui_starts_both_pages_and_ends_them(project):
    import urllib.request

    env = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW"))}
    running = subprocess.Popen(
        [*ROBERTA, "ui"], cwd=project, env=env | {"PYTHONPATH": str(REPO)}, stdout=subprocess.PIPE, text=True,
        preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    lines = []
    try:
        while len(lines) < 3:
            lines.append(running.stdout.readline().strip())
        addresses = {line.split(": ")[0]: line.split(": ")[1] for line in lines[:2]}
        for page, word in (("MLflow", "MLflow"), ("Prefect", "Prefect")):
            with urllib.request.urlopen(addresses[page], timeout=10) as answer:
                assert word in answer.read().decode()
        assert addresses_of(running.pid) == {"127.0.0.1"}
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
    time.sleep(0.2)
    for address in addresses.values():
        with pytest.raises(OSError):
            urllib.request.urlopen(address, timeout=2)
