"""The benchmark of pretraining on a CPU: its talk with its processes, its figures, and one short run of all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import pretrain

CORPUS = Path(__file__).parents[2].parent / "shared" / "data" / "wiki_en" / "text"


class Ran(pretrain.Contender):
    """A contender whose rounds are known."""

    def __init__(self, name: str, *seconds: float, **more: float):
        self.name, self.first = name, {"seconds": 9.0}
        self.rounds = [{"updates": 2, "seconds": each, **more} for each in seconds]


def test_figures_are_medians_of_rounds_and_of_ratios_within_rounds():
    theirs, ours = Ran("trainer fp32", 1.0, 2.0, 4.0), Ran("ours bf16", 0.5, 0.5, 0.5, data_s=0.005)
    peak = Ran("peak", 1.0, peak=1e12)
    figures = pretrain.report({each.name: each for each in (theirs, ours, peak)})
    assert figures["contenders"]["trainer fp32"]["tokens_per_s"] == 2 * 32 * 128 / 2.0
    assert figures["ratios"] == {"ours bf16 / trainer fp32": 4.0}
    assert figures["contenders"]["ours bf16"]["data_share"] == 0.01
    assert figures["contenders"]["ours bf16"]["mfu"] == pytest.approx(
        16384 * figures["mflop_a_token"] * 1e6 / 1e12, rel=1e-3
    )


@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.is_dir(), reason="needs ../shared/data/wiki_en")
def test_a_short_run(tmp_path):
    pytest.importorskip("transformers")
    command = [sys.executable, "-m", "benchmarks.pretrain", CORPUS, "--rounds", "1", "--out", tmp_path / "out.json"]
    command += ["--only", "trainer fp32", "ours bf16", "peak"]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=280)
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["ratios"]["ours bf16 / trainer fp32"] > 0 and 0 < figures["contenders"]["ours bf16"]["mfu"] < 1
    assert 0 < figures["contenders"]["ours bf16"]["data_share"] < 1
