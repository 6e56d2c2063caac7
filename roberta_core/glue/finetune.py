"""Fine-tunes an encoder on one task: the loop and nothing else.

Rows are tokenised once. Each epoch draws an order from (seed, epoch), cuts it into pools, sorts each pool by length
and cuts batches from it, so that little padding is computed while batches still come in random order; a batch is
padded to its own longest row. Dropout is drawn anew from (seed, step). So the weights are a pure function of encoder,
rows, recipe and seed: the same bytes each time on a CPU with the same number of threads.

Recipe: RoBERTa's (arXiv 1907.11692, table 10 and section 5.1): AdamW with betas 0.9 and 0.98, eps 1e-6, no gradient
clipping, warm-up then linear decay to 0; STS-B is learned as score / 5 with a squared error, as in fairseq. Weight decay
is kept off biases and layer norms, as in BERT. The weights after the last step are kept: no best epoch is
picked on dev, which would flatter small dev sets.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from roberta_core.device import autocast
from roberta_core.errors import BadParams
from roberta_core.glue.layout import Split
from roberta_core.glue.tasks import SCORE_MAX, Task
from roberta_core.model import RobertaForSequenceClassification

POOL_BATCHES = 16
"""Batches that are sorted by length together: wide enough to save most padding, narrow enough to keep batches random."""

ENCODE_ROWS = 4096
"""Rows encoded at a time: the encodings of all of MNLI at once would take gigabytes."""

EVAL_TOKENS = 8192
"""Tokens, padding included, of a forward pass without gradients."""


@dataclass(frozen=True)
class Recipe:
    """What changes the result of a fine-tuning, beside the seed.

    `max_length` counts tokens, `<s>` and `</s>` included; `max_steps` 0 means as many as the epochs have.
    """

    max_length: int
    epochs: int
    max_steps: int
    batch_size: int
    peak_lr: float
    weight_decay: float
    warmup_ratio: float
    dropout: float
    precision: str


@dataclass
class Rows:
    """Tokenised rows: `ids`, the token ids of each row; `labels`, one a row or none; `truncated`, rows that were cut.

    `types`: of each token whether it stands in the first text of a pair (0) or in the second (1); None for models without.
    """

    ids: list[Sequence[int]]
    labels: Sequence[float]
    truncated: int
    types: list[Sequence[int]] | None = None


def tokenise(tokenizer: Tokenizer, split: Split, max_length: int, token_types: bool = False) -> Rows:
    """Encodes the texts of a split as the tokenizer says: `<s> a </s>`, `<s> a </s></s> b </s>`, or in BERT's way.

    `token_types`: keep them too, for a model that has them (`RobertaConfig.has_token_types`).
    Rows longer than `max_length` tokens lose tokens from the end of the longer text, one by one ("longest first", as in
    transformers), and are counted.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    result = Rows([], split.labels, 0, [] if token_types else None)
    for start in range(0, len(split), ENCODE_ROWS):
        inputs = [texts if len(texts) == 2 else texts[0] for texts in split.texts[start : start + ENCODE_ROWS]]
        for encoding in tokenizer.encode_batch_fast(inputs):
            result.ids.append(array("i", encoding.ids))
            if result.types is not None:
                result.types.append(array("b", encoding.type_ids))
            result.truncated += bool(encoding.overflowing)
    return result


def derive(*parts: object) -> int:
    """A seed from its parts, the same on every machine: 63 bits of their SHA-256."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1


def batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Row numbers of each batch of an epoch, a pure function of the arguments; each row comes once."""
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(lengths))
    result = []
    for start in range(0, len(order), POOL_BATCHES * batch_size):
        pool = order[start : start + POOL_BATCHES * batch_size]
        pool = pool[np.argsort(np.asarray(lengths)[pool], kind="stable")]
        result += [pool[at : at + batch_size].tolist() for at in range(0, len(pool), batch_size)]
    return [result[at] for at in draw.permutation(len(result))]


def collate(ids: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pads rows to the longest: input ids [B, L] and the attention mask [B, L], or None where no row needs padding."""
    longest = max(map(len, ids))
    input_ids = torch.full((len(ids), longest), pad, dtype=torch.int64)
    for row, tokens in enumerate(ids):
        input_ids[row, : len(tokens)] = torch.tensor(tokens)
    padded = any(len(tokens) < longest for tokens in ids)
    mask = torch.arange(longest)[None] < torch.tensor([len(tokens) for tokens in ids])[:, None] if padded else None
    return input_ids.to(device), mask.to(device) if mask is not None else None


def predict(
    model: RobertaForSequenceClassification,
    ids: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """Scores rows, in their order; in float32 whatever the training's precision, as the saved model will be used.

    `types`: token types of the rows, where the model has them.

    Returns:
        float64 [rows, labels]: probabilities of the classes; for regression [rows, 1], scores on the scale of 0 to 5
        (not clipped).
    """
    device = next(model.parameters()).device
    order = sorted(range(len(ids)), key=lambda row: (len(ids[row]), row))
    outputs = np.zeros((len(ids), model.config.num_labels))
    model.eval()
    start = 0
    with torch.inference_mode():
        while start < len(order):
            size = 1
            while start + size < len(order) and (size + 1) * len(ids[order[start + size]]) <= EVAL_TOKENS:
                size += 1
            rows = order[start : start + size]
            input_ids, mask = collate([ids[row] for row in rows], model.config.pad_token_id, device)
            typed = None if types is None else collate([types[row] for row in rows], 0, device)[0]
            logits = model(input_ids, mask, typed).double()
            regression = model.config.problem_type == "regression"
            outputs[rows] = (logits * SCORE_MAX if regression else logits.softmax(-1)).cpu().numpy()
            start += size
    return outputs


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at `step` (from 0): linear up over `warmup` steps, linear down to 0."""
    return (step + 1) / warmup if step < warmup else (steps - step) / max(1, steps - warmup)


def _optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


def plan(rows: int, recipe: Recipe) -> int:
    """Updates of a fine-tuning on `rows` rows."""
    steps = recipe.epochs * -(-rows // recipe.batch_size)
    return min(steps, recipe.max_steps) if recipe.max_steps else steps


def _order(rows: Rows, recipe: Recipe, seed: int) -> Iterator[list[int]]:
    lengths = [len(tokens) for tokens in rows.ids]
    for epoch in range(recipe.epochs):
        yield from batches(lengths, recipe.batch_size, seed, epoch)


def finetune(
    encoder: Path,
    task: Task,
    rows: Rows,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    on_step: Callable[[int, float, float], None] = lambda step, loss, lr: None,
) -> RobertaForSequenceClassification:
    """Trains a classifier (or regressor) from the encoder in a folder.

    Args:
        seed: draws head, order and dropout.
        on_step: called with the step (from 1), its loss (nats, or squared error of score / 5) and its learning rate.

    Raises:
        BadInput: the encoder's folder is no model's.
        BadParams: the loss is not a finite number any more.
    """
    names = dict(enumerate(task.names)) or {0: task.label}
    problem = "single_label_classification" if task.values else "regression"
    model = RobertaForSequenceClassification.from_pretrained(
        encoder, num_labels=task.num_labels, problem_type=problem, id2label=names, dropout=recipe.dropout, seed=seed
    ).to(device)
    optimizer = _optimizer(model, recipe)
    steps = plan(len(rows.ids), recipe)
    warmup = max(1, round(recipe.warmup_ratio * steps))
    model.train()
    for step, chosen in zip(range(steps), _order(rows, recipe, seed)):
        lr = recipe.peak_lr * _schedule(step, steps, warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(derive(seed, step))
        input_ids, mask = collate([rows.ids[row] for row in chosen], model.config.pad_token_id, device)
        types = None if rows.types is None else collate([rows.types[row] for row in chosen], 0, device)[0]
        target = torch.tensor([rows.labels[row] for row in chosen], device=device)
        with autocast(device, recipe.precision):
            logits = model(input_ids, mask, types)
        if task.values:
            loss = F.cross_entropy(logits, target)
        else:
            loss = F.mse_loss(logits[:, 0], target.float() / SCORE_MAX)
        value = loss.item()
        if not np.isfinite(value):
            raise BadParams(
                f"{task.name}: the loss is {value} at step {step + 1} of {steps}.",
                "Lower glue.peak_lr, or raise glue.warmup_ratio.",
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step(step + 1, value, lr)
    return model.eval()
