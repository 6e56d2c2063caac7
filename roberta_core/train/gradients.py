"""Gradients of all ranks become one sum while the backward pass still runs.

Three ways, one interface, so that the loop is the same for all:

- one process: nothing to do.
- replicas (`shard: none`): every rank holds the whole model. Gradients are gathered in buckets, in the order in which the
  backward pass makes them, and each full bucket is summed at once, beside the rest of the pass (Li et al. 2020, "PyTorch
  Distributed", section 3.2.3). Torch's DistributedDataParallel does the same, but takes the mean over ranks and puts its
  own name before each parameter's; the loss here is already divided by the whole batch's masked tokens.
- shards (`shard: fsdp`): torch's FSDP2. Each rank keeps a part of every weight, gradient and optimizer state; a layer is
  gathered when its turn comes. Memory a rank falls with the number of ranks; price: weights travel twice an update.
  They travel in float32 and autocast rounds them after, so that the result is that of the other two ways; a policy of
  bfloat16 parameters would halve the bytes and round layer norms and the residual stream too.

With several micro-batches, the sum is made once, in the last one.
"""

from collections.abc import Iterator

import torch
from torch import distributed, nn

from roberta_core.train.ranks import Ranks

BUCKET_BYTES = 25 << 20
"""DistributedDataParallel's default (`bucket_cap_mb`): large enough for the network, small enough to begin early."""


def shard_model(model: nn.Module, layers: nn.ModuleList, ranks: Ranks) -> None:
    """Spreads the parameters of `model` over `ranks`, in place: each of `layers` by itself, the rest together.

    All ranks hold equal weights before. Afterwards parameters are DTensors with the same names.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    for part in (*layers, model):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)  # a sum, not a mean
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no other


class Gradients:
    """The gradients of one model over `ranks`.

    Args:
        model: its parameters as they are trained: whole, or sharded by `shard_model`.
        ranks: the processes that train together.
        sharded: whether `shard_model` was applied.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, sharded: bool):
        self.model, self.ranks, self.sharded = model, ranks, sharded
        self._now = True
        self._buckets: list[list[nn.Parameter]] = []
        if ranks.world > 1 and not sharded:
            self._buckets = list(_buckets(model))
            home = {parameter: number for number, bucket in enumerate(self._buckets) for parameter in bucket}
            for parameter, number in home.items():
                parameter.register_post_accumulate_grad_hook(lambda _, number=number: self._made(number))
        self._begin()

    def _begin(self) -> None:
        self._missing = [len(bucket) for bucket in self._buckets]
        self._flying: list[tuple[list[torch.Tensor], torch.Tensor, distributed.Work]] = []

    def micro_batches(self, rows: int, most: int, largest: int) -> list[tuple[slice, bool]]:
        """How this rank's `rows` go through the model.

        Sharded ranks gather each layer together, so all of them must run the same number of times; one without rows left
        runs its first row again, for nothing.

        Args:
            rows: of this rank.
            most: rows at a time; 0: all.
            largest: rows of the rank that has most.

        Returns:
            Slices, and whether the slice counts.
        """
        most = most or largest
        parts = [(slice(start, min(start + most, rows)), True) for start in range(0, rows, most)]
        if self.sharded:
            parts += [(slice(0, 1), False)] * (-(-largest // most) - len(parts))
        return parts

    def at_rest(self) -> None:
        """Called after a pass without gradients: FSDP2 leaves what stands outside the layers gathered until a backward pass."""
        if self.sharded:
            self.model.reshard()

    def next_is_last(self, last: bool) -> None:
        """Called before each backward pass: only in the last one of an update are gradients summed."""
        self._now = last
        if self.sharded:
            self.model.set_requires_gradient_sync(last)

    def _made(self, number: int) -> None:
        """A gradient of bucket `number` is complete. Buckets start in their order, which must be the same on all ranks."""
        if not self._now:
            return
        self._missing[number] -= 1
        while len(self._flying) < len(self._buckets) and not self._missing[len(self._flying)]:
            self._start(self._buckets[len(self._flying)])

    def _start(self, bucket: list[nn.Parameter]) -> None:
        made = [parameter.grad for parameter in bucket if parameter.grad is not None]
        assert made, "a whole bucket of parameters has no part in the loss"
        flat = torch.cat([gradient.reshape(-1) for gradient in made])
        self._flying.append((made, flat, distributed.all_reduce(flat, async_op=True)))

    def finish(self, loss: torch.Tensor) -> None:
        """Waits until all gradients, and the scalar `loss`, are sums over the ranks, in place."""
        if self.ranks.world == 1:
            return
        for bucket in self._buckets[len(self._flying) :]:  # a parameter in it had no part in this loss
            self._start(bucket)
        distributed.all_reduce(loss)
        for made, flat, work in self._flying:
            work.wait()
            for gradient, summed in zip(made, flat.split([gradient.numel() for gradient in made])):
                gradient.copy_(summed.view_as(gradient))
        self._begin()


def _buckets(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """The parameters from the last to the first, which is about the order of their gradients, in parts of `BUCKET_BYTES`."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in reversed([each for each in model.parameters() if each.requires_grad]):
        bucket.append(parameter)
        size += parameter.numel() * parameter.element_size()
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
