"""What one update of a pretraining shows to the loop around it."""

from typing import NamedTuple

import torch


class Update(NamedTuple):
    """What one update shows.

    Attributes:
        loss: mean of the whole batch (nats, on the device); 0 if the update was left out.
        right, masked: right predictions and masked tokens of this rank's part, on the device.
        tokens, slots: of the whole batch, without and with padding.
        stop: whether a rank was asked to stop.
        due: whether rank 0 finds a checkpoint due.
    """

    loss: torch.Tensor
    right: torch.Tensor
    masked: torch.Tensor
    tokens: int
    slots: int
    stop: bool
    due: bool
