"""Shards on a Dask cluster: the same functions, the same order of results, the same bytes.

Every worker must see the project's folder under the same path (shared storage) and have the same code and the same
versions of what writes the files; each task checks both before it begins, because a worker that differs would not fail,
it would write something else. A worker that dies costs the shards that it had under way: Dask gives them to another
one, and results are fetched as they come, so that nothing finished is lost with it. Price: connecting (some 0.1 s a
stage), and a pickled function a shard.

Workers run one thread each (`dask worker <scheduler> --nthreads 1 --nworkers auto`): the work holds Python's lock.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from roberta_core.code_digest import WRITERS, code_digest
from roberta_core.errors import BadInput, TryAgain

Shard = TypeVar("Shard")
Result = TypeVar("Result")

CONNECT_S = 10.0
WORKERLESS_S = 60.0
"""Seconds that a scheduler may be without a worker before the stage ends: they may be on their way up."""

POLL_S = 2.0
SHARDS_A_THREAD = 2
"""Shards under way a thread of the cluster: one that runs, and the next, so that no worker waits for this process."""

MARK = Path(".work/cluster-mark")


def _mark() -> str:
    """A random word that lies in this project's folder: who can read it there sees this folder and no namesake."""
    if not MARK.exists():
        MARK.parent.mkdir(parents=True, exist_ok=True)
        fresh = MARK.with_name(f"{MARK.name}.{os.getpid()}.tmp")
        fresh.write_text(uuid.uuid4().hex)
        os.replace(fresh, MARK)
    return MARK.read_text()


def run_shard(function: Callable[[Shard], Result], shard: Shard, folder: str, mark: str, code: str) -> Result:
    """What a worker does: checks that it is in the same place and has the same code, then applies the function.

    Raises:
        BadInput: it is not, or has not.
    """
    here = f"The Dask worker {os.getpid()} on {os.uname().nodename}"
    if code != code_digest():
        raise BadInput(
            f"{here} has other code or other versions of {', '.join(WRITERS)} than this project.",
            "Start the workers anew, in the environment that the project runs in.",
        )
    try:
        os.chdir(folder)
        seen = MARK.read_text()
    except OSError:
        seen = ""
    if seen != mark:
        raise BadInput(
            f"{here} does not see the project's folder {folder}.",
            "Put the project and its data on storage that all workers have under the same path.",
        )
    return function(shard)


def _connect(scheduler: str):
    """A client of the scheduler.

    Raises:
        BadInput: Dask is not installed, or the address is none.
        TryAgain: nothing answers there.
    """
    try:
        import distributed
    except ImportError:
        raise BadInput(
            "runtime.dask_scheduler is set, and dask.distributed is not installed.",
            'Install it with pip install -c constraints.txt -e ".[dask]", or take the key out.',
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is raised here
    try:
        return distributed.Client(scheduler, timeout=CONNECT_S, name="roberta")
    except (OSError, TimeoutError) as error:
        raise TryAgain(
            f"The Dask scheduler {scheduler} cannot be reached ({error or type(error).__name__}).",
            "Start it with: dask scheduler; or mend runtime.dask_scheduler.",
        ) from None
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"runtime.dask_scheduler is {scheduler}, which is no address: {error}.", "Give one such as tcp://host:8786"
        ) from None


def _threads(client, scheduler: str) -> int:
    """Threads of all workers, once there is one.

    Raises:
        TryAgain: there was none for `WORKERLESS_S`.
    """
    until = time.monotonic() + WORKERLESS_S
    while not (threads := sum(client.nthreads().values())):
        if time.monotonic() > until:
            raise TryAgain(
                f"The Dask scheduler {scheduler} has had no worker for {WORKERLESS_S:.0f} s.",
                f"Start some: dask worker {scheduler} --nthreads 1 --nworkers auto",
            )
        time.sleep(0.2)
    return threads


def map_on_cluster(function: Callable[[Shard], Result], shards: Sequence[Shard], scheduler: str) -> Iterator[Result]:
    """Applies `function` to each shard on the cluster; results come in the order of the shards.

    At most `SHARDS_A_THREAD` shards a thread are submitted and not yielded. The first error of a shard is raised here,
    and the others are cancelled.

    Raises:
        BadInput: as `run_shard`; or workers died again and again over the same shard.
        TryAgain: the scheduler is away, or has no worker.
    """
    client = _connect(scheduler)
    import distributed

    called = getattr(function, "func", function).__name__
    run, mark = uuid.uuid4().hex[:12], _mark()
    waiting: dict = {}
    done: dict[int, Result] = {}
    submitted = yielded = 0
    with client:
        try:
            threads = _threads(client, scheduler)
            while yielded < len(shards):
                while submitted < min(len(shards), yielded + SHARDS_A_THREAD * threads):
                    future = client.submit(
                        run_shard,
                        function,
                        shards[submitted],
                        os.getcwd(),
                        mark,
                        code_digest(),
                        key=f"{called}-{run}-{submitted}",
                        pure=False,
                    )
                    waiting[future] = submitted
                    submitted += 1
                try:
                    distributed.wait(list(waiting), timeout=POLL_S, return_when="FIRST_COMPLETED")
                except TimeoutError:
                    threads = _threads(client, scheduler)
                for future in [each for each in waiting if each.done()]:
                    done[waiting.pop(future)] = future.result()
                while yielded in done:
                    yield done.pop(yielded)
                    yielded += 1
        except distributed.KilledWorker as error:
            raise BadInput(
                f"Dask workers died {error.allowed_failures + 1} times over "
                f"the same shard ({str(error).split(chr(10))[0][:200]}).",
                "Most often it is memory: give each worker more, or start fewer on a machine.",
            ) from None
        except (OSError, distributed.CancelledError) as error:
            if isinstance(error, OSError) and client.status == "running":
                raise  # the shard's own: a full disk, a file that cannot be read
            raise TryAgain(f"The Dask scheduler {scheduler} went away.", "Start it, and run again.") from None
        finally:
            if waiting and client.status == "running":
                client.cancel(list(waiting), force=True)
