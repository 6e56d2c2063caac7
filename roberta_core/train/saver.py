"""Saving beside the training: the weights are copied to host memory, and a thread writes the copy while updates go on.

Training stands still for the copy alone (memory speed); hashing, writing and fsync happen in the background, in calls
that leave the interpreter free. One save is in flight at most: the next one, the end of the run and SIGTERM wait for it.
The copy's memory is kept and used again: 12 bytes a parameter with AdamW, 8 for a matrix under Muon, on rank 0.

What cannot be written (a full disk, a quota) is told in one line, and training goes on: an older checkpoint is there,
and the next try may find the disk mended. Only the weights that an average needs are not to be missed: without them the
run ends. The thread is no daemon: a run that ends by an error still lets its last save be whole.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable

import torch

from roberta_core.errors import BadInput
from roberta_core.model import RobertaForMaskedLM
from roberta_core.train.checkpoint import Checkpoints
from roberta_core.train.optimizer import Optimizers
from roberta_core.train.ranks import Ranks


class Saver:
    """Takes snapshots of one run and writes them in the background. Every rank calls it; rank 0 writes.

    Args:
        checkpoints: where to.
        model, optimizers: what is saved.
        ranks: the processes that train together; a sharded model is gathered by all of them.
        average_last: how many points `point` keeps.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        model: RobertaForMaskedLM,
        optimizers: Optimizers,
        ranks: Ranks,
        average_last: int = 0,
    ):
        self.checkpoints, self.model, self.optimizers, self.ranks = checkpoints, model, optimizers, ranks
        self.average_last = average_last
        self._copies: dict[str, torch.Tensor] = {}
        self._thread: threading.Thread | None = None
        self._trouble: OSError | None = None
        self._fatal: OSError | None = None
        self._saved_at = time.monotonic()
        self.cost_s = 0.0
        """What the newest checkpoint cost the training at most: on a GPU the copy, on a CPU, whose cores it shares, all of it."""

    def due(self, every_s: float, share: float) -> bool:
        """Whether the newest checkpoint is `every_s` old, and so old that it has cost at most `share` of the time (0: any)."""
        wait_s = max(every_s, self.cost_s / share if share else 0.0)
        return time.monotonic() - self._saved_at >= wait_s

    def save(self, step: int, state: dict | None, milestone: bool = False, point: bool = False) -> None:
        """Copies what is to be saved, and starts writing it. Waits for the save before, if that still goes on.

        Args:
            step: updates done.
            state: JSON for a checkpoint; None: no checkpoint.
            milestone: the model is kept for good.
            point: the weights are one of those that the result is the mean of.

        Raises:
            BadInput: an earlier point could not be written.
        """
        self.wait()
        began = time.monotonic()
        whole = self.ranks.whole
        weights = self._copy("weights.", self.model.saved_weights(whole))
        optimizer = {}
        if state is not None:
            held = self.optimizers.state().items()
            optimizer = self._copy("optimizer.", ((name, whole(tensor)) for name, tensor in held))
        if not self.ranks.first:
            return
        gpu = self.ranks.device.type == "cuda"
        if gpu:
            torch.cuda.current_stream().synchronize()
        config = self.model.config.to_hugging_face(self.model.architecture)
        jobs: list[tuple[str, Callable[[], None]]] = []
        if point:  # before the checkpoint: who resumes from that finds the points up to it
            jobs.append(("", lambda: self.checkpoints.save_point(step, weights, self.average_last)))
        if state is not None:
            jobs.append(
                ("checkpoint", lambda: self.checkpoints.save(step, config, weights, optimizer, state)),
            )
        if milestone:
            jobs.append(("milestone", lambda: self.checkpoints.save_milestone(step, config, weights)))
        if state is not None:
            self._saved_at = time.monotonic()
            self.cost_s = self._saved_at - began
        shared = began if state is not None and not gpu else None
        self._thread = threading.Thread(target=self._write, args=(step, jobs, shared), name="checkpoint")
        self._thread.start()

    def _copy(self, prefix: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Whole tensors in host memory that is used again by the next save; {} on ranks that do not write."""
        copied = {}
        for name, whole in tensors:
            if not self.ranks.first:  # its part in the gathering was all
                continue
            target = self._copies.get(prefix + name)
            if target is None:
                pinned = whole.device.type == "cuda"
                target = torch.empty(whole.shape, dtype=whole.dtype, pin_memory=pinned)
                self._copies[prefix + name] = target
            copied[name] = target.copy_(whole.detach(), non_blocking=True)
        return copied

    def _write(self, step: int, jobs: list[tuple[str, Callable[[], None]]], began: float | None) -> None:
        self._trouble = None
        for what, job in jobs:
            try:
                job()
            except OSError as error:
                if not what:
                    self._fatal = error
                    return
                if what == "checkpoint":
                    self._trouble = error
                print(
                    f"pretrain: the {what} of update {step} could not be written ({error.strerror or error}); "
                    f"{self._what_stays()}, and training goes on. Make room, or mend the permissions.",
                    file=sys.stderr,
                    flush=True,
                )
        if began is not None:
            self.cost_s = time.monotonic() - began

    def _what_stays(self) -> str:
        latest = self.checkpoints.latest()
        return f"the checkpoint of update {int(latest.name[5:])} stays" if latest else "there is none older"

    def wait(self) -> OSError | None:
        """Waits until nothing is in flight.

        Returns:
            Why the newest checkpoint could not be written, or None. It has been told already.

        Raises:
            BadInput: weights that the average needs could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._fatal is not None:
            raise BadInput(
                f"Weights that pretrain.average_last needs could not be written ({self._fatal.strerror}).",
                f"Make room, and run again: {self._what_stays()}.",
            )
        return self._trouble
