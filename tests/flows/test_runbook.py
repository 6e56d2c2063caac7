"""docs/operations.md: its commands are real ones, and its incident ends as it says, on the real chain at tiny size."""

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from tests.test_chain import clone
from tests.test_chain import roberta as roberta_in
from tests.test_chain import run as command

from .conftest import REPO
from .test_process import wait_until
from .test_remotes import git

GUIDE = (REPO / "docs" / "operations.md").read_text(encoding="utf8")
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.S)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]


def words(line: str) -> list[str]:
    """A command's words, without the variables set before it."""
    return [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]


@pytest.mark.parametrize("line", [line for line in COMMANDS if words(line)[0] == "roberta"])
def test_commands_of_the_guide_parse(line):
    from typer.testing import CliRunner

    from flows.cli import app

    done = CliRunner().invoke(app, [*words(line)[1:], "--help"])
    assert done.exit_code == 0, done.output


def test_the_set_up_is_ten_commands_and_the_deployments_are_those_of_prefect_yaml():
    setup = re.search(r"## Set up, in ten commands\n\n```sh\n(.*?)```", GUIDE, re.S)[1]
    assert len(setup.strip().splitlines()) == 10
    named = set(re.findall(r"^\| `([a-z-]+)` \|", GUIDE, re.M))
    file = yaml.safe_load((REPO / "prefect.yaml").read_text(encoding="utf8"))
    assert {each["name"] for each in file["deployments"]} <= named


def test_files_and_tests_that_the_guide_names_exist():
    paths = re.findall(r"`((?:flows|tasks|tests|docs)/[\w./]+\.\w+)`", GUIDE)
    assert paths and [path for path in paths if not (REPO / path).is_file()] == []


def batch_job(tmp_path, ends_with: int, stop: bool) -> tuple[int, str]:
    """Runs the guide's Slurm job with a run that saves on SIGTERM, and returns its exit code and what was queued again."""
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", GUIDE, re.S)[1]
    (tmp_path / "job.sh").write_text(script)
    fakes = {
        "roberta": f"trap 'sleep 0.3; touch saved; exit 75' TERM; touch started; "
        f"{'while true; do sleep 0.05; done' if stop else f'exit {ends_with}'}",
        "scontrol": 'echo "$@" >> queued',
    }
    for name, body in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=env)
    if stop:
        assert wait_until((tmp_path / "started").exists, 30)
        job.terminate()
    code = job.wait(60)
    assert (tmp_path / "saved").exists() == stop
    return code, (tmp_path / "queued").read_text().strip() if (tmp_path / "queued").exists() else ""


@pytest.mark.parametrize(
    "ends_with, stop, wanted",
    [(0, True, (75, "requeue 17")), (75, False, (75, "requeue 17")), (0, False, (0, "")), (1, False, (1, ""))],
)
def test_the_slurm_job_queues_itself_again_when_it_was_stopped(tmp_path, ends_with, stop, wanted):
    assert batch_job(tmp_path, ends_with, stop) == wanted


GOOD = "The function returns the number of {} in the list, or zero where there is none at all of them.\n"
BAD = "AAAA {} buy now, the best of offers, click here and here and here for more of the offers {}.\n"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_bad_model_was_promoted(tmp_path, monkeypatch):
    """Rolled back; the data behind it found; the source dropped; rebuilt, without what does not depend on it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = clone(tmp_path / "project")
    notes = root / "notes"
    notes.mkdir()
    for number in range(60):
        (notes / f"{number}.txt").write_text("".join(GOOD.format(f"{number} {line}") for line in range(9)))
    given = yaml.safe_load((root / "params.yaml").read_text())
    given["corpus"]["sources"]["notes"] = {"kind": "files", "path": "notes"}
    given["pretrain"]["max_steps"] = 10
    given["glue"] |= {"tasks": ["CoLA"], "max_steps": 10}
    (root / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))

    def week(name: str) -> None:
        roberta_in(root, "run")
        git(root, "add", "-A")
        git(root, "commit", "-qm", name)

    week("one")
    for number in range(60, 160):
        (notes / f"{number}.txt").write_text("".join(BAD.format(number, f"{number}{line}") for line in range(9)))
    week("two")
    roberta_in(root, "promote", "roberta-cola", "2", "--why", "the numbers look fine")

    told = roberta_in(root, "rollback", "roberta-cola", "--why", "calls everything acceptable")
    assert told.startswith("roberta-cola 1 promoted: rolled back to it")
    assert "download@notes" in roberta_in(root, "lineage", "models:/roberta-cola/2", "--html")
    assert "<svg" in (root / "reports/lineage.html").read_text()
    told = roberta_in(root, "data", "diff", "HEAD~1", "HEAD")
    rows = {line.split()[0]: line for line in told.splitlines() if line.strip()}
    assert "60 -> 160" in rows["notes"] and "the same bytes" in rows["python-docs"]
    told = roberta_in(root, "lineage", "notes")
    assert "roberta-cola 2" in told and "roberta-cola 1" in told and "roberta-encoder 2" in told

    del given["corpus"]["sources"]["notes"]
    (root / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    shutil.rmtree(notes)
    told = roberta_in(root, "run")
    assert "· clean@python-docs: up to date" in told and "✓ pretrain: done" in told
    assert "notes" not in roberta_in(root, "lineage", "models:/roberta-cola/3")
    assert "roberta-cola 3" not in roberta_in(root, "lineage", "notes")
    entries = [json.loads(line) for line in (root / "promotions.jsonl").read_text().splitlines()]
    cola = [(each["version"], each["how"]) for each in entries if each["name"] == "roberta-cola"]
    assert cola[:3] == [("1", "gate"), ("2", "hand"), ("1", "rollback")]
    assert "Everything is up to date" in command(root, "python", "-m", "flows.cli", "status")
