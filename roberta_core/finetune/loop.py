"""Fine-tunes an encoder on one task of any kind: the loop and nothing else.

The order of the rows is drawn from (seed, epoch), dropout from (seed, step). So the weights are a pure function of encoder,
rows, recipe and seed: the same bytes each time on a CPU with the same number of threads.

RoBERTa's recipe (arXiv 1907.11692, table 10 and section 5.1): AdamW with betas 0.9 and 0.98, eps 1e-6, no gradient
clipping, warm-up then linear decay to 0. Weight decay is kept off biases and layer norms, as in BERT. The weights after the
last step are kept: no best epoch is picked on dev, which would flatter small dev sets.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from roberta_core.device import autocast
from roberta_core.errors import BadParams
from roberta_core.finetune.objectives import Objective
from roberta_core.finetune.recipe import Recipe, derive, lr_share, plan
from roberta_core.finetune.rows import Rows, batches


def _optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


def _order(rows: Rows, recipe: Recipe, seed: int) -> Iterator[list[int]]:
    lengths = [len(tokens) for tokens in rows.ids]
    for epoch in range(recipe.epochs):
        yield from batches(lengths, recipe.batch_size, seed, epoch)


def finetune(
    encoder: Path,
    objective: Objective,
    rows: Rows,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    on_step: Callable[[int, float, float], None] = lambda step, loss, lr: None,
) -> torch.nn.Module:
    """Trains the objective's model from the encoder in a folder.

    Args:
        rows: with labels.
        seed: draws head, order and dropout.
        on_step: called with the step (from 1), its loss and its learning rate.

    Returns:
        The model, in evaluation mode.

    Raises:
        BadInput: the encoder's folder is no model's.
        BadParams: the loss is not a finite number any more.
    """
    model = objective.build(encoder, recipe, seed).to(device)
    optimizer = _optimizer(model, recipe)
    steps = plan(len(rows), recipe)
    warmup = max(1, round(recipe.warmup_ratio * steps))
    model.train()
    for step, chosen in zip(range(steps), _order(rows, recipe, seed)):
        lr = recipe.peak_lr * lr_share(step, steps, warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(derive(seed, step))
        batch = objective.collate(rows, chosen, device)
        with autocast(device, recipe.precision):
            loss = objective.loss(model, batch)
        value = loss.item()
        if not np.isfinite(value):
            raise BadParams(
                f"{objective.task}: the loss is {value} at step {step + 1} of {steps}.",
                "Lower glue.peak_lr, or raise glue.warmup_ratio.",
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step(step + 1, value, lr)
    return model.eval()
