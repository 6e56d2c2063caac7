"""From a registered model back to each source file and forward again, on a project that DVC really ran."""

import hashlib
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from tasks.lineage import NoLineage, _Lock, as_lines, forward, trace
from tasks.lineage_page import draw, write_page
from tasks.registry import register_all
from tasks.tracking import open_client

from .tiny_models import tiny_project

PIPELINE = """\
stages:
  download:
    foreach:
      notes:
        path: texts
      web:
        path: web.txt
    do:
      cmd: mkdir -p data/raw && cp -r ${item.path} data/raw/${key}
      deps:
        - ${item.path}
      outs:
        - data/raw/${key}
  pretrain:
    cmd: mkdir -p models && cp -r made/encoder models/encoder
    deps:
      - data/raw
      - tasks/pretrain.py
    params:
      - seed
    outs:
      - models/encoder
  glue:
    foreach:
      - CoLA
    do:
      cmd: mkdir -p models/glue && cp -r made/${item} models/glue/${item}
      deps:
        - models/encoder
        - data/raw/notes
      outs:
        - models/glue/${item}
"""


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two sources, one of them a folder of three files; an encoder and a classifier, registered."""
    root = tmp_path_factory.mktemp("lineage") / "project"
    params = tiny_project(root)
    (root / "made").mkdir()
    (root / "models" / "encoder").rename(root / "made" / "encoder")
    (root / "models" / "glue" / "CoLA").rename(root / "made" / "CoLA")
    shutil.rmtree(root / "models")
    (root / "texts" / "b").mkdir(parents=True)
    for name in ("a.txt", "b/c.txt", "b-d.txt"):
        (root / "texts" / name).write_text(f"text of {name}")
    (root / "web.txt").write_text("the web")
    (root / "tasks").mkdir()
    (root / "tasks" / "pretrain.py").write_text("code")
    (root / "dvc.yaml").write_text(PIPELINE)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for command in (["init", "-q"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=root, check=True, capture_output=True)
    register_all(params, root)
    return root, params


def test_back_to_the_md5_of_every_source_file(project):
    root, _ = project
    tree = trace(root, "models:/roberta-cola/1")
    nodes = {node.name: node for node in tree.walk() if not node.again}
    assert list(nodes) == [
        "roberta-cola 1", "glue@CoLA", "download@notes", "texts", "texts/a.txt", "texts/b/c.txt", "texts/b-d.txt",
        "pretrain", "download@web", "web.txt", "tasks/pretrain.py",
    ]  # fmt: skip
    assert nodes["texts/b/c.txt"].facts == {"md5": md5("text of b/c.txt")}
    assert nodes["web.txt"].facts["md5"] == md5("the web") and nodes["tasks/pretrain.py"].kind == "code"
    assert nodes["texts"].kind == "source" and nodes["texts"].facts["files"] == "3"
    assert nodes["pretrain"].facts["params"] == "seed 1907"
    facts = nodes["roberta-cola 1"].facts
    assert facts["aliases"] == "challenger" and "mlflow" in facts["registered on"] and facts["dvc.lock sha256"]
    # read twice, told once
    assert [node.again for node in tree.walk() if node.name == "download@notes"] == [False, True]
    lines = as_lines(tree)
    assert any(line.endswith(f"web.txt  {md5('the web')}") for line in lines)
    assert sum("see above" in line for line in lines) == 1


def test_the_tree_is_the_one_of_then(project):
    """The folder has moved on: other texts, another lock, no data."""
    root, params = project
    before = as_lines(trace(root, "roberta-cola/1"))
    for name in ("texts", "data"):
        (root / name).rename(root / f"{name}.away")
    (root / "dvc.lock").rename(root / "lock.away")
    try:
        assert as_lines(trace(root, "roberta-cola/1")) == before
        assert len(forward(params, root, "web")) == 2
    finally:
        for name in ("texts", "data"):
            (root / f"{name}.away").rename(root / name)
        (root / "lock.away").rename(root / "dvc.lock")


@pytest.mark.parametrize(
    "asked", ["notes", "texts", "texts/b/c.txt", md5("text of a.txt"), md5("the web")[:8], "data/raw/web"]
)
def test_forward_by_name_path_and_hash(project, asked):
    root, params = project
    assert [tree.name for tree, _ in forward(params, root, asked)] == ["roberta-encoder 1", "roberta-cola 1"]


def test_what_nothing_came_of(project):
    root, params = project
    assert forward(params, root, "another") == forward(params, root, md5("another")) == []
    tags = open_client(root).get_model_version("roberta-encoder", "1").tags
    assert tags["source.notes"].endswith(".dir") and tags["source.web"] == md5("the web")


def test_the_page_holds_every_file_and_escapes(project):
    root, _ = project
    tree = trace(root, "roberta-cola/1")
    tree.made_from[0].facts["params"] = "<script>alert(1)</script>"
    page = write_page(root, [tree]).read_text()
    assert page.count(md5("text of b-d.txt")) == 1 and "<script>" not in page and "http" not in page


def test_the_drawing_has_each_stage_and_source_once_with_its_edges(project):
    root, _ = project
    drawing = ElementTree.fromstring(draw(trace(root, "roberta-cola/1")))
    boxes = {
        group.find("text").text: (group.get("class"), float(group.find("rect").get("x")))
        for group in drawing.iter("g")
    }
    assert {name: kind for name, (kind, _) in boxes.items()} == {
        "roberta-cola 1": "model", "glue@CoLA": "stage", "pretrain": "stage", "download@notes": "stage",
        "download@web": "stage", "texts": "source", "web.txt": "source",
    }  # fmt: skip
    # left to right: nothing stands before what it was made from
    for before, after in [
        ("texts", "download@notes"), ("web.txt", "download@web"), ("download@web", "pretrain"),
        ("download@notes", "pretrain"), ("pretrain", "glue@CoLA"), ("glue@CoLA", "roberta-cola 1"),
    ]:  # fmt: skip
        assert boxes[before][1] < boxes[after][1]
    # one curve each, and one more: the classifier's stage reads the notes too
    assert len(list(drawing.iter("path"))) == 7


def test_a_model_registered_without_dvc_says_so(tmp_path):
    root = tmp_path / "project"
    params = tiny_project(root)
    shutil.rmtree(root / "models" / "glue")
    register_all(params, root)
    with pytest.raises(NoLineage, match=r"roberta-encoder 1 keeps no dvc.lock with models/encoder in it"):
        trace(root, "models:/roberta-encoder/1")


def test_a_dropped_source_whose_entries_dvc_keeps_is_no_origin():
    def stage(dep: str, out: str, **params) -> dict:
        return {"deps": [{"path": dep}], "outs": [{"path": out}], "params": {"params.yaml": params}}

    stages = {
        "clean@notes": stage("data/raw/notes", "data/clean/notes"),
        "clean@web": stage("data/raw/web", "data/clean/web"),
        "dedup": stage("data/clean", "data/dedup", **{"corpus.sources": {"web": {"kind": "files"}}}),
    }
    names = {node.name for node in _Lock(stages, {}).stage("dedup").walk()}
    assert "clean@web" in names and "clean@notes" not in names
