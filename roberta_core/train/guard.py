"""Updates that would spoil a run are left out: a loss or a gradient that is not a number, or a loss that jumps.

A jump is a loss of more than `sigmas` standard deviations above the mean of the last 128 accepted ones, once there are 64
of them (the rule, its window and its 6 sigmas as in OLMo-core's `SkipStepOptimizer`; there it is two-sided, counts
refused losses into the window, and looks at the gradient norm's jumps too, which clipping already bounds). Refused losses
stay out of the window here, so a run whose weights are spoilt does not get used to it: it stops after some in a row.

Everything is a handful of operations on scalars that stay on the device: judging does not wait for a GPU. Loss and norm
are sums over all ranks, so every rank judges alike. A run that is never disturbed gets the same bits as without a guard.
"""

import torch

WINDOW = 128
"""Accepted losses that are remembered (OLMo-core's `rolling_interval_length`)."""
LEAST_SPREAD = 1e-3
"""Nats: a loss that hardly moves at all makes no jump of every ripple."""


class Guard:
    """Judges updates, and remembers what was accepted.

    Args:
        device: where the losses are.
        sigmas: a loss this many standard deviations above the mean is a jump; 0 leaves jumps alone.
        state: what `state` gave, to go on from.
    """

    def __init__(self, device: torch.device, sigmas: float, state: dict | None = None):
        self.sigmas = sigmas
        state = state or {"losses": [0.0] * WINDOW, "accepted": 0, "skipped": 0, "in_row": 0, "norm": 0.0}
        self.losses = torch.tensor(state["losses"], dtype=torch.float32, device=device)
        self.norm = torch.tensor(state["norm"], dtype=torch.float32, device=device)  # of the last accepted update
        self.accepted, self.skipped, self.in_row = (
            torch.tensor(state[name], device=device) for name in ("accepted", "skipped", "in_row")
        )
        self._places = torch.arange(WINDOW, device=device)

    def limit(self) -> torch.Tensor:
        """The highest loss that is no jump, float32 scalar; infinite while too few losses are known."""
        known = self._places < self.accepted
        count = known.sum().clamp(min=2)
        mean = self.losses.sum() / count
        spread = (((self.losses - mean) * known).square().sum() / (count - 1)).sqrt().clamp(min=LEAST_SPREAD)
        return torch.where(self.accepted >= WINDOW // 2, mean + self.sigmas * spread, torch.inf)

    def judge(self, loss: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """Whether the update of this loss (nats) and gradient norm, both scalars, is to be left out: bool scalar."""
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        if self.sigmas:
            bad |= loss > self.limit()
        place = self._places == self.accepted % WINDOW
        self.losses = torch.where(place & ~bad, loss, self.losses)
        self.norm = torch.where(bad, self.norm, norm)
        self.accepted = self.accepted + ~bad
        self.skipped = self.skipped + bad
        self.in_row = torch.where(bad, self.in_row + 1, 0)
        return bad

    def state(self) -> dict:
        """For checkpoints, as JSON values; float32 comes back to the bit."""
        return {
            "losses": self.losses.tolist(),
            "accepted": self.accepted.item(),
            "skipped": self.skipped.item(),
            "in_row": self.in_row.item(),
            "norm": self.norm.item(),
        }
