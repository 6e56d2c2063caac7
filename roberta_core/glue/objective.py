"""A GLUE task as the fine-tuning engine takes it: a classification of one label a row, or STS-B's regression."""

from roberta_core.finetune.objectives import Classification, Objective, Regression
from roberta_core.glue.tasks import SCORE_MAX, Task


def objective_of(task: Task) -> Objective:
    """What the engine needs to know of a task. STS-B is learned as score / 5 with a squared error, as in fairseq."""
    if task.values:
        return Classification(task.name, task.names)
    return Regression(task.name, task.label, SCORE_MAX)
