"""Random numbers as a pure function of what they are for: no generator, no state, nothing to save.

A 64-bit mixer (the finaliser of splitmix64; Steele, Lea & Flood 2014) turns any integer into bits that look random.
Data order and masks are drawn from it, keyed by (seed, epoch, sample index), so a run that stops can go on exactly,
on any number of ranks. It costs some integer operations an element, and runs alike in numpy and in torch, on any device.
"""

import numpy as np
import torch

GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 with the bits of the unsigned 64-bit `value`."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def mix_int(value: int) -> int:
    """The mixer on one Python integer; returns 64 unsigned bits."""
    value &= (1 << 64) - 1
    value = ((value ^ (value >> 30)) * _FIRST) & ((1 << 64) - 1)
    value = ((value ^ (value >> 27)) * _SECOND) & ((1 << 64) - 1)
    return value ^ (value >> 31)


def key_of(*parts: int) -> int:
    """One 64-bit key from several integers, such as (seed, epoch); their order matters."""
    key = 0
    for part in parts:
        key = mix_int(key * 3 + GOLDEN + part)
    return key


def mix_array(values: np.ndarray) -> np.ndarray:
    """The mixer on uint64 numpy values of any shape."""
    values = values.astype(np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return values ^ (values >> np.uint64(31))


def _shift(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def mix_tensor(values: torch.Tensor) -> torch.Tensor:
    """The mixer on int64 torch values of any shape: the same bits as `mix_array`, read as signed."""
    values = (values ^ _shift(values, 30)) * _signed(_FIRST)
    values = (values ^ _shift(values, 27)) * _signed(_SECOND)
    return values ^ _shift(values, 31)


def hash_positions(keys: torch.Tensor, length: int, stream: int) -> torch.Tensor:
    """Independent 63-bit non-negative hashes for the positions of some rows.

    Args:
        keys: int64 [B], one key a row.
        length: positions a row.
        stream: tells apart several draws for the same position.

    Returns:
        int64 [B, length].
    """
    steps = torch.arange(1, length + 1, device=keys.device, dtype=torch.int64) * _signed(GOLDEN)
    return _shift(mix_tensor(mix_tensor(keys + _signed(mix_int(stream)))[:, None] + steps), 1)
