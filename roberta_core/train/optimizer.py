"""The optimizers of a recipe, and their state as plain named tensors, so that a checkpoint needs no pickle."""

import torch
from torch import nn

from roberta_core.train.recipes import Recipe


class Optimizers:
    """AdamW, or Muon for the layers' matrices and AdamW for the rest (torch's own, both), behind one interface.

    Args:
        model: its parameters are updated in place.
        recipe: which optimizer, and its constants.
    """

    def __init__(self, model: nn.Module, recipe: Recipe):
        self.recipe = recipe
        self._names = {parameter: name for name, parameter in model.named_parameters()}
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        matrices = [
            p for name, p in named if recipe.optimizer == "muon" and ".encoder.layer." in name and p.dim() == 2
        ]
        rest = [(name, p) for name, p in named if not any(p is each for each in matrices)]
        decayed = [p for _, p in rest if p.dim() == 2]
        plain = [p for _, p in rest if p.dim() != 2]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=recipe.betas, eps=recipe.eps, fused=True)
        ]
        if matrices:
            # match_rms_adamw scales Muon's update to the size of AdamW's, so one learning rate serves both (Liu et al. 2025).
            self._all.append(
                torch.optim.Muon(
                    matrices, lr=recipe.peak_lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )

    def step(self, lr: float) -> None:
        """One update at learning rate `lr`, then gradients are dropped."""
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        """All state, by `<parameter>.<quantity>`, for safetensors."""
        return {
            f"{self._names[parameter]}.{quantity}": torch.as_tensor(value)
            for optimizer in self._all
            for parameter, held in optimizer.state.items()
            for quantity, value in held.items()
        }

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes what `state` gave."""
        parameters = {name: parameter for parameter, name in self._names.items()}
        owner = {p: o for o in self._all for group in o.param_groups for p in group["params"]}
        for key, value in state.items():
            name, quantity = key.rsplit(".", 1)
            parameter = parameters[name]
            # AdamW counts its steps in a scalar that stays where torch made it; moments live beside their parameter.
            held = value.clone() if value.dim() == 0 else value.to(parameter.device).clone()
            owner[parameter].state[parameter][quantity] = held
