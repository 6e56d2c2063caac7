"""What README says can be done: commands that exist, a corpus that validates, files and presets that are there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tasks.params import Params
from tasks.params_file import load_params

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
COMMANDS = [line.split("#")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
COMMANDS = [line for line in COMMANDS if line]


def test_there_is_something_to_test():
    assert {"make run", "make test"} <= set(COMMANDS) and len(COMMANDS) > 8


def test_the_two_commands_come_first_and_in_the_promised_order():
    """What it is, the two commands, what one sees, one's own text, roberta-base on GPUs."""
    wanted = [
        "# Make a RoBERTa",
        "## Two commands",
        "## What you see",
        "## Your own text",
        "## To roberta-base on a GPU",
    ]
    places = [README.index(f"{title}\n") for title in wanted]
    assert places == sorted(places)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_make_targets_exist(command):
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(encoding="utf8"), re.M)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("roberta ")])
def test_roberta_commands_parse(command):
    """The command line takes these words; `--help` behind them stops it from acting."""
    from typer.testing import CliRunner

    from flows.cli import app

    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--help"])
    assert done.exit_code == 0, done.output


def test_the_corpus_of_the_readme_validates():
    given = [yaml.safe_load(block) for kind, block in BLOCKS if kind == "yaml"]
    assert given
    for part in given:
        params = load_params(ROOT / "params.yaml").model_dump() | part
        assert set(Params.model_validate(params).corpus.sources) == set(part["corpus"]["sources"])


def test_presets_in_the_table_are_the_presets():
    named = set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\| `.*?\|", README, re.M)))) & {
        path.stem for path in (ROOT / "presets").glob("*.yaml")
    }
    assert named == {path.stem for path in (ROOT / "presets").glob("*.yaml")}


def test_files_that_are_linked_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links and [link for link in links if not (ROOT / link).exists()] == []
