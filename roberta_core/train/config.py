"""The two configurations of a run: what decides its result, and what decides its speed and safety only."""

from dataclasses import dataclass

import torch

from roberta_core.train.batches import BatchPlan
from roberta_core.train.masking import Masking
from roberta_core.train.recipes import Recipe


@dataclass(frozen=True)
class TrainConfig:
    """What decides the result: part of the fingerprint. Steps are updates, sizes are sequences.

    Attributes:
        batch_from, batch_warmup_steps: the batch grows from this size over these updates; None: it does not.
        max_minutes: the run's time; the schedule follows it. None: it follows the updates.
        masking, mask_prob, mask_prob_end: of `train.masking.Masking`.
        spike_sigmas, max_skipped: of `train.guard`; after so many left out in a row the run stops.
    """

    max_steps: int
    batch_size: int
    mask_prob: float
    recipe: Recipe
    precision: str
    seed: int
    eval_every: int
    eval_rows: int
    log_every: int
    batch_from: int | None = None
    batch_warmup_steps: int = 0
    max_minutes: float | None = None
    spike_sigmas: float = 6.0
    max_skipped: int = 10
    average_last: int = 0
    masking: str = "tokens"
    mask_prob_end: float | None = None

    @property
    def objective(self) -> Masking:
        """What is masked, and how much of it."""
        return Masking(self.masking, self.mask_prob, self.mask_prob_end)

    @property
    def batches(self) -> BatchPlan:
        """The size of every batch."""
        return BatchPlan(self.batch_size, self.batch_from or self.batch_size, self.batch_warmup_steps)


@dataclass(frozen=True)
class RunConfig:
    """What decides speed and safety only.

    Attributes:
        micro_batch: sequences a forward pass; 0: the whole batch of a rank.
        checkpoint_s: seconds between two checkpoints, at least.
        checkpoint_share: more seconds, where they would cost more than this share of the run; 0: they may.
        peak_flops: FLOP/s of one rank's device, for MFU; 0 where it is not known.
        milestone_steps: every so many updates the model is kept for good; 0: never.
        shard: "none" or "fsdp"; see `train.gradients`.
    """

    device: torch.device
    micro_batch: int = 0
    compile: bool = False
    checkpoint_s: float = 120.0
    peak_flops: float = 0.0
    milestone_steps: int = 0
    shard: str = "none"
    checkpoint_share: float = 0.02
