"""Outputs of a model for rows of any kind: sorted by length, so that little padding is computed, and given back in order."""

import numpy as np
import torch

from roberta_core.errors import BadParams
from roberta_core.finetune.objectives import Objective
from roberta_core.finetune.rows import Rows

EVAL_TOKENS = 8192
"""Tokens, padding included, of a forward pass without gradients."""


def predict(objective: Objective, model: torch.nn.Module, rows: Rows) -> list[np.ndarray]:
    """What the objective gives for each row, in the rows' order.

    In float32 whatever the training's precision, as the saved model will be used. The model is left in evaluation mode.

    Raises:
        BadParams: an output is not a number.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda row: (len(rows.ids[row]), row))
    result: list[np.ndarray] = [np.empty(0)] * len(rows)
    model.eval()
    start = 0
    with torch.inference_mode():
        while start < len(order):
            size = 1
            while start + size < len(order) and (size + 1) * len(rows.ids[order[start + size]]) <= EVAL_TOKENS:
                size += 1
            chosen = order[start : start + size]
            for row, output in zip(chosen, objective.outputs(model, objective.collate(rows, chosen, device))):
                if np.isnan(output).any():
                    raise BadParams(
                        f"{objective.task or 'The model'}: its outputs are not numbers.",
                        "The training diverged: lower the learning rate, or raise the warm-up.",
                    )
                result[row] = output
            start += size
    return result
