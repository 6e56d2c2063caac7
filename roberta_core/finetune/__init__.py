"""The fine-tuning engine: rows, a recipe, an objective for the kind of task, the loop, and predictions."""

from roberta_core.finetune.augment import augmented
from roberta_core.finetune.loop import finetune
from roberta_core.finetune.objectives import Batch, Classification, Objective, Regression, balanced_weights
from roberta_core.finetune.predicting import predict
from roberta_core.finetune.recipe import Recipe, derive, plan
from roberta_core.finetune.rows import Rows, tokenise
from roberta_core.finetune.watch import Watch

__all__ = [
    "Batch",
    "Classification",
    "Objective",
    "Recipe",
    "Regression",
    "Rows",
    "Watch",
    "augmented",
    "balanced_weights",
    "derive",
    "finetune",
    "plan",
    "predict",
    "tokenise",
]
