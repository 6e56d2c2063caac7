"""Tasks from a folder of the hub's parquet files, and the AX diagnostic that comes with MNLI, from each origin."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roberta_core.errors import BadInput
from roberta_core.glue.layout import read_split
from roberta_core.glue.tables import read_parquet
from roberta_core.glue.tasks import TASKS
from tasks import taskdata
from tests.core.glue.official import write_diagnostic, write_official
from tests.tasks.test_glue_stage import make_params, snapshot

ROWS = {
    "sst2": (("sentence",), [("good",), ("tab\there",), ("bad",)], [1, 0, 0]),
    "stsb": (("sentence1", "sentence2"), [("A", "B"), ("C", "C")], [2.6, 5.0]),
    "mnli": (("premise", "hypothesis"), [("P", "H"), ("Q", "I"), ("R", "J")], [0, 1, 2]),
    "ax": (("premise", "hypothesis"), [("It", "Not it")], [-1]),
}


def write_hub(folder: Path) -> Path:
    for config, (names, texts, labels) in ROWS.items():
        (folder / config).mkdir(parents=True)
        for split in ("train", "validation", "test") if config != "ax" else ("test",):
            for half in ("_matched", "_mismatched") if config == "mnli" and split != "train" else ("",):
                columns = dict(zip(names, zip(*texts)))
                kind = pa.float32() if config == "stsb" else pa.int64()
                columns["label"] = pa.array(labels if split != "test" else [-1] * len(labels), kind)
                table = pa.table(columns | {"idx": range(len(texts))})
                parts = 2 if split == "train" else 1
                for part in range(parts):
                    file = folder / config / f"{split}{half}-{part:05}-of-{parts:05}.parquet"
                    pq.write_table(table.slice(part * 2, 2 if parts == 2 else None), file)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_parquet_files_become_the_official_files(here):
    hub = write_hub(here / "hub")
    metrics = taskdata.run(make_params(data="parquet", path=str(hub), tasks=["SST-2", "STS-B", "MNLI"]))
    written = snapshot(here / "data/glue")
    assert written["SST-2/train.tsv"] == b"sentence\tlabel\ngood\t1\ntab here\t0\nbad\t0\n"
    assert written["SST-2/test.tsv"].startswith(b"index\tsentence\n0\tgood\n")
    assert read_split(here / "data/glue/STS-B", TASKS["STS-B"], "dev")["dev.tsv"].labels == [2.6, 5.0]
    assert metrics["MNLI.train"] == 3 and metrics["MNLI.dev_mismatched"] == 3 and metrics["AX.diagnostic"] == 1
    assert written["AX/diagnostic.tsv"] == b"index\tsentence1\tsentence2\n0\tIt\tNot it\n"
    origin = json.loads(written["origin.json"])
    assert origin["data"] == "parquet" and origin["tasks"]["SST-2"] == "parquet files of sst2"


def test_files_without_part_numbers_and_without_test_do_too(here):
    folder = here / "hub" / "rte"
    folder.mkdir(parents=True)
    table = pa.table({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]})
    for split in ("train", "validation"):
        pq.write_table(table, folder / f"{split}.parquet")
    assert read_parquet(here / "hub", TASKS["RTE"], "train")["train.tsv"].labels == [0, 1]
    assert read_parquet(here / "hub", TASKS["RTE"], "test") == {}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["a"], "label": [0]}, "the column sentence is missing .found: text, label"),
        ({"sentence": ["a", "b"], "label": [0, 7]}, "row 1, column label: unknown label 7"),
        ({"sentence": ["a", None], "label": [0, 1]}, "row 1, column sentence: None is no text"),
        ({"sentence": pa.array([], pa.string()), "label": pa.array([], pa.int64())}, "has no rows"),
    ],
)
def test_bad_tables_get_one_line_and_leave_nothing(here, columns, words):
    (here / "hub/sst2").mkdir(parents=True)
    pq.write_table(pa.table(columns), here / "hub/sst2/train-00000-of-00001.parquet")
    with pytest.raises(BadInput, match=words):
        taskdata.run(make_params(data="parquet", path="hub", tasks=["SST-2"]))
    assert not (here / "data/glue").exists()


def test_a_missing_or_damaged_file_is_named(here):
    hub = write_hub(here / "hub")
    file = hub / "sst2" / "validation-00000-of-00001.parquet"
    file.write_bytes(b"PAR1 no more")
    with pytest.raises(BadInput, match=r"validation-00000-of-00001\.parquet is damaged"):
        read_parquet(hub, TASKS["SST-2"], "dev")
    file.unlink()
    with pytest.raises(BadInput, match=r"sst2/validation-\*\.parquet"):
        read_parquet(hub, TASKS["SST-2"], "dev")


@pytest.mark.parametrize("name", ["AX", "diagnostic"])
def test_a_local_diagnostic_comes_with_mnli_alone(here, name):
    source = write_official(here / "official")
    write_diagnostic(source / name)
    metrics = taskdata.run(make_params(data="local", path=str(source), tasks=["RTE"]))
    assert not any(key.startswith("AX") for key in metrics) and not (here / "data/glue/AX").exists()
    metrics = taskdata.run(make_params(data="local", path=str(source), tasks=["MNLI"]))
    assert metrics["AX.diagnostic"] == metrics["AX.diagnostic-full"] == 2
    assert snapshot(here / "data/glue/AX") == snapshot(source / name)
    (source / name / "diagnostic.tsv").write_text("index\tsentence1\n0\tA\n")
    with pytest.raises(BadInput, match=rf"{name}/diagnostic\.tsv, line 1: the column sentence2 is missing"):
        taskdata.run(make_params(data="local", path=str(source), tasks=["MNLI"]))
