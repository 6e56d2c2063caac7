"""When the memory does not suffice: one line that names the micro-batch that would fit."""

import torch

from roberta_core.errors import UserError
from roberta_core.hardware import free_memory
from roberta_core.model import RobertaForMaskedLM
from roberta_core.train import plan
from roberta_core.train.optimizer import Optimizers


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed; on a CPU torch says so by a RuntimeError's text alone."""
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("allocate memory" in text or "out of memory" in text)
    )


def too_large(
    model: RobertaForMaskedLM,
    optimizers: Optimizers,
    device: torch.device,
    precision: str,
    length: int,
    mask_prob: float,
    tried: int,
) -> UserError:
    """The error for a run that failed with `tried` sequences of `length` tokens at once.

    What fits is the arithmetic of `plan` on what is free once the failed update's tensors are gone, and less than what was tried.
    """
    model.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    config = model.config
    memory = plan.memory(
        config, length, mask_prob, precision, optimizers.recipe.optimizer, device.type, max(1, tried // 2)
    )
    held = sum(each.nbytes for each in model.parameters()) + sum(each.nbytes for each in optimizers.state().values())
    free = free_memory(device)
    fitting = min(memory.fitting(free + held), tried - 1)
    what = f"The memory does not suffice for {tried} sequences of {length} tokens at once ({free / 1e9:.1f} GB were free)."
    if tried == 1:
        return UserError(what, "Take a smaller pretrain.size or a shorter pack.max_length, or a larger machine.")
    size = max(1, plan.micro_batch(fitting, tried))
    return UserError(what, f"Set runtime.micro_batch to {size}: the result is the same, the batch then goes in parts.")
