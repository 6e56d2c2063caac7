"""The one way that work fans out over shards.

`map_shards(function, shards, workers)` yields the results in the order of the shards, whatever the number of workers,
so that an output never depends on it. `function` must be importable (a module-level function or a `functools.partial`
of one) and should return something small: the bulk goes to files. Shards go to processes of this machine, or, inside
`on_cluster`, to the workers of a Dask scheduler (`roberta_core.cluster`); who calls `map_shards` need not know.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from roberta_core.arrow_alone import keep_pandas_out

Shard = TypeVar("Shard")
Result = TypeVar("Result")

_scheduler = ""
"""Address of the Dask scheduler that this process gives its shards to; "" for none."""


@contextmanager
def on_cluster(scheduler: str) -> Iterator[None]:
    """Within the block, shards go to the workers of this Dask scheduler; "" changes nothing."""
    global _scheduler
    before, _scheduler = _scheduler, scheduler or _scheduler
    try:
        yield
    finally:
        _scheduler = before


def worker_count(workers: int) -> int:
    """`workers`, or the number of usable cores where it is 0."""
    return workers or len(os.sched_getaffinity(0))


def _start_method() -> str:
    """`fork` from a process that has nothing but this thread, and `forkserver` from any other.

    A fork has what the stage has imported, at once; from the fork server every worker imports it anew, half a second a
    worker and stage. But a fork beside other threads has their locks and not the threads to open them; torch's threads are
    not Python's, so they are asked for by name. Those of numpy's OpenBLAS and of Arrow are made for forks.
    """
    return "fork" if threading.active_count() == 1 and "torch" not in sys.modules else "forkserver"


def _begin_worker() -> None:
    """Makes this process a worker: a forked one has the handlers of the stage. Ends it when the process that began the
    work is gone, which by SIGKILL leaves its workers waiting for ever."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_pandas_out()
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def map_shards(
    function: Callable[[Shard], Result], shards: Iterable[Shard], workers: int, here: bool = False
) -> Iterator[Result]:
    """Applies `function` to each shard on `workers` processes (0: one a core); results come in the order of the shards.

    With one worker, or one shard, everything happens in this process. At most two shards a worker are under way, so
    memory is bounded by the shards in flight. An error in a shard is raised here; the shards not begun are dropped, and
    the workers that have others under way are killed before it is raised.

    Args:
        here: stay on this machine, cluster or not: the function reads what only this machine has.
    """
    shards = list(shards)
    if _scheduler and not here and len(shards) > 1:
        from roberta_core.cluster import map_on_cluster

        yield from map_on_cluster(function, shards, _scheduler)
        return
    count = min(worker_count(workers), len(shards))
    if count <= 1:
        yield from map(function, shards)
        return
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context(_start_method())
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker) as pool:
        waiting = []
        try:
            for shard in shards:
                waiting.append(pool.submit(function, shard))
                if len(waiting) >= 2 * count:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        except BaseException:
            # They must be gone before the caller removes what they write into; and a stop must not wait for a shard.
            for worker in set(multiprocessing.active_children()) - before:
                worker.kill()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
