"""The GPU benchmark, tiny and on the CPU: on a bare installation, and beside transformers."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu

TINY = ["--device", "cpu", "--size", "tiny", "--length", "32", "--vocab", "300", "--batch", "3", "--rounds", "2"]
TINY += ["--updates", "1", "--no-compile"]
BARE = """
import sys
for name in ("prefect", "dvc", "mlflow", "datasets", "pydantic", "pyarrow", "tokenizers", "safetensors", "transformers"):
    sys.modules[name] = None  # any import of it fails
from benchmarks.gpu import main
main(sys.argv[1:])
"""


def test_bare_machine(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BARE, *TINY, "--out", tmp_path / "out.json"], capture_output=True, text=True, check=True
    )
    assert "transformers is not installed" in done.stdout
    figures = json.loads((tmp_path / "out.json").read_text())
    assert len(figures["contenders"]) == 3
    for each in figures["contenders"].values():
        assert each["tokens_per_s"] > 0 and 0 < each["mfu"] < 1 and len(each["ms_an_update"]) == 2


def test_beside_transformers_with_the_same_masked_tokens(capsys):
    pytest.importorskip("transformers")
    assert gpu.main(TINY)["ratio"] > 0
    assert "ours / transformers" in capsys.readouterr().out


def test_both_sides_compute_the_same_loss():
    """The same weights on both sides: so the side-by-side compares equal work."""
    pytest.importorskip("transformers")
    parser = type(
        "Asked", (), {"size": "tiny", "vocab": 300, "length": 32, "batch": 3, "compile": False, "rows": None}
    )
    data = gpu.batches(parser, torch.device("cpu"))
    mine, other = gpu.ours(parser, data, 0.0, isolated=False), gpu.theirs(parser, data, 0.0)
    weights = {
        name: tensor[:300] if "word_embeddings" in name else tensor for name, tensor in mine.model.state_dict().items()
    }
    other.model.load_state_dict(weights, strict=False)
    for number in range(2):
        assert mine.loss(number).item() == pytest.approx(other.loss(number).item(), rel=3e-3)


def test_made_up_rows_hold_whole_documents():
    ids, documents = gpu.made_up(4, 64, 300, seed=1)
    assert (ids[documents.diff(dim=1, prepend=torch.full((4, 1), -1)) > 0] == 0).all()
    assert (documents.diff(dim=1) >= 0).all() and documents[:, 0].eq(0).all() and ids.max() < 299


def test_a_batch_that_does_not_fit_is_halved(monkeypatch, capsys):
    real = gpu.ours

    def short_of_memory(asked, data, dropout, isolated):
        if asked.batch > 1:
            raise torch.OutOfMemoryError
        return real(asked, data, dropout, isolated)

    monkeypatch.setattr(gpu, "ours", short_of_memory)
    assert gpu.main(TINY)["batch"] == 1
    assert "3 rows do not fit; trying 1" in capsys.readouterr().out
