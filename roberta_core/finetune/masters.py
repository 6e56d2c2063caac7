"""The weights under training, side by side in one float32 tensor a parameter group.

A short batch of a small model costs less in arithmetic than in the number of operations. Weight by weight, an update casts
each matrix to bfloat16 and its gradient back, takes its norm, scales it, and hands it to AdamW: some 300 operations. Here
all weights of a group are views of one flat tensor (the masters), with one flat gradient: norm, clipping and AdamW are
one operation each. In bfloat16 the model holds copies of its linear maps in that type, rounded once after each update.

The numbers are those of autocast over single weights (but for the order of the norm's sum): it rounds the same maps, and their
gradients come in bfloat16 there too. All that is not a linear map (embeddings, layer norms) is trained in float32 itself.
The price: a gradient is copied to its place, and the rounded copies take half the space of the maps.

Of the word embeddings, a batch touches some hundred rows of thousands. On a CPU their gradient comes as these rows alone and is
added up in its place, where the rows of the update before are cleared: same numbers, without two passes over a table of zeros.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

BETAS, EPS = (0.9, 0.98), 1e-6
"""RoBERTa's AdamW (arXiv 1907.11692, section 3.1)."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What torch's AdamW keeps."""


@dataclass
class _Group:
    """Weights with one learning rate and one decay.

    Attributes:
        share: of the learning rate.
        weight_decay: as a share of the learning rate.
        names: of the weights.
        weights: the model's own parameters; views of `rounded` (they come first) or of `flat`.
        masters: views of `flat`, shaped as the weights.
        flat, gradient: float32, all masters and their gradient.
        moments: AdamW's, float32: the number of updates, and two as long as `flat`.
        rounded: bfloat16, copies of the first masters.
        gradients: views of `gradient`, shaped as the weights.
        touched: for weights whose last gradient came as rows, which rows.
    """

    share: float
    weight_decay: float
    names: list[str]
    weights: list[nn.Parameter]
    masters: list[torch.Tensor]
    flat: torch.Tensor
    gradient: torch.Tensor
    moments: dict[str, torch.Tensor]
    rounded: torch.Tensor
    gradients: list[torch.Tensor]
    touched: dict[str, torch.Tensor] = field(default_factory=dict)

    def gather(self) -> None:
        """Takes the weights' gradients; a weight without one, which had no part in the loss, has the gradient 0.

        AdamW then decays it all the same; torch's passes over a single weight without a gradient.
        """
        places, found = [], []
        for name, weight, place in zip(self.names, self.weights, self.gradients):
            gradient, weight.grad = weight.grad, None
            rows = self.touched.pop(name, None)
            if gradient is None:
                place.zero_()
            elif gradient.is_sparse:
                place.zero_() if rows is None else place.index_fill_(0, rows, 0.0)
                self.touched[name] = gradient._indices()[0]
                place.index_add_(0, self.touched[name], gradient._values())
            else:
                places.append(place)
                found.append(gradient)
        if places:
            torch._foreach_copy_(places, found)

    def update(self, lr: float, scale: torch.Tensor | None) -> None:
        """AdamW by torch's fused kernel, called straight: `torch.optim` adds half a millisecond to an update.

        Args:
            lr: before the group's share.
            scale: what gradients are divided by.
        """
        updates, *moments = (self.moments[name] for name in MOMENTS)
        updates += 1
        torch._fused_adamw_(
            [self.flat], [self.gradient], *([each] for each in moments), [], [updates],
            lr=lr * self.share, beta1=BETAS[0], beta2=BETAS[1], weight_decay=self.weight_decay, eps=EPS,
            amsgrad=False, maximize=False, grad_scale=scale,
        )  # fmt: skip


class Masters:
    """Holds and updates the trained weights of a model.

    Args:
        model: its trained weights become views.
        groups: parameter groups for AdamW, with `share`: of the learning rate.
        precision: `bf16`: the model's linear maps are held rounded; `fp32`: nothing is.
        clip_norm: the gradient's norm is brought down to this; 0: never.
    """

    def __init__(self, model: nn.Module, groups: list[dict], precision: str, clip_norm: float):
        self._clip_norm = clip_norm
        maps = [part for part in model.modules() if precision == "bf16" and isinstance(part, nn.Linear)]
        rounded = {weight for part in maps for weight in part.parameters(recurse=False)}
        names = {weight: name for name, weight in model.named_parameters()}
        self._groups = [_flattened(group, rounded, names) for group in groups]
        words = model.roberta.embeddings.word_embeddings
        self._by_rows = [words] if words.weight.requires_grad and words.weight.device.type == "cpu" else []
        self._set_sparse(True)
        self._round()

    def step(self, lr: float) -> None:
        """One update by the gradients that the model's weights hold, which are dropped."""
        for group in self._groups:
            group.gather()
        scale = None
        if self._clip_norm:
            norms = [torch.linalg.vector_norm(group.gradient) for group in self._groups]
            norm = torch.linalg.vector_norm(torch.stack(norms))
            scale = ((norm + 1e-6) / self._clip_norm).clamp(min=1.0)  # torch's `clip_grad_norm_` adds 1e-6, too
        for group in self._groups:
            group.update(lr, scale)
        self._round()

    def finite(self) -> bool:
        """Whether all weights are finite numbers."""
        return all(bool(group.flat.isfinite().all()) for group in self._groups)

    def _set_sparse(self, sparse: bool) -> None:
        for table in self._by_rows:
            table.sparse = sparse

    def _round(self) -> None:
        for group in self._groups:
            group.rounded.copy_(group.flat[: len(group.rounded)])

    @contextmanager
    def exact(self) -> Iterator[None]:
        """The model holds the masters themselves: for scoring, keeping and replacing its weights."""
        held = [weight.data for group in self._groups for weight in group.weights]
        for group in self._groups:
            for weight, master in zip(group.weights, group.masters):
                weight.data = master
        try:
            yield
        finally:
            for weight, values in zip([weight for group in self._groups for weight in group.weights], held):
                weight.data = values
            self._round()

    def release(self) -> None:
        """The model holds its weights in float32, each by itself, for good."""
        self._set_sparse(False)
        for group in self._groups:
            for weight, master in zip(group.weights, group.masters):
                weight.data = master.clone()

    def state(self) -> dict[str, torch.Tensor]:
        """AdamW's moments by `<moment>.<weight>`, shaped as the weights; none before the first update."""
        found = {}
        for group in self._groups:
            for moment, flat in group.moments.items() if group.moments["step"] else ():
                parts = [flat] * len(group.names) if moment == "step" else _views(flat, group.masters)
                found |= {f"{moment}.{name}": part for name, part in zip(group.names, parts)}
        return found

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes what `state` gave."""
        for group in self._groups:
            if f"step.{group.names[0]}" not in state:
                continue
            for moment, flat in group.moments.items():
                held = [state[f"{moment}.{name}"] for name in group.names]
                flat.copy_(held[0] if moment == "step" else torch.cat([part.reshape(-1) for part in held]))


def _flattened(group: dict, rounded: set[nn.Parameter], names: dict[nn.Parameter, str]) -> _Group:
    """The group of these weights, which become views."""
    weights = sorted(group["params"], key=lambda weight: weight not in rounded)
    flat = torch.cat([weight.detach().reshape(-1) for weight in weights])
    gradient, *moments = (torch.zeros_like(flat) for _ in MOMENTS)
    moments = dict(zip(MOMENTS, (flat.new_zeros(()), *moments)))
    masters = _views(flat, weights)
    first = [weight for weight in weights if weight in rounded]
    copies = flat.new_empty(sum(weight.numel() for weight in first), dtype=torch.bfloat16)
    for weight, values in zip(weights, _views(copies, first) + masters[len(first) :]):
        weight.data = values
    return _Group(
        group["share"], group["weight_decay"], [names[weight] for weight in weights], weights, masters, flat, gradient,
        moments, copies, _views(gradient, weights),
    )  # fmt: skip


def _views(flat: torch.Tensor, like: list[torch.Tensor]) -> list[torch.Tensor]:
    """Parts of `flat`, one after another, shaped as `like`."""
    parts = flat.split([each.numel() for each in like])
    return [part.view(each.shape) for part, each in zip(parts, like)]
