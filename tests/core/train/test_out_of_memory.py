"""Out of memory is one line with the micro-batch that fits; and it does fit."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from roberta_core.errors import UserError
from roberta_core.train.out_of_memory import is_out_of_memory
from tests.core.train.tiny_run import build

SCRIPT = """
import resource, sys
from pathlib import Path
from roberta_core.errors import UserError
from tests.core.train.tiny_run import build
training = build(Path(sys.argv[1]), batch_size=2048, micro_batch=int(sys.argv[2]), steps=1, checkpoint_s=1e9, eval_rows=1)
training.batches.at(0, training.ranks)  # what is loaded late is loaded now
held = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (held + (350 << 20), -1))
try:
    training.train()
except UserError as error:
    print("told:", error)
"""


def limited(folder: Path, micro_batch: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, str(micro_batch)],
        capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[3], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_machine_with_350_mb_is_told_what_fits_and_it_fits(tmp_path):
    """A limit on the address space, so that an allocation really fails; 2,048 sequences need some 0.8 GB."""
    told = limited(tmp_path, 0)
    assert "does not suffice for 2048 sequences of 32 tokens at once" in told, told
    size = int(re.search(r"Set runtime.micro_batch to (\d+)", told)[1])
    assert 128 <= size <= 1024
    assert "1/1 updates" in limited(tmp_path, size)


def test_a_gpu_that_is_full_and_a_sequence_that_is_too_large(tmp_path):
    """The GPU's error is raised by hand: there is none here."""
    training = build(tmp_path, steps=2, micro_batch=1)

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    training._forward = full
    with pytest.raises(UserError, match=r"for 1 sequences.*Take a smaller pretrain\.size"):
        training.train()


def test_other_errors_are_not_taken_for_it():
    assert not is_out_of_memory(RuntimeError("shapes do not fit")) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
    )
