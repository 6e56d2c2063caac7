"""The leaderboard's zip: names, headers, spelling, numbers of rows, and nothing where something lacks."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest

from roberta_core.errors import BadInput
from roberta_core.glue.submission import FILES, faults, lines_of, write_zip
from roberta_core.glue.tasks import TASKS
from tests.core.glue.official import REAL

OFFICIAL = {
    "AX": 1104, "CoLA": 1063, "MNLI-m": 9796, "MNLI-mm": 9847, "MRPC": 1725, "QNLI": 5463, "QQP": 390965, "RTE": 3000,
    "SST-2": 1821, "STS-B": 1379, "WNLI": 146,
}  # fmt: skip
NAMES = {
    "QNLI": ["entailment", "not_entailment"],
    "RTE": ["entailment", "not_entailment"],
    "MNLI-m": ["entailment", "neutral", "contradiction"],
    "MNLI-mm": ["entailment", "neutral", "contradiction"],
    "AX": ["entailment", "neutral", "contradiction"],
}
BY_NAME = {file.name: file for file in FILES}


def whole(files=FILES) -> dict:
    return {
        file.name: np.arange(file.rows) % len(TASKS[file.task].values)
        if TASKS[file.task].values
        else np.linspace(-1, 6, file.rows)
        for file in files
    }


def test_eleven_whole_files_with_the_official_rows(tmp_path):
    write_zip(tmp_path / "out.zip", whole())
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == [f"{name}.tsv" for name in OFFICIAL]
        for name, rows in OFFICIAL.items():
            lines = archive.read(f"{name}.tsv").decode().split("\n")
            assert lines[0] == "index\tprediction" and lines[-1] == "" and len(lines) == rows + 2
            assert lines[rows].split("\t")[0] == str(rows - 1)
            given = [line.split("\t")[1] for line in lines[1:4]]
            if name == "STS-B":
                assert given[0] == "0.000" and lines[rows].endswith("\t5.000"), "clipped"
            else:
                spelled = NAMES.get(name, ["0", "1"])
                assert given == (spelled * 2)[:3]


def test_the_same_predictions_give_the_same_bytes(tmp_path):
    few = [replace(file, rows=3) for file in FILES]
    for name in ("one.zip", "two.zip"):
        write_zip(tmp_path / name, whole(few), few)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda given: given.pop("AX"), "AX is missing"),
        (lambda given: given.update({"RTE": given["RTE"][:-1]}), "RTE has 2,999 rows instead of 3,000"),
        (lambda given: given.update({"MNLI": given["AX"]}), "MNLI is no file of a submission"),
        (lambda given: given["STS-B"].fill(np.nan), "STS-B holds a value that is no number"),
    ],
)
def test_what_is_not_whole_is_refused_and_nothing_is_written(tmp_path, change, words):
    given = whole()
    change(given)
    assert faults(whole()) == [] and faults(given) == [words]
    with pytest.raises(BadInput, match=words):
        write_zip(tmp_path / "out.zip", given)
    assert list(tmp_path.iterdir()) == []


def test_many_faults_are_counted():
    with pytest.raises(BadInput, match=r"AX is missing; CoLA is missing; .*; and 6 more"):
        write_zip(None, {})


def test_scores_keep_three_digits():
    assert lines_of(BY_NAME["STS-B"], [3.14159, 5.2]) == "index\tprediction\n0\t3.142\n1\t5.000\n"


@pytest.mark.parametrize("name", ["CoLA", "SST-2", "MRPC", "STS-B", "RTE", "WNLI"])
def test_the_real_test_files_have_these_rows(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is not here")
    from roberta_core.glue.layout import read_split

    file = BY_NAME[name]
    assert len(read_split(REAL / name, TASKS[name], "test")[file.source]) == file.rows
