"""`roberta models`, `compare`, `promote`, `rollback` and `status` as processes on one small registry."""

import shutil

import pytest

from tasks.promotion import promote_all
from tasks.registry import register_all
from tasks.tracking import open_client
from tests.tasks.tiny_models import tiny_classifier, tiny_project, write_results

from .test_cli import one_line, roberta


@pytest.fixture(scope="module")
def registry(template, tmp_path_factory):
    """Two versions of one classifier in a project that DVC knows."""
    root = tmp_path_factory.mktemp("cli") / "project"
    params = tiny_project(root)
    for name in (".git", ".dvc"):
        shutil.copytree(template / name, root / name)
    (root / "dvc.yaml").write_text("stages:\n  a:\n    cmd: echo a > a\n    outs:\n      - a\n")
    shutil.rmtree(root / "models" / "glue" / "STS-B")
    register_all(params, root)
    promote_all(params, root)
    tiny_classifier(root / "models/glue/CoLA", root / "models/encoder", ["unacceptable", "acceptable"], 2)
    write_results(root, "CoLA", 0.8)
    register_all(params, root)
    return root


def test_a_bad_model_is_seen_compared_promoted_and_taken_back(registry):
    listed = roberta(registry, "models", "roberta-cola").stdout.splitlines()
    assert listed[0].split() == ["model", "version", "alias", "score", "data", "data", "md5", "age"]
    assert [line.split()[1:3] for line in listed[1:]] == [["2", "challenger"], ["1", "champion"]]
    told = roberta(registry, "compare", "roberta-cola", "1", "2").stdout
    assert "passed: p below 0.05: 0.000" in told and "It would be promoted: mcc 0.8000 against" in told
    told = roberta(registry, "promote", "roberta-cola", "2", "--why", "the demo needs it").stdout
    assert told == "roberta-cola 2 promoted: by hand, the demo needs it (champion then: version 1)\n"
    told = roberta(registry, "rollback", "roberta-cola", "--why", "answers in Dutch").stdout
    assert told.startswith("roberta-cola 1 promoted: rolled back to it, answers in Dutch")
    done = roberta(registry, "rollback", "roberta-cola")
    assert done.returncode == 1 and "has no champion before version 1" in one_line(done)


def test_status_shows_the_way_back_and_models_holds_up_without_a_registry(registry, project):
    open_client(registry).delete_registered_model_alias("roberta-cola", "champion")
    told = roberta(registry, "status").stdout
    assert "champion: roberta-encoder version 1" in told
    assert "TROUBLE: roberta-cola: there is no champion; version 1, which was, is gone. `roberta " in told
    assert roberta(project, "models").stdout == "No model is registered yet.\n"
