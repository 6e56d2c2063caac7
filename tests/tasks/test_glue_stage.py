"""The stages taskdata and glue: three origins in one layout, results with their protocol, the same bytes twice."""

import json
import shutil
from pathlib import Path

import pytest

from roberta_core.data.documents import Document, doc_id, write_shards
from roberta_core.errors import BadInput, BadParams, TryAgain, UserError
from roberta_core.finetune.points import median_seed
from roberta_core.finetune.recipe import ENGINE
from roberta_core.glue.tasks import TASKS, TRAINED
from tasks import glue, taskdata
from tasks.params import Params
from tests.core.glue.official import REAL, write_official
from tests.core.glue.test_sample import make_documents
from tests.core.glue.tiny_encoder import write_encoder


def make_params(**section) -> Params:
    section = {
        "tasks": ["CoLA", "STS-B", "MNLI"],
        "sample_rows": 96,
        "epochs": 1,
        "batch_size": 16,
        "peak_lr": 1e-3,
    } | section
    return Params.model_validate(
        {
            "corpus": {"sources": {"hand": {"kind": "files", "path": "text"}}},
            "pretrain": {"max_steps": 1, "batch_size": 1},
            "glue": section,
            "runtime": {"device": "cpu"},
        }
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project folder with shards, an encoder and MLflow's store."""
    root = tmp_path_factory.mktemp("project")
    documents = [Document(text, "hand", doc_id("hand", text)) for _, text in make_documents(300)]
    write_shards(documents[10:], root / "data/shards/train", 1)
    write_shards(documents[:10], root / "data/shards/validation", 1)
    write_encoder(root / "models/encoder", " ".join(document.text for document in documents[:20]))
    return root


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return place


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_sample_tasks_are_named_so_and_come_out_the_same(here, capsys):
    metrics = taskdata.run(make_params())
    first = snapshot(here / "data/glue")
    origin = json.loads(first["origin.json"])
    assert (
        origin["data"] == "sample"
        and "not GLUE scores" in origin["note"]
        and list(origin["tasks"]) == ["CoLA", "STS-B", "MNLI"]
    )
    assert metrics["CoLA.train"] == 96 and metrics["MNLI.dev_mismatched"] == 24
    assert "sample task CoLA" in capsys.readouterr().out
    taskdata.run(make_params())
    assert snapshot(here / "data/glue") == first


@pytest.mark.parametrize("name", ["CoLA", "STS-B", "MNLI"])
def test_a_task_leaves_model_results_and_predictions(here, name, capsys):
    params = make_params(seeds=[1, 2, 3], max_length=200)
    if not (here / "data/glue" / name).is_dir():
        taskdata.run(params)
    metrics = glue.run(params, name)
    out, task = here / "models/glue" / name, TASKS[name]
    first = snapshot(out)
    results = json.loads(first["results.json"])
    assert {path for path in first if "/" in path} == set(), "the other seeds' models are gone"
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "dev_predictions.tsv",
    } <= set(first)
    assert results["task"] == name and results["data"] == "sample" and results["metric"] == task.metrics[0]
    assert sorted(results["seeds"]) == ["1", "2", "3"]
    assert (
        results["score"]
        == sorted(results["seeds"].values())[1]
        == results["metrics"][task.metrics[0]]
        == metrics["score"]
    )
    assert tuple(results["metrics"]) == task.metrics
    assert all(tuple(results["baselines"][each]) == task.metrics for each in ("majority", "tfidf"))
    assert (
        results["protocol"]["engine"] == ENGINE
        and results["protocol"]["split"] == "dev"
        and results["protocol"]["staged_from_mnli"] is False
    )
    assert results["protocol"]["max_length"] == 64 and "the encoder's limit" in capsys.readouterr().out
    assert results["label_names"] == list(task.names) and results["description"]
    lines = first["dev_predictions.tsv"].decode().splitlines()
    assert lines[0].split("\t")[:3] == ["index", "label", "prediction"]
    assert len(lines) == results["rows"]["dev"] + 1
    assert ("dev_predictions_mismatched.tsv" in first) == (name == "MNLI")
    if task.values:
        right = sum(label == guess for _, label, guess, *_ in (line.split("\t") for line in lines[1:]))
        assert right / (len(lines) - 1) == pytest.approx(results["metrics"]["accuracy"], abs=1e-6)
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    if name == "CoLA":
        glue.run(params, name)
        assert snapshot(out) == first


def test_the_saved_classifier_gives_the_predictions_on_file(here):
    import torch

    from roberta_core.data.tokenizer import load_tokenizer
    from roberta_core.model import RobertaForSequenceClassification

    params = make_params(tasks=["RTE"])
    taskdata.run(params)
    glue.run(params, "RTE")
    out = here / "models/glue/RTE"
    model, tokenizer = RobertaForSequenceClassification.from_pretrained(out), load_tokenizer(out)
    tokenizer.enable_truncation(model.config.max_length)
    texts = [line.split("\t")[1:3] for line in (here / "data/glue/RTE/dev.tsv").read_text().splitlines()[1:]]
    rows = [line.split("\t") for line in (out / "dev_predictions.tsv").read_text().splitlines()[1:]]
    for pair, (_, _, guess, *probabilities) in zip(texts, rows):
        with torch.inference_mode():
            found = model(torch.tensor([tokenizer.encode(*pair).ids])).softmax(-1)[0]
        assert found.tolist() == pytest.approx([float(each) for each in probabilities], abs=1e-5)
        assert model.config.id2label[int(found.argmax())] == guess


def test_a_local_folder_is_copied_byte_for_byte(here, tmp_path):
    source = write_official(tmp_path / "official")
    (source / "RTE" / "test.tsv").unlink()
    metrics = taskdata.run(make_params(data="local", path=str(source), tasks=list(TRAINED)))
    copied = snapshot(here / "data/glue")
    assert json.loads(copied.pop("origin.json"))["data"] == "local"
    assert copied == snapshot(source)
    assert metrics["QQP.train"] == 2 and "RTE.test" not in metrics


def test_bad_local_folders_get_one_line_and_leave_what_was_there(here, tmp_path):
    source = write_official(tmp_path / "official")
    good = make_params(data="local", path=str(source), tasks=["RTE", "QNLI"])
    taskdata.run(good)
    before = snapshot(here / "data/glue")
    damaged = source / "QNLI" / "dev.tsv"
    damaged.write_text(damaged.read_text().replace("question", "query"))
    with pytest.raises(BadInput, match=r"dev\.tsv, line 1: the column question is missing"):
        taskdata.run(good)
    damaged.unlink()
    with pytest.raises(BadInput, match=r"dev\.tsv is missing"):
        taskdata.run(good)
    shutil.rmtree(source / "QNLI")
    with pytest.raises(BadInput, match=r"There is no folder .*QNLI"):
        taskdata.run(good)
    assert snapshot(here / "data/glue") == before
    assert not list((here / "data").glob(".*tmp"))


def test_hub_tables_become_the_official_files(here, tmp_path):
    """A folder that `datasets` reads stands for the hub: same loader, same configurations, no network."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    hub = tmp_path / "hub"
    tables = {
        "cola": {
            "train": (["Good.", "Bad\tgood."], [1, 0]),
            "validation": (["Fine."], [1]),
            "test": (["Which?"], [-1]),
        },
        "mnli": {
            name: (["P one", "P two", "P three"], ["H", "I", "J"], [0, 1, 2] if "test" not in name else [-1] * 3)
            for name in ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
        },
    }
    front = ["---", "configs:"]
    for config, splits in tables.items():
        front += [f"- config_name: {config}", "  data_files:"]
        for split, columns in splits.items():
            names = ("sentence", "label") if config == "cola" else ("premise", "hypothesis", "label")
            file = hub / config / f"{split}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(dict(zip(names, columns))), file)
            front += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (hub / "README.md").write_text("\n".join([*front, "---", ""]))
    taskdata.run(make_params(data="hub", hub_name=str(hub), path="constraints.txt", tasks=["CoLA", "MNLI"]))
    written = snapshot(here / "data/glue")
    assert written["CoLA/train.tsv"] == b"hub\t1\t\tGood.\nhub\t0\t\tBad good.\n"
    assert written["CoLA/test.tsv"] == b"index\tsentence\n0\tWhich?\n"
    assert written["MNLI/dev_mismatched.tsv"].decode().splitlines()[2].endswith("P two\tI" + "\tneutral" * 6)
    assert "label" not in written["MNLI/test_matched.tsv"].decode()
    with pytest.raises(BadInput, match=r"glue\.hub_name.*configuration sst2"):
        taskdata.run(make_params(data="hub", hub_name=str(hub), path="constraints.txt", tasks=["SST-2"]))


def test_a_hub_out_of_reach_asks_to_try_again(here, monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(TryAgain, match="does not answer"):
        taskdata.run(make_params(data="hub", path="constraints.txt", tasks=["CoLA"]))


def test_what_a_user_can_get_wrong_is_told_in_one_line(here, tmp_path, monkeypatch):
    with pytest.raises(BadParams, match="There is no task SST2"):
        glue.run(make_params(), "SST2")
    with pytest.raises(BadParams, match="Which task"):
        glue.run(make_params())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no folder data/shards"):
        taskdata.run(make_params())
    with pytest.raises(UserError, match=r"data/glue/CoLA/train\.tsv is missing"):
        glue.run(make_params(), "CoLA")


@pytest.mark.parametrize(
    ("scores", "kept"),
    [({1: 0.5}, 1), ({1: 0.9, 2: 0.1, 3: 0.4}, 3), ({4: 0.2, 5: 0.6}, 4), ({7: 0.5, 8: 0.5, 9: 0.5}, 8)],
)
def test_the_median_is_a_model_that_exists(scores, kept):
    assert median_seed(scores) == kept


def test_real_files_pass_as_a_local_folder(here):
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not here")
    names = ["CoLA", "SST-2", "MRPC", "STS-B", "RTE", "WNLI"]
    metrics = taskdata.run(make_params(data="local", path=str(REAL), tasks=names))
    assert metrics["SST-2.train"] == 67349 and metrics["WNLI.test"] == 146
    assert json.loads((here / "data/glue/origin.json").read_text())["data"] == "local"
