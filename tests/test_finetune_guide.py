"""docs/finetune.md: its commands parse, its YAML validates, its tables are those of the code, and its csv becomes a model."""

import csv
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from roberta_core.atomic import read_json
from roberta_core.glue.submission import FILES
from roberta_core.own.metrics import METRICS
from tasks.averages import PUBLISHED
from tasks.params import STAGED, Params
from tasks.params_finetune import Options

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/finetune.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.S)
COMMANDS = [line.split("#")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
SECTIONS = [block for kind, block in BLOCKS if kind == "yaml"]
BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf8"))


def params_of(section: str) -> Params:
    given = yaml.safe_load(section)
    return Params.model_validate({**BASE, **{key: {**BASE.get(key, {}), **part} for key, part in given.items()}})


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("roberta ")])
def test_commands_parse(command):
    from typer.testing import CliRunner

    from flows.cli import app

    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--help"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: " ".join(text.split())[:40])
def test_sections_validate(section):
    params = params_of(section)
    for key, part in yaml.safe_load(section).items():
        taken = getattr(params, key)
        assert part and set(part) <= set(type(taken).model_fields)
        assert set(part.get("tasks", ())) <= set(taken.tasks)


def test_there_is_something_to_test():
    assert len(SECTIONS) >= 5 and "roberta glue submit glue-submission.zip" in COMMANDS


def test_ten_lines_lead_from_a_csv_to_a_served_model():
    first = GUIDE[: GUIDE.index("Without a dev file")]
    lines = [line for kind, block in re.findall(r"```(\w+)\n(.*?)```", first, re.S) for line in block.splitlines()]
    own = [line for line in lines if line.strip() not in ("finetune:", "tasks:")]  # these stand in params.yaml already
    assert len(own) <= 10 and "mlflow models serve" in own[-2] and "curl" in own[-1]


def test_links_exist():
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", GUIDE) if not link.startswith("http")]
    assert links and [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_keys_that_are_named_exist():
    known = {
        f"{kind}.{name}" for kind in ("glue", "finetune") for name in Params.model_fields[kind].annotation.model_fields
    }
    named = set(re.findall(r"`((?:glue|finetune)\.\w+)`", GUIDE))
    assert named and named - known == set()


def test_the_table_of_kinds_is_the_codes():
    rows = re.findall(r"^\| `([\w-]+)` \| .*? \| (.*?) \| .* \|$", GUIDE.split("| `kind` |")[1].split("\n\n")[0], re.M)
    assert {kind: tuple(re.findall(r"`(\w+)`", metrics)) for kind, metrics in rows} == METRICS


def test_every_kind_source_and_protocol_is_told():
    told = {
        yaml.safe_load(block)["finetune"]["tasks"][name]["kind"]
        for block in SECTIONS
        if "finetune:" in block
        for name in yaml.safe_load(block)["finetune"]["tasks"]
    }
    assert told == set(METRICS)
    for key in ("data", "protocol"):
        values = Params.model_fields["glue"].annotation.model_fields[key].annotation.__args__
        assert set(re.findall(r"^\| `(\w+)` \|", GUIDE.split(f"| `glue.{key}` |")[1].split("\n\n")[0], re.M)) == set(
            values
        )
    staged = next(params_of(block).glue for block in SECTIONS if "staged" in block)
    assert staged.protocol == "staged" and set(staged.staged) == set(STAGED)
    shown = next(yaml.safe_load(block) for block in SECTIONS if "options:" in block)
    assert set(shown["finetune"]["tasks"]["tickets"]["options"]) <= set(Options.model_fields)


def test_figures_are_those_of_the_code():
    assert f"{sum(file.rows for file in FILES):,} in all" in GUIDE and len(FILES) == 11
    assert all(line.name.split("-")[0] in GUIDE for line in PUBLISHED)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a tiny encoder, in which the guide's first section has been fine-tuned. Returns it and its params."""
    from tasks import finetune
    from tests.core.glue.tiny_encoder import WORDS, write_encoder

    root = tmp_path_factory.mktemp("guide")
    write_encoder(root / "models/encoder")
    section = yaml.safe_load(SECTIONS[0].replace("../tickets.csv", "tickets.csv"))
    task = section["finetune"]["tasks"]["tickets"]
    with open(root / "tickets.csv", "w", newline="", encoding="utf8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", task["label"], task["text"]])
        for number in range(60):
            label, said = (("billing", "not"), ("shipping", "true"))[number % 2]
            rows.writerow([number, label, f'{WORDS[number % 6]}, "good" {said}\n{number}'])
    section["glue"] = {"tasks": ["CoLA"]}
    section["runtime"] = {"device": "cpu"}
    (root / "params.yaml").write_text(yaml.safe_dump(BASE | section), encoding="utf8")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        params = params_of(yaml.safe_dump(section))
        finetune.run(params, "tickets")
    return root, params


def test_the_csv_becomes_a_model_that_answers(project):
    from roberta_core.inference import load_model

    results = read_json(project[0] / "models/tasks/tickets/results.json")
    assert results["rows"]["train"] + results["rows"]["dev"] == 60 and results["rows"]["dev"] > 0
    (answer,) = load_model(project[0] / "models/tasks/tickets").predict(["river, not true"])
    assert answer["label"] in ("billing", "shipping") and 0.5 <= answer["score"] <= 1


@pytest.mark.slow
def test_the_model_is_served_as_the_guide_says(project, monkeypatch):
    """Registered, promoted, and asked over HTTP by the guide's own lines, on a free port."""
    from tasks.promotion import promote_all
    from tasks.registry import register_all

    root, params = project
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "roberta-tickets 1" in register_all(params, root)
    promote_all(params, root)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    whole = next(line for line in COMMANDS if "mlflow models serve" in line)
    store, serve = re.fullmatch(r"MLFLOW_TRACKING_URI=(\S+) (.*) &", whole).groups()
    ask = next(line for line in COMMANDS if line.startswith("curl"))
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": store.replace("$PWD", str(root)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log = open(root / "serve.log", "wb")  # noqa: SIM115
    server = subprocess.Popen(
        [*shlex.split(serve.replace("5001", str(port)))],
        cwd=root,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while True:
            done = subprocess.run(shlex.split(ask.replace("5001", str(port))), capture_output=True, text=True)
            if done.returncode == 0 and done.stdout:
                break
            told = (root / "serve.log").read_text(encoding="utf8", errors="replace")
            assert server.poll() is None and time.monotonic() < deadline, told
            time.sleep(1)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()
    (answer,) = json.loads(done.stdout)["predictions"]
    assert answer["label"] in ("billing", "shipping")
