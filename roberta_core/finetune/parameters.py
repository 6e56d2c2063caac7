"""Which weights are trained, from what start, and how fast: the options that treat a model's layers unlike.

A model's depth is counted from its embeddings, 0, over its layers, 1 to N, to its head, N + 1. Lower layers hold what is
common to all text, upper ones what suits the pretraining task: so the former may be kept (frozen, or trained slowly) and
the latter thrown away (drawn anew).
"""

import torch

from roberta_core.errors import BadParams
from roberta_core.finetune.recipe import Recipe, derive
from roberta_core.model.encoder import initialise


def depth_of(name: str, layers: int) -> int:
    """The depth of a weight by its name, in a model of `layers` layers."""
    if name.startswith("roberta.embeddings."):
        return 0
    if name.startswith("roberta.encoder.layer."):
        return int(name.split(".")[3]) + 1
    return layers + 1


def prepare(model: torch.nn.Module, recipe: Recipe, seed: int) -> None:
    """Freezes the lowest layers and draws the top ones anew, as the recipe says.

    Raises:
        BadParams: the model has fewer layers.
    """
    layers = model.roberta.encoder.layer
    frozen = recipe.frozen_layers
    if max(frozen or 0, recipe.reinit_layers) > len(layers) or (frozen or 0) + recipe.reinit_layers > len(layers):
        raise BadParams(
            f"{frozen or 0} layers are to be frozen and {recipe.reinit_layers} to be drawn anew; the encoder has {len(layers)}.",
            "Lower frozen_layers or reinit_layers.",
        )
    for layer in list(layers)[len(layers) - recipe.reinit_layers :]:
        initialise(layer, model.config.initializer_range, derive(seed, "reinit", list(layers).index(layer)))
    if frozen is not None:
        for name, weight in model.named_parameters():
            weight.requires_grad_(depth_of(name, len(layers)) > frozen)


def groups(model: torch.nn.Module, recipe: Recipe) -> list[dict]:
    """Parameter groups of the optimizer, with `share`: of the learning rate, `layer_decay` ** (N + 1 - depth).

    So the head has the whole rate and the embeddings the least (as BEiT counts, arXiv 2106.08254). Weight decay is kept off
    biases and layer norms.
    """
    top = len(model.roberta.encoder.layer) + 1
    found: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for decayed in (True, False):
        for name, weight in model.named_parameters():
            if weight.requires_grad and (weight.ndim > 1) == decayed:
                share = recipe.layer_decay ** (top - depth_of(name, top - 1))
                found.setdefault((share, decayed), []).append(weight)
    return [
        {"params": weights, "weight_decay": recipe.weight_decay if decayed else 0.0, "share": share}
        for (share, decayed), weights in found.items()
    ]
