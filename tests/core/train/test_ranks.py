"""Two ranks train as one does: the same curve, whatever the number of ranks at each resume; a lost rank is noticed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from roberta_core.errors import BadParams
from roberta_core.train.ranks import Ranks, followers
from tests.core.train.tiny_run import build, make_rows

REPO = Path(__file__).parents[3]
MODULE = "tests.core.train.tiny_run"


def train(*runs: dict) -> None:
    """Makes the runs, one after the other, in a process of their own."""
    told = json.dumps([run | {"folder": str(run["folder"])} for run in runs])
    done = subprocess.run([sys.executable, "-m", MODULE, told], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def numbers(folder: Path) -> list[float]:
    history = json.loads((folder / "done" / "history.json").read_text())
    return [point["loss"] for part in ("train", "validation") for point in history[part]]


def rows_seen(folder: Path) -> list[list]:
    """The (row, epoch) of every update, over all ranks and starts, in the order of the samples."""
    seen: dict[int, list] = {}
    for file in sorted(folder.glob("rows-*.json"), key=lambda file: [int(part) for part in file.stem.split("-")[1:]]):
        for step, pairs in json.loads(file.read_text()).items():
            seen.setdefault(int(step), []).extend(pairs)
    assert sorted(seen) == list(range(len(seen)))
    return [seen[step] for step in sorted(seen)]


def weights_differ(folder: Path, other: Path) -> float:
    mine, theirs = (load_file(each / "done" / "model.safetensors") for each in (folder, other))
    return max((mine[name] - theirs[name]).abs().max().item() for name in mine)


@pytest.mark.parametrize(
    ("optimizer", "steps", "far"),
    [
        ("adamw", 12, 1e-4),
        pytest.param("adamw", 24, 1e-4, marks=pytest.mark.slow),
        pytest.param("stable-adamw", 24, 1e-4, marks=pytest.mark.slow),
        # Muon rounds directions to bfloat16, which makes more of the sums' last bits
        pytest.param("muon", 24, 2e-3, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_draw_the_curve_of_one(tmp_path, optimizer, steps, far):
    """Replicas and shards, with micro-batches of 2 of a batch of 9: 5 in one rank, 3 and 2 of two ranks."""
    alike = {
        "dropout": 0.0,
        "steps": steps,
        "batch_size": 9,
        "micro_batch": 2,
        "name": "paper",
        "optimizer": optimizer,
    }
    alike |= {"average_last": 2}
    train(
        {"folder": tmp_path / "one", **alike},
        {"folder": tmp_path / "none", "world": 2, **alike},
        {"folder": tmp_path / "fsdp", "world": 2, "shard": "fsdp", **alike},
    )
    for name in ("none", "fsdp"):
        assert numbers(tmp_path / name) == pytest.approx(numbers(tmp_path / "one"), abs=1e-5), name
        assert weights_differ(tmp_path / name, tmp_path / "one") < far
        assert rows_seen(tmp_path / name) == rows_seen(tmp_path / "one")
    flat = [tuple(pair) for update in rows_seen(tmp_path / "fsdp") for pair in update]
    assert len(flat) == len(set(flat)) == steps * 9
    in_first_epoch = sorted(row for row, epoch in flat if epoch == 0)
    rows = len(make_rows(tmp_path / "one" / "train"))
    if len(flat) > rows:
        assert in_first_epoch == list(range(rows))


@pytest.mark.parametrize("name", ["fast", pytest.param("paper", marks=pytest.mark.slow)])
def test_any_number_of_ranks_goes_on_with_the_checkpoint_of_any_other(tmp_path, name):
    alike = {"dropout": 0.0, "name": name}
    turns = [{"stop": 5}, {"world": 2, "stop": 9}, {"world": 2, "shard": "fsdp", "stop": 6}, {"stop": 4}]
    turns += [{"world": 2, "shard": "fsdp"}]
    train({"folder": tmp_path / "one", **alike}, *[{"folder": tmp_path / "turns", **alike, **turn} for turn in turns])
    assert numbers(tmp_path / "turns") == pytest.approx(numbers(tmp_path / "one"), abs=1e-5)
    assert rows_seen(tmp_path / "turns") == rows_seen(tmp_path / "one")


def test_gradients_are_summed_in_several_buckets(tmp_path, monkeypatch):
    """The tiny model fits one bucket: so here a bucket takes 64 KB."""
    alike = {"dropout": 0.0, "steps": 6}
    train(
        {"folder": tmp_path / "one", **alike},
        {"folder": tmp_path / "two", "world": 2, "bucket_bytes": 1 << 16, **alike},
    )
    assert numbers(tmp_path / "two") == pytest.approx(numbers(tmp_path / "one"), abs=1e-5)


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
    done = subprocess.run([sys.executable, "-c", waiting], cwd=REPO, capture_output=True, timeout=50)
    assert done.returncode == -15 and b"a rank ended with 3" in done.stderr
