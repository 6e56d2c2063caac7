"""A killed run ends in the same bits as an undisturbed one: weights and logged numbers, resumed twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.train.tiny_run import BATCH, STEPS, make_rows

REPO = Path(__file__).parents[3]


def trials(folder, name: str, count: int) -> list[dict]:
    """Each: a kill, a resume from there to the end; and a second resume, killed again, and then to the end."""
    command = [sys.executable, "-m", "tests.core.train.killed_run", folder, name, str(count)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_epoch_ends_inside_the_run(tmp_path):
    rows = len(make_rows(tmp_path))
    assert rows < BATCH * STEPS and rows % BATCH, "no batch holds the end of one epoch and the start of the next"


@pytest.mark.parametrize("name", ["paper", pytest.param("fast", marks=pytest.mark.slow)])
def test_killed_twice_ends_in_the_same_bits(tmp_path, name):
    (told,) = trials(tmp_path, name, 1)
    assert told["same"] == [True, True], told


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["paper", "fast"])
def test_killed_at_twenty_moments(tmp_path, name):
    told = trials(tmp_path, name, 20)
    assert len(told) == 20 and all(each["same"] == [True, True] for each in told), told
    kills = [kill for each in told for kill in each["kills"]]
    assert sum(kill["writing"] for kill in kills) >= 5, "too few kills came while a checkpoint was written"
    assert len({kill["step"] for kill in kills}) >= 10, kills
    boundary = len(make_rows(tmp_path / "whole" / "train")) // BATCH
    assert min(kill["step"] for kill in kills) < boundary < max(kill["step"] for kill in kills)
