"""Memory that was freed stays with the process, and idle threads do not spin for long."""

import subprocess
import sys

import pytest
import torch

from roberta_core.device import seed_device

FREED = """
import sys, torch
from roberta_core.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(3):
    block = torch.ones(25_000_000)
    del block
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_memory_stays():
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, check=True, text=True).stdout)
        for how in ("kept", "default")
    )
    assert kept > given_back + 80_000  # kilobytes, of the 100,000 of the block


def test_threads_are_told_before_torch(monkeypatch):
    script = "import os, roberta_core; print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"
    for own, expected in ((None, "PASSIVE 1000"), ("ACTIVE", "ACTIVE None")):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if own:
            monkeypatch.setenv("OMP_WAIT_POLICY", own)
        shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
        assert shown.strip() == expected


def test_a_seed_is_torchs_and_leaves_nothing_behind():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    seed_device(torch.device("cpu"), 5)
    assert torch.equal(torch.rand(3), wanted)
    before = len(torch.cuda._queued_calls)
    seed_device(torch.device("cpu"), 6)
    assert len(torch.cuda._queued_calls) == before
