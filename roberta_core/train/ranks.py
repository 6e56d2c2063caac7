"""Several processes that train one model: each takes its part of every batch; `train.gradients` sums what they learn.

Which row goes where is computed from the update's number, so the number of ranks may change between a kill and a resume,
and no row is seen twice or missed.

A rank is told apart by torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). On one machine
`followers` starts the other ranks itself.
"""

import datetime
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed
from torch.distributed.tensor import distribute_tensor

from roberta_core.errors import EXIT_TRY_AGAIN

GRACE_S = 30.0
TIMEOUT = datetime.timedelta(minutes=10)
"""A rank that waits longer for another one gives up: the other is gone."""


class Ranks:
    """This process among `world` that train together. With one, every method is free.

    Args:
        device: decides between nccl (GPU) and gloo (CPU).
    """

    def __init__(self, device: torch.device):
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = device
        if self.world > 1 and not distributed.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, rank=self.rank, world_size=self.world, timeout=TIMEOUT)

    @property
    def first(self) -> bool:
        """Whether this rank writes, logs and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The part of `count` things that is this rank's: contiguous, sizes differ by one at most."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def total(self, *numbers: torch.Tensor | int | float) -> torch.Tensor:
        """Each number summed over the ranks: float64 [N] on the device, which is not waited for."""
        together = torch.stack(
            [torch.as_tensor(number, dtype=torch.float64, device=self.device) for number in numbers]
        )
        if self.world > 1:
            distributed.all_reduce(together)
        return together

    def sum(self, *numbers: torch.Tensor | int | float) -> list[float]:
        """The same as Python floats."""
        return self.total(*numbers).tolist()

    def spread(self, tensors: Iterable[torch.Tensor]) -> None:
        """Gives every rank the first one's values, in place: nodes of different make may have computed other last bits."""
        if self.world > 1:
            for tensor in tensors:
                distributed.broadcast(tensor.data, 0)

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """The whole of a tensor that may be sharded among the ranks; all of them call it."""
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

    @torch.no_grad()
    def fill(self, target: torch.Tensor, whole: torch.Tensor) -> None:
        """Copies `whole` into the first rows of `target`, which may be sharded; all ranks call it."""
        if not hasattr(target, "full_tensor"):
            target[: len(whole)].copy_(whole)
            return
        full = target.full_tensor()
        full[: len(whole)].copy_(whole)
        target.copy_(distribute_tensor(full, target.device_mesh, target.placements))

    def close(self) -> None:
        """Leaves the group."""
        if self.world > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


@contextmanager
def followers(processes: int, command: list[str]) -> Iterator[None]:
    """Makes this process rank 0 of `processes` on this machine and starts the others, unless torchrun already did.

    A follower that dies ends this process too (SIGTERM), which would otherwise wait for it in vain; the followers
    end with the block.

    Args:
        processes: ranks in all; 1 starts none.
        command: what the others run.
    """
    if processes == 1 or "RANK" in os.environ:
        yield
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(1, processes)
    ]
    done = threading.Event()

    def watch(process: subprocess.Popen) -> None:
        if process.wait() and not done.is_set():
            print(f"pretrain: a rank ended with {process.returncode}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            if not done.wait(GRACE_S):  # stuck in a sum that will never be complete
                os._exit(EXIT_TRY_AGAIN)

    watchers = [threading.Thread(target=watch, args=(process,), daemon=True) for process in started]
    for watcher in watchers:
        watcher.start()
    before = {name: os.environ.get(name) for name in (*shared, "RANK", "LOCAL_RANK")}
    os.environ.update(shared | {"RANK": "0", "LOCAL_RANK": "0"})
    try:
        yield
    finally:
        done.set()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        for process in started:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
