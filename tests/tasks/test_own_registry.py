"""Tasks of your own in the registry: registered, compared row by row, promoted, rolled back, and served by MLflow."""

import json
import shutil

import numpy as np
import pytest

from roberta_core.bootstrap import Pair, compare
from roberta_core.errors import BadInput
from tasks import finetune
from tasks.candidates import candidates, model_names
from tasks.evaluate import evaluate_version
from tasks.evidence import read_pairs, task_folder
from tasks.promotion import promote_all
from tasks.registry import open_registered, register_all
from tasks.tracking import mlflow_on
from tests.tasks.own_data import KINDS, params_of, standing_in, write_project


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project in which every kind is fine-tuned, registered and promoted."""
    root = tmp_path_factory.mktemp("own")
    tasks = write_project(root)
    tasks["entities"]["epochs"] = 1
    (root / "params.yaml").write_text(json.dumps(params_of(tasks).model_dump(mode="json")))
    with standing_in(root):
        for name in KINDS:
            finetune.run(params_of(tasks), name)
        made = register_all(params_of(tasks), root)
        promote_all(params_of(tasks), root)
    return root, tasks, made


@pytest.fixture
def here(place):
    with standing_in(place[0]):
        yield place[:2]


def test_every_kind_is_a_candidate_with_its_evidence(here):
    root, tasks = here
    params = params_of(tasks)
    found = {each.name: each for each in candidates(params, root)}
    assert model_names(params)["several"] == "roberta-several" and task_folder("CoLA") == "models/glue/CoLA"
    for name in KINDS:
        each = found[f"roberta-{name}"]
        results = json.loads((root / "models/tasks" / name / "results.json").read_text())
        assert each.evidence["score"] == repr(results["score"]) and each.evidence["data"] == "own"
        assert json.loads(each.evidence["yardstick"])["dev_sha256"] == results["dev_sha256"]
        assert each.evidence["encoder_sha256"] and each.evidence["data_md5"]


def test_they_are_registered_and_served_on_raw_text(place, here):
    root, _ = here
    assert {f"roberta-{name} 1" for name in KINDS} <= set(place[2])
    asked = [{"question": "Where was it ?", "context": "The cat sat on the mat ."}]
    inputs = {
        "pets": ["The cat slept on the sofa ."],
        "several": ["The cat slept on the sofa ."],
        "prices": ["The cat slept on the sofa .\tWhere was it ?"],
        "entities": ["That dog hid on the roof ."],
        "questions": asked,
    }
    for name in KINDS:
        direct = open_registered(f"roberta-{name}", root).predict(inputs[name])
        with mlflow_on(root) as mlflow:
            served = mlflow.pyfunc.load_model(f"models:/roberta-{name}@champion").predict(inputs[name])
        assert json.dumps(served) == json.dumps(direct)
    entity = open_registered("roberta-entities", root).predict(inputs["entities"])[0][0]
    assert set(entity) == {"text", "label", "start", "end", "score"}


def test_the_gate_compares_them_row_by_row(here, tmp_path):
    root, _ = here
    for side in ("old", "new"):
        for name in KINDS:
            shutil.copytree(root / "models/tasks" / name, tmp_path / side / "tasks" / name)
    pairs, differs = read_pairs(tmp_path / "old", tmp_path / "new")
    assert differs == "" and [each.measure for each in pairs] == ["counts", "accuracy", "pearson", "mean", "counts"]
    gains = {each.task: each for each in compare(pairs, draws=1000)}
    for name in KINDS:
        results = json.loads((root / "models/tasks" / name / "results.json").read_text())
        near = 1e-3 if name == "prices" else 1e-5  # numbers stand there in 6 digits, and these hardly differ
        assert gains[name].old == gains[name].new == pytest.approx(results["score"], abs=near)
    file = tmp_path / "new/tasks/entities/dev_predictions.tsv"
    file.write_text(file.read_text().replace("mat [place]", "rug [place]"))
    assert read_pairs(tmp_path / "old", tmp_path / "new")[1] == "entities: other dev rows"


@pytest.mark.parametrize("name", KINDS)
def test_a_version_scored_again_gives_what_it_was_registered_with(here, monkeypatch, tmp_path, name):
    root, _ = here
    monkeypatch.chdir(tmp_path)  # paths of params.yaml are those of its folder
    results = json.loads((root / "models/tasks" / name / "results.json").read_text())
    found = evaluate_version(root, f"models:/roberta-{name}/1")
    assert (
        found.metrics == pytest.approx(results["metrics"], rel=1e-6, abs=1e-5)
        and next(iter(found.metrics)) == results["metric"]
    )
    assert found.same_rows and found.registered == results["score"] and found.task == name
    assert found.notes == (("6 texts are too long, and come in windows",) if name == "questions" else ())


def test_a_version_is_scored_on_a_file_of_rows(here, tmp_path):
    root, _ = here
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nThe cat sat on the mat .,cat\nThe dog sat on the mat .,dog\nThat bird sat .,bird\n")
    found = evaluate_version(root, "roberta-pets", file)
    assert found.metrics["accuracy"] == pytest.approx(2 / 3, abs=1e-6) and not found.same_rows
    first, note = found.told.splitlines()
    assert first.endswith("(registered with 1.0000, on other dev rows)")
    assert note == f"the label 'bird' never occurs in training: 1 row counts as wrong ({file}, line 4)"
    file.write_text(f"text,label\n{'the cat sat ' * 40},cat\n")
    assert "1 texts are too long, and are cut to fit" in evaluate_version(root, "roberta-pets", file).notes
    file.write_text("text,pet\nThe cat sat on the mat .,cat\n")
    with pytest.raises(BadInput, match="no column label"):
        evaluate_version(root, "roberta-pets", file)
    with pytest.raises(
        BadInput, match=r"There is no file .*\. Name a file of rows as .*pets\.csv has them, or none\."
    ):
        evaluate_version(root, "roberta-pets", tmp_path / "none.csv")


def test_a_version_whose_task_is_gone_or_another_is_one_line(here, tmp_path, monkeypatch):
    root, tasks = here
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    others = {"pets": tasks["pets"] | {"kind": "multi-label"}}
    (tmp_path / "params.yaml").write_text(json.dumps(params_of(others).model_dump(mode="json")))
    with pytest.raises(BadInput, match=r"pets, a task of kind classification, and .* as a task of kind multi-label\."):
        evaluate_version(tmp_path, "roberta-pets")
    with pytest.raises(BadInput, match=r"has no such task\. Put its entry back: finetune\.tasks\.prices"):
        evaluate_version(tmp_path, "roberta-prices")


def test_macro_f1_over_several_labels_is_compared_by_the_names_of_each_rows_labels(here, tmp_path):
    root, tasks = here
    task = tasks["several"] | {
        "metric": "f1_macro",
        "separator": "e",
    }  # which "rest" holds: the cells cannot be parted
    for epochs, side in ((1, "old"), (12, "new")):
        finetune.run(params_of({"macro": task | {"epochs": epochs}}), "macro")
        shutil.copytree(root / "models/tasks/macro", tmp_path / side / "tasks/macro")
    (pair,), differs = read_pairs(tmp_path / "old", tmp_path / "new")
    assert differs == "" and pair.measure == "f1_labels" and pair.labels.shape[1] == 3
    gain = compare([pair], draws=500)[0]
    scores = [
        json.loads((tmp_path / side / "tasks/macro/results.json").read_text())["score"] for side in ("old", "new")
    ]
    assert [gain.old, gain.new] == pytest.approx(scores, abs=1e-6) and scores[0] < scores[1] and gain.p < 0.05
    file = tmp_path / "old/tasks/macro/dev_predictions.tsv"
    file.write_text("".join(line.rsplit("\t", 2)[0] + "\n" for line in file.read_text().splitlines()))
    told = "macro: for f1_macro the names of each row's labels are needed, and were not kept"
    assert read_pairs(tmp_path / "old", tmp_path / "new")[1] == told


def test_a_better_version_takes_the_place_and_rollback_gives_it_back(here):
    from tasks.promotion import rollback

    root, tasks = here
    better = tasks | {"entities": tasks["entities"] | {"epochs": 4}}
    before = json.loads((root / "models/tasks/entities/results.json").read_text())["score"]
    finetune.run(params_of(better), "entities")
    after = json.loads((root / "models/tasks/entities/results.json").read_text())["score"]
    assert after > before, "or there is nothing to promote"
    assert register_all(params_of(better), root) == ["roberta-entities 2"]
    told = "\n".join(promote_all(params_of(better), root))
    assert "roberta-entities 2" in told and "f1" in told
    assert "promoted: f1 1.0000 against the champion's" in told and "not promoted: f1" not in told
    text = ["That dog hid on the roof ."]
    answers = [open_registered(f"models:/roberta-entities/{number}", root).predict(text) for number in (1, 2)]
    assert open_registered("roberta-entities", root).predict(text) == answers[1] != answers[0]
    rollback(root, "roberta-entities")
    assert open_registered("roberta-entities", root).predict(text) == answers[0]


def resampled_by_hand(measure: str, old, new, labels, picked) -> float:
    """The gain on one resample, row by row, by scikit-learn and scipy."""
    from scipy.stats import spearmanr
    from sklearn.metrics import f1_score, matthews_corrcoef

    def score(side):
        side, truth = np.asarray(side)[picked], np.asarray(labels)[picked]
        if measure == "f1_labels":
            both = [(one, other) for one, other in zip(truth.T, side.T) if (one | other).any()]
            return np.mean([2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in both])
        if measure == "counts":
            right, guessed, there = side.sum(axis=0)
            return 2 * right / (guessed + there)
        if measure == "mean":
            return side.mean()
        if measure == "mcc":
            return matthews_corrcoef(truth, side)
        return spearmanr(truth, side).statistic if measure == "spearman" else f1_score(truth, side, average="macro")

    return score(new) - score(old)


@pytest.mark.parametrize("measure", ["counts", "mean", "f1_macro", "f1_labels", "mcc", "spearman"])
def test_intervals_are_those_of_rows_resampled_by_hand(measure):
    draw = np.random.default_rng(4)
    rows = 250
    if measure == "counts":
        there = draw.integers(0, 3, rows)
        sides = []
        for chance in (0.4, 0.7):
            right = draw.binomial(there, chance)
            sides.append(np.stack((right, right + draw.integers(0, 2, rows), there), 1))
        labels = there
    elif measure == "mean":
        labels, sides = (
            np.zeros(rows),
            [draw.choice((0.0, 0.5, 1.0), rows, p=p) for p in ((0.5, 0.2, 0.3), (0.3, 0.2, 0.5))],
        )
    elif measure == "f1_labels":  # the last label is rare: it is missing in some resamples
        labels = draw.random((rows, 5)) < (0.5, 0.3, 0.2, 0.1, 0.012)
        sides = [labels ^ (draw.random((rows, 5)) < wrong) for wrong in (0.2, 0.1)]
    elif measure == "spearman":
        labels = draw.normal(size=rows)
        sides = [labels + noise * draw.normal(size=rows) for noise in (2.0, 1.0)]
    else:
        labels = draw.integers(0, 4, rows)
        sides = [np.where(draw.random(rows) < right, labels, draw.integers(0, 4, rows)) for right in (0.4, 0.6)]
    (gain, _) = compare([Pair("t", "m", np.asarray(labels), *sides, measure=measure)], draws=4000)
    everything = np.arange(rows)
    assert gain.gain == pytest.approx(resampled_by_hand(measure, *sides, labels, everything), abs=1e-9)
    hand = [resampled_by_hand(measure, *sides, labels, draw.integers(0, rows, rows)) for _ in range(800)]
    low, high = np.quantile(hand, (0.025, 0.975))
    assert gain.low == pytest.approx(low, abs=0.025) and gain.high == pytest.approx(high, abs=0.025)
