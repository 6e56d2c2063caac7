"""Two recipes: what sets the optimizer, the learning rate and the dropout of a pretraining run.

- `paper`: Liu et al. 2019, table 9. AdamW, linear warmup and decay, dropout 0.1. At 500,000 updates of 8,192 sequences
  it is the paper's run; at other lengths the warmup keeps its share of the updates. For the sizes that the paper does
  not have, roberta-base's values.
- `fast`: for short runs, which otherwise sit on the unigram plateau for most of their time (docs/decisions.md). Muon
  (Jordan et al. 2024) for the layers' matrices, AdamW for the rest, a flat learning rate that falls to zero, no dropout,
  and heads that see their neighbours at birth (`roberta_core.model.neighbours`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything between a gradient and an update.

    Attributes:
        optimizer: `adamw`, or `muon` for the layers' matrices with AdamW for the rest.
        peak_lr: the largest learning rate; with Muon for both, as its updates are scaled to AdamW's size.
        warmup_steps: updates of linear warmup.
        decay_from: share of the updates after which the rate falls linearly to 0; the warmup counts in.
        betas, eps: of AdamW.
        weight_decay: decoupled; on matrices and embeddings, not on biases and norms.
        dropout: on hidden states and attention.
        clip_norm: gradients are scaled down to this norm; 0 switches it off.
        neighbours: whether the model starts with heads that see their neighbours.
    """

    optimizer: str
    peak_lr: float
    warmup_steps: int
    decay_from: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    dropout: float
    clip_norm: float
    neighbours: bool

    def lr_at(self, step: int, max_steps: int) -> float:
        """Learning rate of update `step` (the first is 0): linear warmup, flat, linear to 0 after the last update."""
        if step < self.warmup_steps:
            return self.peak_lr * (step + 1) / self.warmup_steps
        start = max(self.warmup_steps, int(self.decay_from * max_steps))
        if step < start:
            return self.peak_lr
        return self.peak_lr * (max_steps - step) / max(1, max_steps - start)


def recipe(name: str, size: str, max_steps: int, **changed: float | int | None) -> Recipe:
    """The recipe `name` for a model size and a number of updates; `changed` values that are not None replace its own."""
    if name == "paper":
        peak_lr, warmup_share = (4e-4, 30 / 500) if size == "large" else (6e-4, 24 / 500)
        values = {
            "optimizer": "adamw",
            "peak_lr": peak_lr,
            "warmup_steps": round(warmup_share * max_steps),
            "decay_from": 0.0,
            "betas": (0.9, 0.98),
            "eps": 1e-6,
            "weight_decay": 0.01,
            "dropout": 0.1,
            "clip_norm": 0.0,
            "neighbours": False,
        }
    else:
        values = {
            "optimizer": "muon",
            "peak_lr": 2e-3,
            "warmup_steps": min(50, max_steps // 20),
            "decay_from": 0.4,
            "betas": (0.9, 0.98),
            "eps": 1e-8,
            "weight_decay": 0.01,
            "dropout": 0.0,
            "clip_norm": 1.0,
            "neighbours": True,
        }
    return Recipe(**(values | {key: value for key, value in changed.items() if value is not None}))
