"""Protocols of the glue stage: the grid's best median, a start from MNLI, what is told, and what a killed stage keeps."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from roberta_core.errors import BadParams, UserError
from tasks import gate, glue
from tasks.candidates import protocol_name
from tasks.params import Params
from tasks.params_file import load_params
from tasks.summary import protocol_line
from tests.core.glue.tiny_encoder import WORDS, write_encoder
from tests.tasks.stage_processes import BASE, finish, start
from tests.tasks.test_glue_stage import snapshot

RTE, MNLI = ("entailment", "not_entailment"), ("entailment", "neutral", "contradiction")


def write_task(root: Path, name: str, labels: tuple[str, ...], train: int, dev: int) -> None:
    """A pair task in its official layout: a label's own word stands in the second text."""
    draw = np.random.default_rng(0)
    folder = root / "data" / "glue" / name
    folder.mkdir(parents=True, exist_ok=True)
    mnli = name == "MNLI"
    for file, rows in (
        ("train", train),
        ("dev_matched" if mnli else "dev", dev),
        ("dev_mismatched", dev if mnli else 0),
    ):
        lines = ["\t".join(["index", "sentence1", "sentence2", "gold_label" if mnli else "label"])]
        for row in range(rows):
            first, second = (" ".join(draw.choice(WORDS[3:], 6)) for _ in range(2))
            lines.append(f"{row}\t{first}\t{second} {WORDS[row % len(labels)]}\t{labels[row % len(labels)]}")
        if rows:
            (folder / f"{file}.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A project with RTE and MNLI of a few rows, and an encoder."""
    write_task(tmp_path, "RTE", RTE, 32, 24)
    write_task(tmp_path, "MNLI", MNLI, 48, 24)
    write_encoder(tmp_path / "models/encoder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def params_of(**section) -> dict:
    section = {"tasks": ["RTE"], "epochs": 1, "batch_size": 16, "peak_lr": 1e-3, "data": "local"} | section
    return {**BASE, "glue": BASE["glue"] | section, "runtime": {"device": "cpu"}}


def make(**section) -> Params:
    return Params.model_validate(params_of(**section))


def results_of(root: Path, task: str = "RTE") -> dict:
    return json.loads((root / "models/glue" / task / "results.json").read_text())


def test_paper_takes_the_best_median_of_the_grid_in_one_process(here, monkeypatch, capsys):
    encoded, tokenise = [], glue.tokenise
    monkeypatch.setattr(glue, "tokenise", lambda *each: encoded.append(len(each[1])) or tokenise(*each))
    params = make(protocol="paper", grid_lr=[1e-9, 2e-3], grid_batch=[16])
    glue.run(params, "RTE")
    assert encoded == [32, 24], "nothing is encoded twice"
    found = results_of(here)
    assert [(each["peak_lr"], list(each["seeds"])) for each in found["grid"]] == [
        (1e-9, ["1", "2", "3", "4", "5"]), (2e-3, ["1", "2", "3", "4", "5"]),
    ]  # fmt: skip
    medians = [sorted(each["seeds"].values())[2] for each in found["grid"]]
    assert medians[1] > medians[0], "a rate of nothing learns nothing"
    assert found["score"] == medians[1] and found["seeds"] == found["grid"][1]["seeds"]
    assert found["chosen"]["peak_lr"] == 2e-3 and 1 <= found["chosen"]["epoch"] <= found["chosen"]["epochs"] == 10
    protocol = found["protocol"]
    assert (protocol["name"], protocol["epochs"], protocol["warmup_ratio"], protocol["split"]) == (
        "paper",
        10,
        0.06,
        "dev",
    )
    assert protocol["staged_from_mnli"] is False and "steps" not in protocol
    assert protocol["selection"] == "best epoch by dev accuracy; median over seeds; best of 2 settings by that"
    said = capsys.readouterr().out
    assert "protocol paper, 2 settings × 5 seeds; not used: glue.epochs, glue.warmup_ratio, glue.seeds" in said
    line = protocol_line(found)
    assert line.startswith(
        "paper: dev split, 5 seeds (1, 2, 3, 4, 5), up to 10 epochs, grid of peak rates 1e-09, 0.002 and"
    )
    lines = (here / "models/glue/RTE/dev_predictions.tsv").read_text().splitlines()[1:]
    right = sum(label == guess for _, label, guess, *_ in (line.split("\t") for line in lines))
    assert right / 24 == pytest.approx(found["score"], abs=1e-6), "the predictions are those of the model kept"
    models = list((here / ".work/glue/RTE").rglob("model.safetensors"))
    assert len(models) == 1 and models[0].read_bytes() == (here / "models/glue/RTE/model.safetensors").read_bytes()


def test_staged_starts_from_the_mnli_model_and_says_so(here):
    plain = {"tasks": ["MNLI"], "protocol": "staged", "staged": ["RTE"]}
    with pytest.raises(BadParams, match=r"RTE starts from the MNLI model, and models/glue/MNLI is not there"):
        glue.run(make(**plain), "RTE")
    glue.run(make(**plain), "MNLI")
    glue.run(make(**plain, options={"frozen_layers": 2}), "RTE")
    mnli, rte, encoder = (
        load_file(here / folder / "model.safetensors")
        for folder in ("models/glue/MNLI", "models/glue/RTE", "models/encoder")
    )
    name = "roberta.encoder.layer.1.output.dense.weight"
    assert np.array_equal(rte[name], mnli[name]) and not np.array_equal(rte[name], encoder[name])
    assert rte["classifier.out_proj.weight"].shape[0] == 2 and mnli["classifier.out_proj.weight"].shape[0] == 3
    assert not np.allclose(rte["classifier.dense.weight"], mnli["classifier.dense.weight"], atol=0.01), (
        "a head of its own"
    )
    found = results_of(here)
    assert found["protocol"]["staged_from_mnli"] is True and found["protocol"]["options.frozen_layers"] == 2
    assert "started from MNLI" in protocol_line(found) and "frozen_layers 2" in protocol_line(found)
    assert results_of(here, "MNLI")["protocol"]["staged_from_mnli"] is False


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"protocol": "staged"}, "protocol staged and the list staged go together"),
        ({"staged": ["RTE"], "tasks": ["MNLI"]}, "protocol staged and the list staged go together"),
        ({"protocol": "staged", "staged": ["RTE"], "tasks": ["MNLI", "RTE"]}, "RTE stands in tasks and in staged"),
        ({"protocol": "staged", "staged": ["RTE"], "tasks": ["CoLA"]}, "MNLI is not in tasks"),
        ({"protocol": "best"}, "glue.protocol"),
        ({"options": {"patience": 2}}, "patience needs keep_best"),
        ({"options": {"layer_decay": 1.5}}, "glue.options.layer_decay"),
        ({"grid_lr": []}, "glue.grid_lr"),
    ],
)
def test_protocols_that_do_not_fit_are_refused(tmp_path, section, told):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params_of(**section)))
    with pytest.raises(UserError, match=told):
        load_params(tmp_path / "params.yaml")


def test_weights_for_another_number_of_labels_are_refused(here):
    with pytest.raises(BadParams, match="class_weights has 3 numbers, and RTE has 2 labels"):
        glue.run(make(options={"class_weights": [1.0, 2.0, 3.0]}), "RTE")
    assert not (here / "models/glue/RTE").exists()


def test_two_protocols_are_never_compared():
    def tags(protocol, **more):
        yardstick = {"metric": "accuracy", "selection": "last step; one seed", "dev_md5": "1"} | more
        if protocol:
            yardstick["protocol"] = protocol
        return {"data": "local", "measure": "accuracy", "yardstick": json.dumps(yardstick)}

    assert gate.difference(tags("quick"), tags("quick")) == gate.difference(tags("quick"), tags(None)) == ""
    assert "protocol paper against quick" in gate.difference(tags("paper"), tags(None))
    assert "protocol quick against staged from MNLI" in gate.difference(tags("quick"), tags("staged from MNLI"))
    assert "another dev_md5" in gate.difference(tags("quick", dev_md5="2"), tags("quick"))
    assert protocol_name({"name": "staged", "staged_from_mnli": True}) == "staged from MNLI"
    assert protocol_name({"name": "staged", "staged_from_mnli": False}) == "staged"

    def encoder(**task):
        return {"data": "local", "measure": "mean score of 1 tasks", "yardstick": json.dumps({"RTE": task})}

    assert gate.difference(encoder(epochs=1), encoder(epochs=1, name="quick", protocol="quick")) == ""
    assert "RTE: protocol paper against quick" in gate.difference(encoder(name="paper", protocol="paper"), encoder())
    # the way of fine-tuning is part of an encoder's score; a record without an engine is of the first one
    assert gate.difference(encoder(engine=1), encoder()) == ""
    assert "RTE: fine-tuned by engine 2 against 1" in gate.difference(encoder(engine=2), encoder())


def test_what_is_odd_about_the_rows_is_counted(here):
    folder = here / "data/glue/RTE"
    train = (folder / "train.tsv").read_text().splitlines()
    dev = (folder / "dev.tsv").read_text().splitlines()
    dev[3], dev[4], dev[5] = train[7], train[8], "4\t\tnothing before\tentailment"
    (folder / "dev.tsv").write_text("\n".join(dev) + "\n")
    metrics = glue.run(make(max_length=16), "RTE")
    found = results_of(here)
    assert found["oddities"]["shared"] == 2 and found["oddities"]["empty"] == 1
    assert found["oddities"]["truncated"] == metrics["truncated"] > 0
    assert found["notes"][:2] == [
        "2 of 24 dev rows stand in train too: the score flatters",
        "1 rows have an empty text; they are used as they are",
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_stage_does_only_what_is_not_done(here):
    """SIGKILL within the first of four fine-tunings, and after the second: the bytes of the undisturbed stage."""
    section = params_of(seeds=[1, 2, 3, 4], epochs=15, options={"keep_best": True})
    section["runtime"] |= {"checkpoint_minutes": 0.02}
    (here / "params.yaml").write_text(yaml.safe_dump(section))
    runs = here / ".work/glue/RTE"

    def kill_when(pattern: str, count: int) -> None:
        process = start(here, "glue RTE")
        while len(list(runs.glob(pattern))) < count and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL, "it was killed at work"

    kill_when("*/state-*/step-*", 1)
    kill_when("*/[0-9]*/result.json", 2)
    done = {path: path.stat().st_ino for path in runs.glob("*/[0-9]*/result.json")}
    assert not (here / "models/glue/RTE").exists()
    code, said = finish(start(here, "glue RTE"))
    assert code == 0, said
    assert {path: path.stat().st_ino for path in done} == done, "what was done is not done again"
    found = snapshot(here / "models/glue/RTE")
    shutil.rmtree(here / "models/glue")
    shutil.rmtree(runs)
    assert finish(start(here, "glue RTE"))[0] == 0
    assert snapshot(here / "models/glue/RTE") == found
