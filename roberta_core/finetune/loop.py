"""Fine-tunes an encoder on one task of any kind: the loop and nothing else.

The order of the rows is drawn from (seed, epoch), dropout from (seed, step). So the weights are a pure function of encoder,
rows, recipe and seed: the same bytes each time on a CPU with the same number of threads.

RoBERTa's recipe (arXiv 1907.11692, table 10 and section 5.1): AdamW with betas 0.9 and 0.98, eps 1e-6, no gradient
clipping, warm-up then linear decay to 0. Weight decay is kept off biases and layer norms, as in BERT. Unless the recipe asks
for the best epoch, the weights after the last step are kept: a best epoch picked on dev flatters small dev sets.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from roberta_core.device import autocast, seed_device
from roberta_core.errors import BadInput, BadParams
from roberta_core.finetune.masters import Masters
from roberta_core.finetune.objectives import Objective
from roberta_core.finetune.parameters import groups, prepare
from roberta_core.finetune.predicting import predict
from roberta_core.finetune.recipe import Recipe, derive, lr_share, plan
from roberta_core.finetune.rows import Rows, batches
from roberta_core.finetune.state import Keeper
from roberta_core.finetune.vocabulary import UsedVocabulary
from roberta_core.finetune.watch import Best, Watch


def diverged(task: str, told: str) -> BadParams:
    """The error of a training whose numbers are none any more."""
    return BadParams(f"{task}: {told}.", "Lower its peak_lr, or raise warmup_ratio.")


def finetune(
    encoder: Path,
    objective: Objective,
    rows: Rows,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    on_step: Callable[[int, float, float], None] = lambda step, loss, lr: None,
    *,
    watch: Watch | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, score: None,
    rows_of_epoch: Callable[[int], Rows] | None = None,
    keeper: Keeper | None = None,
) -> torch.nn.Module:
    """Trains the objective's model from the encoder in a folder.

    Args:
        rows: with labels.
        seed: draws head, order and dropout.
        on_step: called with the step (from 1), its loss and its learning rate.
        watch: dev rows and their score; needed where the recipe keeps the best epoch.
        on_epoch: called with the epoch (from 1) and its score, where the best is kept. A run that goes on from the disk
            calls it for the epochs done before, too.
        rows_of_epoch: gives the rows of an epoch (from 0) where they change from one to the next: as many as `rows`.
        keeper: keeps the state on the disk, and gives it back.

    Returns:
        The model, in evaluation mode.

    Raises:
        BadInput: there are no rows, the encoder's folder is no model's, or the score is not a number.
        BadParams: the loss or a weight is not a finite number any more, or the encoder has fewer layers than the recipe wants.
    """
    if not len(rows):
        raise BadInput(f"{objective.task} has no training rows.", "Give a train file with rows.")
    assert watch is not None or not recipe.keep_best, "the best epoch is one by its score"
    model = objective.build(encoder, recipe, seed).to(device)
    prepare(model, recipe, seed)
    parts = groups(model, recipe)
    steps, best = plan(len(rows), recipe), Best()
    per_epoch = -(-len(rows) // recipe.batch_size)
    warmup = max(1, round(recipe.warmup_ratio * steps))
    vocabulary = None
    if rows_of_epoch is None and model.roberta.embeddings.word_embeddings.weight.requires_grad:
        vocabulary = UsedVocabulary(model, rows, recipe.weight_decay * parts[0]["share"])
        rows = vocabulary.numbered(rows)
    masters = Masters(model, parts, recipe.precision, recipe.clip_norm)
    step = keeper.restore(model, masters, best) if keeper else 0
    if vocabulary:
        vocabulary.decayed(recipe.peak_lr * lr_share(done, steps, warmup) for done in range(step))
    for epoch, score in enumerate(best.scores):
        on_epoch(epoch + 1, score)
    model.train()
    for epoch in range(step // per_epoch, -(-steps // per_epoch)):
        if best.exhausted(recipe.patience):
            break
        current = rows_of_epoch(epoch) if rows_of_epoch else rows
        order = batches([len(tokens) for tokens in current.ids], recipe.batch_size, seed, epoch)
        for chosen in order[step - epoch * per_epoch : steps - epoch * per_epoch]:
            if keeper and keeper.due():
                keeper.save(step, model, masters, best)
            lr = recipe.peak_lr * lr_share(step, steps, warmup)
            seed_device(device, derive(seed, step))
            batch = objective.collate(current, chosen, device)
            with autocast(device, recipe.precision):
                loss = objective.loss(model, batch)
            value = loss.item()
            if not np.isfinite(value):
                raise diverged(objective.task, f"the loss is {value} at step {step + 1} of {steps}")
            loss.backward()
            masters.step(lr)
            if vocabulary:
                vocabulary.decayed([lr])
            step += 1
            on_step(step, value, lr)
        if not masters.finite():  # no loss is taken after the last step
            raise diverged(objective.task, f"the weights are no finite numbers after step {step} of {steps}")
        if recipe.keep_best:
            with masters.exact(), vocabulary.whole() if vocabulary else nullcontext():
                best.take(objective.task, watch.score(predict(objective, model, watch.rows)), model)
            on_epoch(epoch + 1, best.scores[-1])
            model.train()
    masters.release()
    if vocabulary:
        vocabulary.restore()
    if recipe.keep_best:
        model.load_state_dict(best.weights)
    return model.eval()
