"""`roberta glue submit` and `diagnostic` over tiny models: all eleven files, and what keeps them from being written."""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli import app
from roberta_core.errors import BadInput
from roberta_core.glue.submission import FILES
from roberta_core.glue.tasks import TASKS, TRAINED
from roberta_core.inference import ClassifierModel
from tasks import submission
from tests.core.glue.official import write_diagnostic, write_official
from tests.tasks.tiny_models import REPO, tiny_classifier, tiny_project

FEW = [replace(file, rows=2 if file.task == "AX" else 1) for file in FILES]
"""The small test files have a row each; the official numbers are what FILES has."""


PROTOCOL = {
    "max_length": 32, "split": "dev", "seeds": [1], "epochs": 2, "steps": 2, "batch_size": 16, "peak_lr": 1e-4,
    "selection": "last step; one seed", "staged_from_mnli": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("glue") / "project"
    params = tiny_project(root)
    shutil.rmtree(root / "models/glue")
    shutil.rmtree(root / "data/glue")
    write_official(root / "data/glue")
    write_diagnostic(root / "data/glue/AX")
    for name in TRAINED:
        task, folder = TASKS[name], root / "models/glue" / name
        tiny_classifier(folder, root / "models/encoder", list(task.names) or ["score"], seed=len(name))
        told = {"data": "local", "metric": task.metrics[0], "score": 0.5, "rows": {"train": 2}, "protocol": PROTOCOL}
        (folder / "results.json").write_text(json.dumps(told))
    return root, params


@pytest.fixture
def project(built, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(built[0], root)
    return root, built[1]


def test_all_eleven_files_hold_what_the_models_say(project):
    root, params = project
    told = submission.submit(root, params, root / "out/glue.zip", FEW)
    assert told[-1].endswith("11 files, 12 predictions") and any(
        line.startswith("CoLA: mcc 0.5000 (quick: dev split, 1 seed (1), ") for line in told
    )
    with zipfile.ZipFile(root / "out/glue.zip") as archive:
        read = {name: archive.read(name).decode().splitlines()[1:] for name in archive.namelist()}
    assert len(read) == 11 and {len(lines) for name, lines in read.items() if name != "AX.tsv"} == {1}
    answers = ClassifierModel(root / "models/glue/MNLI").predict(
        ["The cat sat.\tThe cat did not sit.", 'It "rains.\tIt rains.', "One\tTwo"]
    )
    labels = [answer["label"] for answer in answers]
    assert read["AX.tsv"] == [f"0\t{labels[0]}", f"1\t{labels[1]}"], "by the model of MNLI"
    assert read["MNLI-m.tsv"] == read["MNLI-mm.tsv"] == [f"0\t{labels[2]}"]
    (answer,) = ClassifierModel(root / "models/glue/CoLA").predict(["Bill whistled."])
    assert read["CoLA.tsv"] == [f"0\t{['unacceptable', 'acceptable'].index(answer['label'])}"]
    assert 0 <= float(read["STS-B.tsv"][0].split("\t")[1]) <= 5


def expect_refused(root, params, words, files=FEW):
    with pytest.raises(BadInput, match=words) as caught:
        submission.submit(root, params, root / "out/glue.zip", files)
    assert "\n" not in str(caught.value) and not (root / "out").exists()


def test_what_lacks_is_said_and_nothing_is_written(project):
    root, params = project
    expect_refused(root, params, r"MRPC/test\.tsv: 1 instead of 1,725 rows; and 6 more", FILES)
    (root / "data/glue/MNLI/test_mismatched.tsv").unlink()
    with pytest.raises(BadInput, match=r"test_mismatched\.tsv is missing"):
        submission.submit(root, params, root / "out/glue.zip", FEW)
    shutil.rmtree(root / "data/glue/RTE")
    (root / "data/glue/AX/diagnostic.tsv").unlink()
    (root / "data/glue/MNLI/test_matched.tsv").unlink()
    expect_refused(
        root, params, r"AX/diagnostic\.tsv is missing; .*test_matched\.tsv is missing.*RTE/test\.tsv is missing"
    )
    results = root / "models/glue/WNLI/results.json"
    results.write_text(results.read_text().replace("local", "sample"))
    shutil.rmtree(root / "models/glue/QQP")
    expect_refused(root, params, "no model of QQP in models/glue/QQP; the model of WNLI was trained on a sample task")


def test_the_command_refuses_a_few_rows(project, monkeypatch):
    root, _ = project
    shutil.copy(REPO / "dvc.yaml", root)
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["glue", "submit", "out.zip"])
    assert isinstance(done.exception, BadInput) and "The submission is not whole: " in str(done.exception)
    assert not (root / "out.zip").exists()


def test_the_diagnostic_is_scored_where_labels_are(project):
    root, params = project
    assert submission.diagnostic(root, params).startswith("AX, 2 pairs, by models/glue/MNLI: mcc ")
    labels = submission.predictions(
        root / "models/glue/MNLI",
        TASKS["MNLI"],
        submission.read_split(root / "data/glue/AX", TASKS["AX"], "test")["diagnostic.tsv"],
        "cpu",
    )
    assert labels.shape == (2,) and set(labels) <= {0, 1, 2} and labels.dtype == np.int64
    (root / "data/glue/AX/diagnostic-full.tsv").unlink()
    with pytest.raises(BadInput, match="file with labels"):
        submission.diagnostic(root, params)
    shutil.rmtree(root / "models/glue/MNLI")
    with pytest.raises(BadInput, match="There is no model of MNLI"):
        submission.diagnostic(root, params)
