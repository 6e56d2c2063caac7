"""Muon for matrices that are sharded among ranks: each is gathered, orthogonalised whole, and updated where it lies.

Torch's Muon accepts sharded matrices, but its products then sum in bfloat16 over parts, in another order: after three
updates of a tiny model the weights differ by 5e-3 from those of one process. Momentum is elementwise and stays
sharded; only the direction of an update travels. Every rank orthogonalises every matrix, as replicas do.

The orthogonalising itself is torch's own: a Muon without momentum and decay, whose parameter is a zero.
"""

from collections.abc import Iterable

import torch
from torch.distributed.tensor import distribute_tensor


class ShardedMuon(torch.optim.Optimizer):
    """`torch.optim.Muon` with Nesterov momentum and `match_rms_adamw`, for DTensors.

    Args:
        params: matrices, sharded.
        lr: learning rate.
        weight_decay: decoupled.
        momentum: torch's default.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(momentum, group["momentum"]).full_tensor()
                change = distribute_tensor(
                    _orthogonal_step(direction, group["lr"]),
                    parameter.device_mesh,
                    parameter.placements,
                    src_data_rank=None,  # all ranks have it whole: nothing to send
                )
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(change)


def _orthogonal_step(direction: torch.Tensor, lr: float) -> torch.Tensor:
    """What Muon adds to a matrix for `direction` [M, N]; momentum and decay are not its business here."""
    zero = torch.nn.Parameter(torch.zeros_like(direction))
    zero.grad = direction
    torch.optim.Muon(
        [zero], lr=lr, weight_decay=0.0, momentum=0.0, nesterov=False, adjust_lr_fn="match_rms_adamw"
    ).step()
    return zero.detach()
