"""Two recipes: what sets the optimizer, the learning rate and the dropout of a pretraining run.

- `paper`: Liu et al. 2019, table 9. AdamW, linear warmup and decay, dropout 0.1. At 500,000 updates of 8,192 sequences
  it is the paper's run; at other lengths the warmup keeps its share of the updates. For the sizes that the paper does
  not have, roberta-base's values.
- `fast`: for short runs, which otherwise sit on the unigram plateau for most of their time (docs/decisions.md). Muon
  (Jordan et al. 2024) for the layers' matrices, AdamW for the rest, a flat learning rate that falls to zero, no dropout,
  word vectors and frequencies counted from the corpus (`roberta_core.train.cooccurrence`), and heads that see their
  neighbours at birth (`roberta_core.model.neighbours`).
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything between a gradient and an update.

    Attributes:
        optimizer: `adamw`, `stable-adamw`, or `muon` for the layers' matrices with AdamW for the rest.
        schedule: how the rate falls to 0: `linear`, `cosine` (half a period), or `wsd` (warmup, stable, decay: the decay as
            1 - sqrt of its share that is over; Hägele et al. 2024, arXiv 2405.18392, section 3).
        peak_lr: the largest learning rate; with Muon for both, as its updates are scaled to AdamW's size.
        warmup_steps: updates of linear warmup.
        decay_from: share of the updates after which the rate falls; the warmup counts in.
        betas, eps: of AdamW.
        weight_decay: decoupled; on matrices and embeddings, not on biases and norms.
        dropout: on hidden states and attention.
        clip_norm: gradients are scaled down to this norm; 0 switches it off.
        word_vectors: whether it starts with word vectors and frequencies that are counted from the corpus.
        neighbours: whether the model starts with heads that see their neighbours.
    """

    optimizer: str
    schedule: str
    peak_lr: float
    warmup_steps: int
    decay_from: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    dropout: float
    clip_norm: float
    word_vectors: bool
    neighbours: bool

    def lr_at(self, step: float, max_steps: int) -> float:
        """Learning rate of update `step` (the first is 0): linear warmup, flat, then down to 0 after the last update.

        `step` may be a fraction: a run with a time budget stands somewhere between two updates.
        """
        if step < self.warmup_steps:
            return self.peak_lr * (step + 1) / self.warmup_steps
        start = max(self.warmup_steps, int(self.decay_from * max_steps))
        if step < start:
            return self.peak_lr
        if self.schedule == "linear":
            return self.peak_lr * (max_steps - step) / max(1, max_steps - start)
        over = (step - start) / max(1, max_steps - start)
        return self.peak_lr * (
            (1 + math.cos(math.pi * over)) / 2 if self.schedule == "cosine" else 1 - math.sqrt(over)
        )


DECAY_FROM = {"linear": 0.0, "cosine": 0.0, "wsd": 0.8}
"""Where a schedule that replaces the recipe's own begins to fall; a fifth of the run for the decay is Hägele et al.'s choice."""


def recipe(
    name: str, size: str, max_steps: int, by_clock: bool = False, **changed: str | float | int | None
) -> Recipe:
    """The recipe `name` for a model size and a number of updates; `changed` values that are not None replace its own.

    With `by_clock` the schedule follows the time, of which `max_steps` is the whole: then the warmup of `fast`, otherwise 50
    updates, is a fiftieth of it.
    """
    if name == "paper":
        peak_lr, warmup_share = (4e-4, 30 / 500) if size == "large" else (6e-4, 24 / 500)
        values = {
            "optimizer": "adamw",
            "schedule": "linear",
            "peak_lr": peak_lr,
            "warmup_steps": round(warmup_share * max_steps),
            "decay_from": 0.0,
            "betas": (0.9, 0.98),
            "eps": 1e-6,
            "weight_decay": 0.01,
            "dropout": 0.1,
            "clip_norm": 0.0,
            "word_vectors": False,
            "neighbours": False,
        }
    else:
        values = {
            "optimizer": "muon",
            "schedule": "linear",
            "peak_lr": 2e-3,
            "warmup_steps": max_steps // 50 if by_clock else min(50, max_steps // 20),
            "decay_from": 0.4,
            "betas": (0.9, 0.98),
            "eps": 1e-8,
            "weight_decay": 0.01,
            "dropout": 0.0,
            "clip_norm": 1.0,
            "word_vectors": True,
            "neighbours": True,
        }
    if changed.get("schedule") not in (None, values["schedule"]):
        values["decay_from"] = DECAY_FROM[changed["schedule"]]
    return Recipe(**(values | {key: value for key, value in changed.items() if value is not None}))
