"""The task's score after every epoch: what early stopping looks at, and which epoch's weights are kept.

The paper picks the epoch on the dev rows that it reports (Liu et al. 2019, section 5.1), and so does this: such a score
flatters, the more so on a small dev set, and its protocol says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from roberta_core.errors import BadInput
from roberta_core.finetune.rows import Rows


@dataclass(frozen=True)
class Watch:
    """Dev rows, and the score (higher is better) of the outputs that the objective gives for them."""

    rows: Rows
    score: Callable[[Sequence[np.ndarray]], float]


@dataclass
class Best:
    """The epochs scored so far, and the weights of the best one.

    Attributes:
        scores: one an epoch.
        weights: of the best epoch, on the CPU.
    """

    scores: list[float] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def take(self, task: str, score: float, model: torch.nn.Module) -> None:
        """Notes an epoch's score, and its weights where it is better than all before.

        Raises:
            BadInput: the score is not a number.
        """
        if not np.isfinite(score):
            raise BadInput(
                f"{task}: the score on dev is {score} after epoch {len(self.scores) + 1}.",
                "The metric is undefined for these labels and predictions; choose another one, or give more dev rows.",
            )
        if not self.scores or score > max(self.scores):
            self.weights = {name: each.detach().cpu().clone() for name, each in model.state_dict().items()}
        self.scores.append(score)

    def exhausted(self, patience: int) -> bool:
        """Whether the last `patience` epochs brought nothing; never with 0."""
        return 0 < patience < len(self.scores) - int(np.argmax(self.scores or [0]))
