"""A registered classifier scored again gives what its folder gives."""

import shutil

import pytest

from roberta_core.errors import BadInput
from roberta_core.inference import load_model
from tasks.evaluate import evaluate_version
from tasks.registry import register_all

from .tiny_models import tiny_project, write_results

TEXTS = ["the cat sat", "on the mat dog", "it ran after", "and the the dog", "mat sat cat", "after it the cat"]


def test_the_same_rows_and_other_rows(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    params = tiny_project(root)
    shutil.rmtree(root / "models" / "glue" / "STS-B")
    labels = [int(each["label"] == "acceptable") for each in load_model(root / "models/glue/CoLA").predict(TEXTS)]
    labels[0] = 1 - labels[0]
    rows = "".join(f"x\t{label}\t\t{text}\n" for label, text in zip(labels, TEXTS))
    write_results(root, "CoLA", 0.5, dev=rows)
    register_all(params, root)
    found = evaluate_version(root, "models:/roberta-cola/1")
    assert found.metrics["accuracy"] == pytest.approx(5 / 6, abs=1e-5)
    assert found.same_rows and found.registered == 0.5 and next(iter(found.metrics)) == "mcc"
    assert found.told.endswith("(registered with 0.5000, on the same dev rows)")
    (root / "data/glue/CoLA/dev.tsv").write_text(rows + "x\t1\t\tthe dog\n")
    assert not evaluate_version(root, "models:/roberta-cola/1").same_rows
    with pytest.raises(BadInput, match="roberta-encoder 1 is an encoder"):
        evaluate_version(root, "models:/roberta-encoder/1")
    with pytest.raises(BadInput, match="roberta-cola 1 is a model of GLUE's CoLA, which is scored on data/glue/CoLA"):
        evaluate_version(root, "models:/roberta-cola/1", root / "data/glue/CoLA/dev.tsv")
