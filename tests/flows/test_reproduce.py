"""A registered model built again in a fresh folder: real git, DVC and MLflow; the whole chain at tiny size is slow."""

import shutil
import subprocess

import pytest

from flows.reproduce import CannotReproduce, as_text, reproduce
from roberta_core.atomic import digest_of
from roberta_core.errors import BadInput
from tasks.lineage import NoLineage
from tasks.registry import register_all
from tasks.tracking import open_client
from tests.tasks.tiny_models import tiny_encoder, tiny_project
from tests.test_chain import clone
from tests.test_chain import roberta as chain_roberta

from .conftest import dvc
from .test_cli import one_line, roberta

PIPELINE = """\
stages:
  download:
    foreach:
      notes: texts
    do:
      cmd: mkdir -p data/raw && cp -r ${item} data/raw/${key}
      deps:
        - ${item}
      outs:
        - data/raw/${key}
  pretrain:
    cmd: mkdir -p models && cp -r $MADE/encoder models/encoder && cp data/raw/notes/a.txt models/encoder
    deps:
      - data/raw/notes
      - tasks/pretrain.py
    outs:
      - models/encoder
  glue:
    foreach:
      - CoLA
    do:
      cmd: mkdir -p models/glue && cp -r $MADE/${item} models/glue/${item}
      deps:
        - models/encoder
      outs:
        - models/glue/${item}
"""


def git(root, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Stages that copy what lies outside the repository: a model that depends on more than its lock says."""
    base = tmp_path_factory.mktemp("reproduce")
    root = base / "project"
    params = tiny_project(root)
    (base / "made").mkdir()
    (root / "models" / "encoder").rename(base / "made" / "encoder")
    (root / "models" / "glue" / "CoLA").rename(base / "made" / "CoLA")
    for name in ("models", "data"):
        shutil.rmtree(root / name)
    (root / "texts").mkdir()
    (root / "texts" / "a.txt").write_text("a text")
    (root / "tasks").mkdir()
    (root / "tasks" / "pretrain.py").write_text("code")
    (root / "dvc.yaml").write_text(PIPELINE.replace("$MADE", str(base / "made")))
    (root / ".gitignore").write_text("/data/\n/models/\n/texts/\n/.work/\n/logs/\n/mlflow.db\n/mlartifacts/\n")
    git(root, "init", "-q")
    dvc(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    dvc(root, "repro", "-q")
    register_all(params, root)
    return root


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_rebuilt_from_cache_or_remote_when_the_project_has_moved_on(project, tmp_path):
    """The source's text is another one by now, the cache is empty, and the params were changed and committed."""
    dvc(project, "remote", "add", "--local", "-d", "shelf", str(tmp_path / "shelf"))
    dvc(project, "push", "-q")
    (project / "texts" / "a.txt").write_text("another text")
    shutil.move(project / ".dvc" / "cache", tmp_path / "cache-away")
    try:
        told = []
        done = reproduce(project, "models:/roberta-cola/1", tmp_path / "again", told.append)
        assert done.same and done.differs == [] and "the same weights to the bit" in as_text(done)
        assert told[1:2] == ["download@notes: its data, from the cache or a remote"]
        assert [line.split(": ")[0] for line in told[2:]] == ["pretrain", "glue@CoLA"]
        assert (tmp_path / "again" / "data" / "raw" / "notes" / "a.txt").read_text() == "a text"
        assert (project / "texts" / "a.txt").read_text() == "another text" and not (
            project / ".work" / "reproduce"
        ).exists()

        shutil.rmtree(tmp_path / "shelf")
        shutil.rmtree(project / ".dvc" / "cache")
        (project / "texts").rename(project / "texts-away")
        with pytest.raises(CannotReproduce, match=r"data of download@notes is neither in the cache nor in a remote"):
            reproduce(project, "models:/roberta-cola/1", tmp_path / "lost", told.append)
    finally:
        shutil.rmtree(project / ".dvc" / "cache", ignore_errors=True)
        shutil.move(tmp_path / "cache-away", project / ".dvc" / "cache")
        if (project / "texts-away").is_dir():
            (project / "texts-away").rename(project / "texts")
        (project / "texts" / "a.txt").write_text("a text")
        dvc(project, "remote", "remove", "--local", "shelf")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_other_weights_are_told_with_the_first_stage_that_differs(project):
    made, kept = project.parent / "made", project.parent / "kept"
    shutil.copytree(made, kept)
    try:
        tiny_encoder(made / "encoder", seed=2)
        done = roberta(project, "reproduce", "models:/roberta-cola/1")
        assert done.returncode == 0, done.stderr
        assert "pretrain: built in" in done.stdout and "OTHER BYTES in models/encoder" in done.stdout
        assert (
            "the same weights to the bit" in done.stdout and "other bytes in: pretrain: models/encoder" in done.stdout
        )
        assert "is not empty" in one_line(roberta(project, "reproduce", "models:/roberta-cola/1"))
        done = roberta(project, "reproduce", "models:/roberta-encoder/1")
        assert done.returncode == 1 and "and the weights differ" in done.stdout
        assert "The first other bytes: pretrain: models/encoder." in done.stdout
    finally:
        shutil.rmtree(project / ".work" / "reproduce")
        shutil.rmtree(made)
        kept.rename(made)


def test_what_cannot_be_had_is_told_before_anything_runs(project, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(BadInput, match="is not empty"):
        reproduce(project, "models:/roberta-cola/1", tmp_path / "full")
    client = open_client(project)
    commit = client.get_model_version("roberta-cola", "1").tags["git_commit"]
    try:
        client.set_model_version_tag("roberta-cola", "1", "git_commit", "0" * 40)
        with pytest.raises(CannotReproduce, match="git commit 000000000000 is not in this repository"):
            reproduce(project, "models:/roberta-cola/1", tmp_path / "a")
        client.delete_model_version_tag("roberta-cola", "1", "git_commit")
        with pytest.raises(NoLineage, match="does not keep its git commit"):
            reproduce(project, "models:/roberta-cola/1", tmp_path / "a")
    finally:
        client.set_model_version_tag("roberta-cola", "1", "git_commit", commit)
    assert not (tmp_path / "a").exists()


def test_code_that_was_not_committed_is_refused_by_its_md5(project, tmp_path):
    """The lock has the md5 of the code that ran; the commit has other code."""
    client = open_client(project)
    commit = client.get_model_version("roberta-cola", "1").tags["git_commit"]
    (project / "tasks" / "pretrain.py").write_text("other code")
    git(project, "commit", "-qam", "later")
    later = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True).stdout.strip()
    try:
        client.set_model_version_tag("roberta-cola", "1", "git_commit", f"{later}-dirty")
        with pytest.raises(CannotReproduce, match=r"pretrain: tasks/pretrain.py was not committed as it was"):
            reproduce(project, "models:/roberta-cola/1", tmp_path / "b")
    finally:
        client.set_model_version_tag("roberta-cola", "1", "git_commit", commit)
        git(project, "reset", "-q", "--hard", commit)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_chain_at_tiny_size_to_the_bit(tmp_path, monkeypatch):
    """Real text to a fine-tuned classifier, and once more from the registry alone: the project's outputs are deleted."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = clone(tmp_path / "project")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("tasks: [CoLA, STS-B]", "tasks: [CoLA]"))
    chain_roberta(folder, "run")
    weights = digest_of(folder / "models/glue/CoLA/model.safetensors")
    for name in ("models", "data", "metrics", "dvc.lock"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    told = chain_roberta(folder, "reproduce", "roberta-cola", "--into", str(tmp_path / "again"))
    assert "roberta-cola 1: rebuilt, the same weights to the bit" in told, told
    for stage in ("clean@python-docs", "dedup", "shard", "tokenizer", "pack", "pretrain", "taskdata", "glue@CoLA"):
        assert f"{stage}: built in" in told
    assert told.count("the same bytes") == 8 and "OTHER BYTES" not in told
    assert digest_of(tmp_path / "again" / "models/glue/CoLA/model.safetensors") == weights
    # its MLflow runs are its own
    assert (tmp_path / "again" / "mlflow.db").is_file()
