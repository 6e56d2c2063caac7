"""What decides a fine-tuning, beside its encoder, its rows and its seed.

The defaults of `params.yaml` are RoBERTa's (arXiv 1907.11692, table 10): warm-up over the first updates, then a straight line
down to 0. Everything here is a pure function; the loop adds nothing of its own.
"""

import hashlib
from dataclasses import dataclass

ENGINE = 3
"""Version of the engine, in the record of every fine-tuning. Raise it by hand with a change after which the same encoder, rows,
recipe and seed come to other scores by more than rounding. 1: until the words that occur and wider pools of batches. 2: until the
dropout masks of a layer were one draw."""


@dataclass(frozen=True)
class Recipe:
    """What changes the result of a fine-tuning, beside the seed.

    `max_length` counts tokens, `<s>` and `</s>` included; `max_steps` 0 means as many as the epochs have.

    Attributes:
        keep_best: score dev after every epoch and keep the best one's weights, of equal ones the first; else the last.
        patience: with `keep_best`, end after so many epochs in a row without a gain; 0: never earlier.
        layer_decay: each layer's learning rate is this times that of the layer above it (`parameters.depth_of`).
        frozen_layers: the embeddings and so many of the lowest layers are left as they are; None: all are trained.
        reinit_layers: so many of the top layers are drawn anew before training (Zhang et al. 2021, arXiv 2006.05987).
        clip_norm: the gradient's norm is brought down to this; 0: never.
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
    keep_best: bool = False
    patience: int = 0
    layer_decay: float = 1.0
    frozen_layers: int | None = None
    reinit_layers: int = 0
    clip_norm: float = 0.0


def derive(*parts: object) -> int:
    """A seed from its parts, the same on every machine: 63 bits of their SHA-256."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1


def plan(rows: int, recipe: Recipe) -> int:
    """Updates of a fine-tuning on `rows` rows."""
    steps = recipe.epochs * -(-rows // recipe.batch_size)
    return min(steps, recipe.max_steps) if recipe.max_steps else steps


def lr_share(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at `step` (from 0): linear up over `warmup` steps, linear down to 0."""
    return (step + 1) / warmup if step < warmup else (steps - step) / max(1, steps - warmup)
