"""The optimizers of a recipe, and their state as plain named tensors, so that a checkpoint needs no pickle."""

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from roberta_core.train.recipes import Recipe
from roberta_core.train.sharded_muon import ShardedMuon
from roberta_core.train.stable_adamw import StableAdamW


class Optimizers:
    """AdamW, StableAdamW, or Muon for the layers' matrices and AdamW for the rest, behind one interface.

    AdamW and Muon are torch's own. AdamW's fused kernel leaves out an update by a flag on the device (`found_inf`, made for
    loss scaling); the others cannot, so for them the host reads the flag, and waits for a GPU to have come that far. The same
    kernel divides the gradients (`grad_scale`), so that clipping is no pass over them of its own.

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
        constants = {"lr": recipe.peak_lr, "betas": recipe.betas, "eps": recipe.eps}
        self._all: list[torch.optim.Optimizer] = [
            StableAdamW(groups, **constants)
            if recipe.optimizer == "stable-adamw"
            else torch.optim.AdamW(groups, **constants, fused=True)
        ]
        if matrices:
            # match_rms_adamw scales Muon's update to the size of AdamW's, so one learning rate serves both (Liu et al. 2025).
            constants = {"lr": recipe.peak_lr, "weight_decay": recipe.weight_decay}
            self._all.append(
                ShardedMuon(matrices, **constants)
                if isinstance(matrices[0], DTensor)
                else torch.optim.Muon(matrices, **constants, adjust_lr_fn="match_rms_adamw")
            )

    def step(self, lr: float, bad: torch.Tensor, norm: torch.Tensor) -> None:
        """One update, or none; then gradients are dropped.

        Args:
            lr: the learning rate.
            bad: bool scalar on the device; true: the update is left out.
            norm: of all gradients, which are clipped to the recipe's `clip_norm`; a scalar on the device.
        """
        longest = self.recipe.clip_norm
        if self.recipe.optimizer == "adamw":
            self._all[0].found_inf = bad.float()
            # torch's `clip_grad_norm_` adds 1e-6 too
            self._all[0].grad_scale = ((norm + 1e-6) / longest).clamp(min=1.0) if longest else None
            left_out = False
        else:
            left_out = bool(bad)
            if longest and not left_out:
                torch.nn.utils.clip_grads_with_norm_(list(self._names), longest, norm)
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"] = lr
            if not left_out:
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
            # StableAdamW counts its steps on the host; AdamW's fused kernel wants the count beside the parameter, as all moments.
            counts = value.dim() == 0 and isinstance(owner[parameter], StableAdamW)
            held = value.clone() if counts else value.to(parameter.device).clone()
            if value.dim() and isinstance(parameter, DTensor):
                held = distribute_tensor(held, parameter.device_mesh, parameter.placements)
            owner[parameter].state[parameter][quantity] = held
