"""What a machine can do: the peak of its matrix products, and its memory. For MFU, and for plans before a run.

Peaks of GPUs stand in a table, because a driver does not tell them; a CPU's is measured, because no table would hold for
its clock, its threads and its neighbours.
"""

import os
import resource
import time
from pathlib import Path
from typing import NamedTuple

import torch


class Gpu(NamedTuple):
    """Dense bf16 (or fp16 where there is no bf16) peak in TFLOP/s with float32 sums, and memory in GB (10⁹ bytes)."""

    tflops: float
    memory_gb: float


GPUS = {
    # NVIDIA's data sheets, tensor cores, dense ("with sparsity" is twice that); torchtitan's `get_peak_flops` has the same
    "B200": Gpu(2250, 180),
    "H200": Gpu(989, 141),
    "H100": Gpu(989, 80),  # SXM
    "H100 PCIe": Gpu(756, 80),
    "A100": Gpu(312, 80),
    "A100-40GB": Gpu(312, 40),
    "L40S": Gpu(362, 48),
    "L4": Gpu(121, 24),
    "A10": Gpu(125, 24),
    "A6000": Gpu(155, 48),
    "RTX 4090": Gpu(165, 24),
    "RTX 3090": Gpu(71, 24),
    "V100": Gpu(125, 32),  # fp16
    "T4": Gpu(65, 16),  # fp16
    # AMD's data sheet, dense
    "MI300X": Gpu(1307, 192),
}
"""By the name that people use; `find_gpu` also knows the longer names of drivers."""


def find_gpu(name: str) -> Gpu | None:
    """The row of `GPUS` whose name stands in `name` ("NVIDIA H100 80GB HBM3"); the longest name that does."""

    def plain(text: str) -> str:
        return text.lower().replace("-", "").replace(" ", "")

    words = plain(name)
    found = [key for key in GPUS if plain(key) in words]
    return GPUS[max(found, key=len)] if found else None


def measured_peak(precision: str, seconds: float = 0.4, size: int = 1024) -> float:
    """FLOP/s of this CPU in square matrix products, with the threads that torch has now: the best round counts.

    Args:
        precision: `bf16` or `fp32`.
        seconds: to measure for.
        size: of the matrices; at 1024 they fit a core's cache, and larger ones are not faster.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
    out = left @ right  # the first call sets things up
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def peak_flops(device: torch.device, precision: str) -> float:
    """FLOP/s that a device could do; 0 where that is not known (a GPU that is not in the table, or fp32 on one)."""
    if device.type == "cpu":
        return measured_peak(precision)
    gpu = find_gpu(torch.cuda.get_device_name(device)) if precision == "bf16" else None
    return gpu.tflops * 1e12 if gpu else 0.0


def used_memory(device: torch.device) -> int:
    """Bytes: on a GPU the most that torch ever held, on a CPU what the process has resident now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no /proc: the most that there ever was
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory(device: torch.device) -> int:
    """Bytes that this process could still get: of the GPU, or of the machine within its limits (cgroup, ulimit)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        limit, used = (Path("/sys/fs/cgroup", name).read_text().strip() for name in ("memory.max", "memory.current"))
        found += [] if limit == "max" else [int(limit) - int(used)]
    except OSError:
        pass
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        found.append(soft - int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
