"""Where the arithmetic happens: the device, its threads, and the precision of matrix products."""

import contextlib
import ctypes
import os

import torch

from roberta_core.errors import BadParams

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h: from how much free memory at the heap's end it is given back, and from what size on a block is a map
of its own."""


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes the GPU where torch sees one, else the CPU; with several ranks, the GPU of `LOCAL_RANK`.

    Raises:
        BadParams: a GPU was asked for and torch sees none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BadParams(
            "runtime.device is cuda, but torch sees no GPU.", "Set runtime.device to cpu or auto, or mend the driver."
        )
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


def set_threads(threads: int) -> int:
    """Gives torch `threads` threads (0: one a usable core), and tells the allocator to keep freed memory. Returns the number.

    The last bits of a sum depend on this number, so byte-equal models need the same one.
    """
    keep_freed_memory()
    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    return count


def keep_freed_memory() -> None:
    """Freed memory stays with the process. Nothing happens where the C library is not glibc.

    A training step frees and asks for the same tensors again and again. Above 32 MB (or less, until it has seen such sizes)
    glibc gives each back to the kernel, which hands out zeroed pages anew: a sixth of a step's time (docs/decisions.md).
    The price: the process keeps its peak of memory to its end.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def seed_device(device: torch.device, number: int) -> None:
    """Seeds torch's generator of the device. `torch.manual_seed` seeds those of all kinds of devices there could be: on a CPU it
    notes the stack of every call for a GPU that may yet be used, which takes some tenths of a millisecond and is never freed."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Matrix products in bfloat16 (`bf16`) or everything in float32 (`fp32`). Weights and optimizer state stay float32."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def to_device(tensor: torch.Tensor, device: torch.device | None) -> torch.Tensor:
    """Copies a tensor of the host to the device without waiting for it.

    From ordinary memory, torch would wait until the device has done all that was enqueued before; so it goes by pinned memory.
    """
    if device is not None and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor if device is None else tensor.to(device)


class HostCopy:
    """Numbers on their way from the device to the host: `read` waits for them, and not for what was enqueued after them."""

    def __init__(self, numbers: torch.Tensor):
        self._numbers, self._arrived = numbers, None
        if numbers.is_cuda:
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> list[float]:
        """The numbers."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._numbers.tolist()
