"""The registry on a real store: what is registered loads and predicts; the gate gives its reason."""

import itertools
import shutil

import pytest

from roberta_core.errors import BadInput
from roberta_core.inference import load_model
from tasks import registry
from tasks.promotion import promote_all
from tasks.registry import (
    CannotBeRegistered,
    StoreAway,
    StoreUnusable,
    overview,
    register_all,
)
from tasks.tracking import mlflow_on, open_client

from .tiny_models import tiny_encoder, tiny_project, write_results

NAMES = ["roberta-encoder", "roberta-cola", "roberta-sts-b"]


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A project whose three models are registered and champions, once for the module; tests get copies of the folder."""
    root = tmp_path_factory.mktemp("registry") / "project"
    params = tiny_project(root)
    assert register_all(params, root) == [f"{name} 1" for name in NAMES]
    said = promote_all(params, root)
    assert said[1] == "roberta-cola 1 promoted: the first version with mcc 0.4000 (sample data)"
    assert said[0].endswith("the first version with mean score of 2 tasks 0.5000 (sample data)")
    return root, params


def test_a_registered_model_predicts_as_its_folder_does(registered):
    root, _ = registered
    texts = ["the cat sat", "the dog\tran after it", ""]
    for name, folder in zip(NAMES, ("encoder", "glue/CoLA", "glue/STS-B")):
        with mlflow_on(root) as mlflow:
            served = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(texts)
            inside = {each.path.split("/")[-1] for each in mlflow.artifacts.list_artifacts(f"models:/{name}@champion")}
        assert {"MLmodel", "artifacts", "code"} <= inside
        direct = load_model(root / "models" / folder).predict(texts)
        assert len(served) == 3
        for one, other in zip(served, direct):
            if name == "roberta-encoder":
                assert one == pytest.approx(other, abs=1e-5)
            else:
                assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_nothing_is_registered_twice_and_scores_follow(registered, tmp_path):
    root, params = registered
    assert register_all(params, root) == []
    assert promote_all(params, root) == []
    rows = {row["name"]: row for row in overview(params, root)}
    assert list(rows) == NAMES
    assert rows["roberta-cola"]["alias"] == "challenger, champion" and rows["roberta-cola"]["score"] == 0.4
    write_results(root, "CoLA", 0.41)
    assert register_all(params, root) == []
    assert {row["name"]: row["score"] for row in overview(params, root)}["roberta-cola"] == 0.41
    write_results(root, "CoLA", 0.4)
    register_all(params, root)


def test_a_model_that_cannot_load_is_not_registered(tmp_path, registered, monkeypatch):
    root, _ = registered
    other = tmp_path / "other"
    params = tiny_project(other)
    shutil.copy(root / "mlflow.db", other)  # a store made anew takes seconds
    broken = tmp_path / "served.py"
    broken.write_text(registry.SERVED.read_text().replace("self.model = load", "raise OSError('no such weights')  #"))
    monkeypatch.setattr(registry, "SERVED", broken)
    tiny_encoder(other / "models" / "encoder", seed=5)
    before = open_client(other).search_model_versions()
    with pytest.raises(
        CannotBeRegistered, match=r"roberta-encoder: the logged model cannot be loaded back .*no such w"
    ):
        register_all(params, other)
    assert len(open_client(other).search_model_versions()) == len(before)


def test_a_model_that_predicts_something_else_is_not_registered(tmp_path, registered, monkeypatch):
    root, _ = registered
    other = tmp_path / "other"
    params = tiny_project(other)
    shutil.copy(root / "mlflow.db", other)
    wrong = tmp_path / "served.py"
    wrong.write_text(registry.SERVED.read_text().replace("list(model_input))", "list(model_input)[::-1])"))
    monkeypatch.setattr(registry, "SERVED", wrong)
    tiny_encoder(other / "models" / "encoder", seed=6)
    with pytest.raises(CannotBeRegistered, match=r"roberta-encoder: the logged model predicts something else"):
        register_all(params, other)


def test_without_models_or_store_there_is_nothing(tmp_path, registered):
    _, params = registered
    assert register_all(params, tmp_path) == []
    assert overview(params, tmp_path) == []
    assert not (tmp_path / "mlflow.db").exists()


def test_a_store_that_is_away_is_one_line(registered, monkeypatch, tmp_path):
    root, params = registered
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for act in (register_all, promote_all, overview):
        with pytest.raises(StoreAway, match=r"MLflow's store http://127.0.0.1:9 does not answer") as told:
            act(params, root)
        assert "\n" not in str(told.value) and told.value.exit_code == 75


@pytest.mark.parametrize(
    "uri, told",
    [
        ("", r"mlflow.db cannot be used \(.*not a database.*move it away"),
        ("foo://bar", "MLflow cannot use foo://bar .*unset"),
    ],
)
def test_a_store_that_is_no_store_is_one_line_and_no_later_attempt_is_asked_for(
    registered, monkeypatch, tmp_path, uri, told
):
    _, params = registered
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 500)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for call in (
        lambda: registry.overview(params, tmp_path),
        lambda: registry.open_registered("roberta-cola", tmp_path),
    ):
        with pytest.raises(StoreUnusable, match=told) as error:
            call()
        assert error.value.exit_code == 1 and "\n" not in str(error.value)


def test_an_encoder_fills_gaps_and_a_text_without_one_is_told(tmp_path):
    model = load_model(tiny_encoder(tmp_path / "encoder"))
    words = model.fill("the <mask> sat on the <mask>", top=3)
    assert len(words) == 2 and all(len(each) == 3 for each in words)
    assert all(one[1] >= other[1] for each in words for one, other in itertools.pairwise(each))
    with pytest.raises(BadInput, match="The text has no <mask>"):
        model.fill("nothing to fill")
    with pytest.raises(BadInput, match="A text is wanted, got int 3"):
        model.predict(["a", 3])
    # padding in the batch changes nothing
    alone, beside = model.predict(["cat"])[0], model.predict(["cat", "the dog ran after the cat on the mat"])[0]
    assert alone == pytest.approx(beside, abs=1e-5)
