"""A safetensors file, written in one pass that leaves the interpreter free.

`safetensors.torch.save_file` first copies every tensor into bytes, which needs the memory twice, and keeps the
interpreter to itself while it writes: a checkpoint written by a thread would stop the training beside it. The format
is a length, a JSON header and the raw bytes (huggingface.co/docs/safetensors), so this writes it straight from the
tensors' memory and hashes on the way, in slices for which Python lets other threads run. Reading stays with the library.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
SLICE = 8 << 20
"""Bytes a write: large enough for the disk, small enough that the page cache takes them one by one."""


def write_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Writes `tensors` (contiguous, on the CPU); equal tensors give equal bytes.

    Returns:
        The file's SHA-256 in hex.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    assert sys.byteorder == "little", "the format is little-endian"
    # wide types first, as the library does, so that every tensor stays aligned to its own width
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(file, "wb", buffering=0) as handle:

        def put(data: memoryview | bytes) -> None:
            view = memoryview(data)
            digest.update(view)
            while view:  # an unbuffered write may take less than it was given
                view = view[handle.write(view) :]

        put(len(text).to_bytes(8, "little") + text)
        for name in names:
            data = memoryview(tensors[name].detach().reshape(-1).view(torch.uint8).numpy())
            for start in range(0, len(data), SLICE):
                put(data[start : start + SLICE])
    return digest.hexdigest()
