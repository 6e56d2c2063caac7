"""The stage finetune: every kind from a file to a model that answers on raw text as it was scored; the same bytes twice."""

import json
import shutil
from pathlib import Path

import pytest
from markupsafe import escape

from roberta_core.errors import BadInput, BadParams
from roberta_core.finetune.recipe import ENGINE
from roberta_core.inference import load_model
from tasks import finetune
from tasks.own_scores import own_numbers, own_section, own_table
from tasks.report import environment
from tests.tasks.own_data import KINDS, params_of, sentences, standing_in, write_project


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project folder with an encoder, the files of every kind, and every kind fine-tuned."""
    root = tmp_path_factory.mktemp("own")
    tasks = write_project(root)
    with standing_in(root):
        metrics = {name: finetune.run(params_of(tasks), name) for name in KINDS}
    return root, tasks, metrics


@pytest.fixture
def here(place):
    with standing_in(place[0]):
        yield place[:2]


def results_of(root: Path, name: str) -> dict:
    return json.loads((root / "models/tasks" / name / "results.json").read_text())


def predictions_of(root: Path, name: str, split: str = "dev") -> list[dict[str, str]]:
    lines = (root / "models/tasks" / name / f"{split}_predictions.tsv").read_text().splitlines()
    head = lines[0].split("\t")
    return [dict(zip(head, line.split("\t"), strict=True)) for line in lines[1:]]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_leaves_model_figures_and_predictions(place, name):
    root, tasks, metrics = place
    results = results_of(root, name)
    assert results["kind"] == tasks[name]["kind"] and results["data"] == "own"
    assert results["score"] == results["metrics"][results["metric"]] == metrics[name]["score"]
    assert results["protocol"]["engine"] == ENGINE
    assert results["protocol"]["seeds"] == [1] and results["protocol"]["selection"] == "last step; one seed"
    assert results["baselines"] and all(results["metric"] in each for each in results["baselines"].values())
    assert len(predictions_of(root, name)) == results["rows"]["dev"]
    assert results["tables"] and all(
        len(row) == len(each["head"]) for each in results["tables"] for row in each["rows"]
    )
    assert sum(results["rows"].values()) == {"questions": 24}.get(name, 64)
    assert {file.name for file in (root / "models/tasks" / name).iterdir()} >= {
        "config.json", "model.safetensors", "task.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    if "test" in results:
        assert len(predictions_of(root, name, "test")) == results["rows"]["test"]
        assert metrics[name][f"test_{results['metric']}"] == results["test"]["score"]


def test_what_is_there_to_learn_is_learned(place):
    root, _, _ = place
    assert results_of(root, "pets")["score"] == 1.0
    assert results_of(root, "entities")["score"] > 0.9 and results_of(root, "entities")["test"]["score"] > 0.9
    assert results_of(root, "several")["score"] > 0.7


def test_the_served_models_answer_as_they_were_scored(place):
    root, _, _ = place
    models = {name: load_model(root / "models/tasks" / name) for name in KINDS}
    texts = [text for text, *_ in sentences()]
    for row in predictions_of(root, "pets"):
        (found,) = models["pets"].predict([texts[int(row["index"]) - 2]])
        assert found["label"] == row["prediction"]
        assert found["score"] == pytest.approx(float(row[f"probability_{found['label']}"]), abs=1e-5)
    for row in predictions_of(root, "several"):
        (found,) = models["several"].predict([texts[int(row["index"]) - 1]])
        assert sorted(each["label"] for each in found) == sorted(filter(None, row["prediction"].split(",")))
    for row in predictions_of(root, "prices"):
        (found,) = models["prices"].predict([f"{texts[int(row['index']) - 2]}\tWhere was it ?"])
        assert found["label"] == "price" and found["score"] == pytest.approx(float(row["prediction"]), rel=1e-3)
    for row, text in zip(predictions_of(root, "entities"), texts[48:56]):
        (found,) = models["entities"].predict([text])
        assert "; ".join(f"{each['text']} [{each['label']}]" for each in found) == row["prediction"]
        assert all(text[each["start"] : each["end"]] == each["text"] for each in found)
    asked = {
        each["id"]: {"question": each["question"], "context": paragraph["context"]}
        for article in json.loads((root / "own/questions.json").read_text())["data"]
        for paragraph in article["paragraphs"]
        for each in paragraph["qas"]
    }
    for row in predictions_of(root, "questions"):
        (found,) = models["questions"].predict([asked[row["index"]]])
        assert found["answer"] == row["prediction"]
        tabbed = "\t".join(asked[row["index"]].values())
        assert models["questions"].predict([tabbed])[0]["answer"] == found["answer"]
        if found["answer"]:
            assert asked[row["index"]]["context"][found["start"] : found["end"]] == found["answer"]


@pytest.mark.parametrize("name", ["pets", "questions"])
def test_the_same_bytes_twice(here, name):
    root, tasks = here
    folder = root / "models/tasks" / name
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    # without what a killed stage would go on from
    shutil.rmtree(root / ".work/finetune" / name)
    finetune.run(params_of(tasks), name)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


def test_questions_are_divided_by_article(place):
    root, _, _ = place
    results = results_of(root, "questions")
    dev = {row["index"][:-1] for row in predictions_of(root, "questions")}
    test = {row["index"][:-1] for row in predictions_of(root, "questions", "test")}
    assert results["rows"] == {"train": 12, "dev": 6, "test": 6} and not dev & test
    assert results["shared"] == {"dev": 0, "test": 0} and "of train held out" in results["protocol"]["split"]
    assert {"threshold", "dev_best_f1", "dev_best_exact_match"} == set(results["no_answer"])
    assert results["no_answer"]["dev_best_f1"] == pytest.approx(results["metrics"]["f1"], abs=1e-6)
    assert "best_f1" in results["test"]["metrics"] and "majority" in results["baselines"]


def test_seeds_and_options(here):
    root, tasks = here
    options = {"keep_best": True, "class_weights": "balanced", "delete_words": 0.1, "layer_decay": 0.9}
    task = tasks["pets"] | {"seeds": [3, 1, 2], "options": options, "epochs": 2}
    finetune.run(params_of({"seeded": task}), "seeded")
    results = results_of(root, "seeded")
    assert sorted(results["seeds"]) == ["1", "2", "3"]
    assert results["score"] == sorted(results["seeds"].values())[1] == results["seeds"][str(results["chosen"]["seed"])]
    assert (
        results["protocol"]["selection"] == "best epoch on dev; median over seeds" and results["chosen"]["epochs"] == 2
    )
    assert results["protocol"]["options"] == options


def test_summary_and_report_show_them(here):
    root, tasks = here
    params = params_of(tasks | {"later": tasks["pets"]})
    results = {name: results_of(root, name) for name in KINDS}
    lines = "\n".join(own_table(results))
    for name, each in results.items():
        assert f"| {name} | {each['kind']} | {each['metric']} | dev | {each['score']:.3f} |" in lines
        assert f"Protocol of {name}: dev" in lines
    assert f"| questions | questions | f1 | test | {results['questions']['test']['score']:.3f} |" in lines
    assert "Under most frequent also: mean (regression), no answer (questions)." in lines
    numbers = own_numbers(results)
    assert numbers["scores.pets"] == 1.0 and "scores.entities.test" in numbers
    assert own_table({}) == [] and own_section(root, params_of({})) is None
    page = environment().get_template("report_own.html").render(own=own_section(root, params))
    for each in results.values():
        assert all(str(escape(table["title"])) in page for table in each["tables"])
    assert "Not fine-tuned yet: later" in page and "Confusion: labels down" in page and "came in windows" in page
    ways = [list(each["splits"][0]["ways"]) for each in own_section(root, params)["tasks"]]
    first, dictionary = "most frequent", [["most frequent", "dictionary"]]
    assert ways == [[first, "TF-IDF"]] * 2 + [["mean", "TF-IDF"]] + dictionary + [["no answer", "TF-IDF"]]
    assert page.count('<table class="splits" style="--columns:5">') == len(KINDS)
    assert page.count('class="figures"') > 0 < page.count('class="texts"')


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"path": "own/nothing.csv"}, r"There is no own/nothing\.csv"),
        (
            {"path": "own"},
            r"own has no file called train, as .* \(there: entities, pets\.csv.*\)\. Name the training",
        ),
        ({"path": "own", "train": "pets.csvv"}, r"There is no own/pets\.csvv \(there: entities, pets\.csv"),
        ({"dev": "pets.csv"}, r"is a file, so there is nothing in it to name"),
        ({"text": "sentence"}, r"no column sentence \(found: text, label\)"),
        ({"options": {"class_weights": [1, 2, 3]}}, r"class_weights has 3 numbers, and there are 2 labels"),
    ],
)
def test_what_is_wrong_with_a_task_is_one_line(here, changes, told):
    root, tasks = here
    before = sorted((root / "models/tasks/pets").iterdir())
    with pytest.raises((BadParams, BadInput), match=told) as raised:
        finetune.run(params_of({"pets": tasks["pets"] | changes}), "pets")
    assert "\n" not in str(raised.value) and sorted((root / "models/tasks/pets").iterdir()) == before


def test_names_that_are_none(here):
    _, tasks = here
    with pytest.raises(BadParams, match=r"There is no task '' in finetune\.tasks \(there: pets"):
        finetune.run(params_of(tasks))
    with pytest.raises(ValueError, match="has the name of a GLUE task"):
        params_of({"cola": tasks["pets"]})
    with pytest.raises(ValueError, match="takes the metric accuracy or f1_macro or mcc, got 'f1'"):
        params_of({"pets": tasks["pets"] | {"metric": "f1"}})


def test_rows_that_stand_on_both_sides_and_labels_never_seen(here, tmp_path):
    root, tasks = here
    rows = [f"{text},{pet}" for text, pet, _, _ in sentences()]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "dev.csv").write_text(
        "\n".join(["text,label", *rows[:3], "That bird sat .,bird", "The cat knew .,cat"])
    )
    (tmp_path / "test.csv").write_text("\n".join(["text", "The cat asked .", "Who asked ?"]))
    finetune.run(params_of({"given": tasks["pets"] | {"path": str(tmp_path)}}), "given")
    results = results_of(root, "given")
    assert results["shared"] == {"dev": 3} and results["test"] == {"hidden": True}
    notes = "\n".join(results["notes"])
    assert "3 of 5 dev rows stand in train too" in notes and "'bird' never occurs in training: 1 row" in notes
    assert "test.csv hides its labels" in notes and results["metrics"]["accuracy"] == pytest.approx(0.8)
    assert [row["label"] for row in predictions_of(root, "given", "test")] == ["", ""]
    matrix = results["tables"][0]
    assert (
        matrix["head"] == ["label", "cat", "dog", "bird"] and sum(map(sum, (row[1:] for row in matrix["rows"]))) == 5
    )


def test_equal_texts_with_different_labels_in_train_are_counted_and_told(here, tmp_path):
    _, tasks = here

    def count(name: str, old: str, new: str) -> int:
        """Of a task whose rows come twice, one of them the second time with `new` for `old`."""
        task = tasks[name] | {"path": str(tmp_path / Path(tasks[name]["path"]).name), "epochs": 1, "dev_share": 0.1}
        text = Path(tasks[name]["path"]).read_text()
        head, sep, body = text.partition("\n") if name in ("pets", "prices") else ("", "", text)
        assert old in body
        Path(task["path"]).write_text(head + sep + body + "\n" + body.replace(old, new, 1))
        job = finetune.Job(params_of({name: task}), name)
        told = [note for note in job.notes if "have the text of another row, and another label: " in note]
        assert len(told) == (job.contradictory > 0)
        return job.contradictory

    first = "The cat sat on the mat ."
    assert count("pets", f"{first},cat", f"{first},dog") == 2 and count("pets", first, first) == 0
    assert count("prices", "the mat .\tWhere was it ?\t100", "the mat .\tWhere was it ?\t101") == 2
    assert count("several", '"tags": ["cat"]', '"tags": ["cat", "dog"]') == 2
