"""A fine-tuning on the disk, in the middle: it goes on from there and ends with the same bits.

The order of the rows and dropout are pure functions of the step, so the step, the weights, the optimizer's moments and what
early stopping has seen are all there is. The files and their checks are pretraining's (`roberta_core.train.checkpoint`).
"""

import time
from dataclasses import dataclass, field

import torch
from safetensors.torch import load_file

from roberta_core.errors import BadInput
from roberta_core.finetune.masters import Masters
from roberta_core.finetune.watch import Best
from roberta_core.train.checkpoint import Checkpoints

BEST = "best."


@dataclass
class Keeper:
    """Writes the state every so many seconds, and reads it back.

    Attributes:
        checkpoints: where; their fingerprint must say all that decides the result.
        every_s: seconds between two. A fine-tuning that is over sooner writes nothing, and begins anew when it was killed.
    """

    checkpoints: Checkpoints
    every_s: float
    _last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() - self._last >= self.every_s

    def save(self, step: int, model: torch.nn.Module, masters: Masters, best: Best) -> None:
        """Writes what is needed to go on after `step` updates. Raises OSError."""
        state = {name: tensor.cpu() for name, tensor in masters.state().items()}
        state |= {BEST + name: tensor for name, tensor in best.weights.items()}
        with masters.exact():
            weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
            self.checkpoints.save(step, {}, weights, state, {"scores": best.scores})
        self._last = time.monotonic()

    def restore(self, model: torch.nn.Module, masters: Masters, best: Best) -> int:
        """Takes the newest state that is whole. Returns the updates done; 0 where there is none."""
        newest = self.checkpoints.latest()
        if newest is None:
            return 0
        try:
            tensors, state = self.checkpoints.load(newest)
        except BadInput as error:
            print(f"{error} This fine-tuning begins anew.", flush=True)
            return 0
        with masters.exact():
            model.load_state_dict(load_file(newest / "model.safetensors"))
        masters.load(tensors)
        best.scores = list(state["scores"])
        best.weights = {name.removeprefix(BEST): each for name, each in tensors.items() if name.startswith(BEST)}
        return state["step"]
