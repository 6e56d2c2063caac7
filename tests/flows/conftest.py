import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


def dvc(root: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


PIPELINE = """\
stages:
  a:
    foreach:
      - x
      - y
    do:
      cmd: sh work.sh a-${item}
      deps:
        - work.sh
      params:
        - clean.min_chars
      outs:
        - a-${item}
  b:
    cmd: cat a-x a-y > b
    deps:
      - a-x
      - a-y
    outs:
      - b
  c:
    cmd: echo c > c
    params:
      - seed
    outs:
      - c
  d:
    cmd: cat b c > d
    deps:
      - b
      - c
    outs:
      - d
"""

# a-x ends after a-y, so that the order of ending is not the plan's
WORK = """\
if [ "$1" = a-x ]; then sleep 0.8; fi
echo working on $1
echo $1 > $1
"""


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """An empty git and DVC repository; making one takes a second."""
    folder = tmp_path_factory.mktemp("template")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc(folder, "init", "-q")
    shutil.copy(REPO / "params.yaml", folder)
    (folder / ".gitignore").write_text("/.work/\n/logs/\n/a-*\n/b\n/c\n/d\n")
    return folder


@pytest.fixture
def project(template, tmp_path) -> Path:
    """A project with five trivial stages, two and two of which may run side by side."""
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "work.sh").write_text(WORK)
    return folder


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    """Real Prefect on a temporary database, started once."""
    from flows.settings import prepare

    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    prepare(REPO, terminal=True)
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
