"""Shards on a real Dask cluster on this machine: a scheduler and two workers, each a process; killed ones cost their shard."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="dask.distributed is an extra: pip install -e '.[dask]'")

from roberta_core import cluster
from roberta_core.errors import BadInput, TryAgain
from roberta_core.executor import map_shards, on_cluster
from tests.core.dask_cluster import Cluster, free_port

SLEEP_S = 0.15


@pytest.fixture
def dask(tmp_path):
    running = Cluster(tmp_path)
    yield running
    running.close()


def squared(number: int, seen: Path, sleep_s: float = 0.0) -> tuple[int, int]:
    """Tells who worked on what, and when it began."""
    (seen / f"{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(sleep_s)
    if number == 13:
        raise BadInput("The number 13 is bad.", "Take another.")
    return number * number, os.getpid()


@pytest.fixture
def seen(tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "seen").mkdir(parents=True)
    monkeypatch.chdir(project)
    return project / "seen"


def test_no_scheduler_no_worker_and_no_address_are_one_line(seen, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    for address, error, told in (
        (f"tcp://127.0.0.1:{free_port()}", TryAgain, "cannot be reached .* Start it with: dask scheduler"),
        ("nosuch://x", BadInput, "runtime.dask_scheduler is nosuch://x, which is no address"),
    ):
        with pytest.raises(error, match=told) as caught, on_cluster(address):
            list(map_shards(partial(squared, seen=seen), range(4), 1))
        assert type(caught.value) is error
    with on_cluster(f"tcp://127.0.0.1:{free_port()}"):
        assert [value for value, _ in map_shards(partial(squared, seen=seen), range(4), 1, here=True)] == [0, 1, 4, 9]
        assert list(map_shards(partial(squared, seen=seen), [3], 1)) == [(9, os.getpid())], "one shard stays here"


def test_a_worker_elsewhere_or_with_other_code_is_refused(seen):
    mark = cluster._mark()
    assert mark == cluster._mark()
    call = partial(cluster.run_shard, len, "abc")
    assert call(os.getcwd(), mark, cluster.code_digest()) == 3
    with pytest.raises(BadInput, match=r"other code or other versions .* Start the workers anew"):
        call(os.getcwd(), mark, "0" * 64)
    for folder in ("/nowhere", os.getcwd()):
        with pytest.raises(BadInput, match="does not see the project's folder"):
            call(folder, "another", cluster.code_digest())


@pytest.mark.slow
def test_a_killed_worker_costs_its_shard(dask, seen):
    dask.add_worker()
    dask.add_worker()
    killed = []

    def kill_one() -> None:
        """Kills the worker that began last, in the middle of its shard."""
        while len(begun := list(seen.iterdir())) < 12:
            time.sleep(0.01)
        newest = max(begun, key=lambda each: int(each.name.split("-")[2]))
        killed.append(int(newest.name.split("-")[1]))
        time.sleep(SLEEP_S / 3)
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with on_cluster(dask.address):
        results = list(map_shards(partial(squared, seen=seen, sleep_s=SLEEP_S), range(100, 140), 1))
    killer.join()
    assert killed[0] in {each.pid for each in dask.workers}
    assert [value for value, _ in results] == [number * number for number in range(100, 140)]
    begun = [each.name.split("-")[0] for each in seen.iterdir()]
    again = {number for number in begun if begun.count(number) > 1}
    assert len(again) == 1, "the shard that was under way on the worker that was killed, and no other"
    assert len({pid for _, pid in results}) == 2


@pytest.mark.slow
def test_an_error_in_a_shard_reaches_the_caller_and_ends_the_rest(dask, seen):
    dask.add_worker()
    with pytest.raises(BadInput, match="The number 13 is bad"), on_cluster(dask.address):
        list(map_shards(partial(squared, seen=seen), range(200), 1))
    assert len(list(seen.iterdir())) < 40, "at most two shards a thread are under way"


@pytest.mark.slow
def test_a_cluster_that_goes_away_is_for_another_try(dask, seen, monkeypatch):
    monkeypatch.setattr(cluster, "WORKERLESS_S", 1.0)
    with on_cluster(dask.address):
        with pytest.raises(TryAgain, match=r"has had no worker for 1 s. Start some: dask worker"):
            list(map_shards(partial(squared, seen=seen), range(4), 1))
        dask.add_worker()
        work = map_shards(partial(squared, seen=seen, sleep_s=SLEEP_S), range(100, 200), 1)
        monkeypatch.setattr(cluster, "WORKERLESS_S", 60.0)
        assert next(work)[0] == 10_000
        monkeypatch.setattr(cluster, "WORKERLESS_S", 1.0)
        dask.workers[0].kill()
        with pytest.raises(TryAgain, match="has had no worker"):
            list(work)
        monkeypatch.setattr(cluster, "WORKERLESS_S", 60.0)
        dask.add_worker()
        work = map_shards(partial(squared, seen=seen, sleep_s=SLEEP_S), range(100, 200), 1)
        assert next(work)[0] == 10_000
        dask.processes[0].kill()
        with pytest.raises(TryAgain, match=r"The Dask scheduler tcp://.* went away|cannot be reached"):
            list(work)
