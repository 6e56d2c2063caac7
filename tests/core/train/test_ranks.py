"""Two ranks train as one does: the same curve, whatever the number of ranks at each resume; a lost rank is noticed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from roberta_core.errors import BadParams
from roberta_core.train.ranks import Ranks, followers
from tests.core.train.test_loop import SCRIPT
from tests.core.train.tiny_run import build


def run(folder: Path, world: int, stop: int = 0) -> None:
    """A run of `world` gloo ranks, without dropout, to the end or for `stop` updates."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    build(folder, steps=1)  # the rows, written once
    command = [sys.executable, SCRIPT, folder, "paper", "0.0", str(stop)]
    ranks = [
        subprocess.Popen(command, cwd=SCRIPT.parents[3], env=os.environ | shared | {"RANK": str(rank)})
        for rank in range(world)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0] * world


def curve(folder: Path) -> list[float]:
    history = json.loads((folder / "done" / "history.json").read_text())
    return [point["loss"] for part in ("train", "validation") for point in history[part]]


def test_two_ranks_draw_the_curve_of_one_and_may_take_turns_with_it(tmp_path):
    run(tmp_path / "one", 1)
    run(tmp_path / "two", 2)
    for world, stop in ((1, 7), (2, 9), (1, 0)):
        run(tmp_path / "turns", world, stop)
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), abs=1e-5)
    assert curve(tmp_path / "turns") == pytest.approx(curve(tmp_path / "one"), abs=1e-5)


def test_shares_cover_the_batch_once(monkeypatch):
    for world in (1, 2, 3, 7):
        taken = []
        for rank in range(world):
            ranks = Ranks(torch.device("cpu"))
            ranks.rank, ranks.world = rank, world
            taken += range(*ranks.share(16).indices(16))
        assert taken == list(range(16))


def test_more_ranks_than_sequences(tmp_path, monkeypatch):
    monkeypatch.setattr("roberta_core.train.ranks.distributed.init_process_group", lambda *args, **kwargs: None)
    monkeypatch.setenv("WORLD_SIZE", "9")
    with pytest.raises(BadParams, match="9 ranks are to share a batch of 8"):
        build(tmp_path)


def test_followers_are_started_with_their_rank_and_end_with_the_block(tmp_path):
    note = f"import os; open({str(tmp_path)!r} + '/' + os.environ['RANK'], 'w').write(os.environ['WORLD_SIZE'])"
    with followers(3, [sys.executable, "-c", note]):
        assert os.environ["RANK"] == "0" and os.environ["WORLD_SIZE"] == "3"
    assert "RANK" not in os.environ
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"1": "3", "2": "3"}


def test_a_rank_that_dies_stops_the_first_one():
    waiting = (
        "import sys, time; from roberta_core.train.ranks import followers\n"
        "with followers(2, [sys.executable, '-c', 'raise SystemExit(3)']):\n    time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", waiting], cwd=SCRIPT.parents[3], capture_output=True, timeout=50)
    assert done.returncode == -15 and b"a rank ended with 3" in done.stderr
