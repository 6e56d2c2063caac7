"""`roberta blimp` as a user meets it: a table, JSON alone on the output, and one line for what is not an encoder."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli import app
from roberta_core.errors import BadInput
from tests.core.glue.tiny_encoder import write_encoder
from tests.tasks.tiny_models import tiny_classifier

PAIR = {"sentence_good": "parser river", "sentence_bad": "river parser module", "UID": "order"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blimp")
    write_encoder(folder / "encoder")
    rows = [
        PAIR,
        PAIR | {"UID": "other", "sentence_bad": PAIR["sentence_good"]},
        PAIR | {"sentence_bad": "river " * 99},
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf8")
    return folder


def test_a_table_with_what_was_left_out(place):
    done = CliRunner().invoke(app, ["blimp", str(place / "encoder"), str(place / "pairs.jsonl"), "--fp32"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    header = next(at for at, line in enumerate(lines) if line.startswith("paradigm"))
    cells = [line.split() for line in lines[header + 1 : header + 4]]
    assert [row[:2] for row in cells] == [["order", "1"], ["other", "1"], ["all", "2"]]
    assert cells[1][2:5] == ["0.0%", "1", "0"], "the same sentence twice is a tie, and a tie is not right"
    assert cells[0][3:5] == ["0", "1"], "two tokens against three"
    assert f"left out: {place / 'pairs.jsonl'}, line 3: " in done.stdout and "fp32" in lines[-1]


def test_json_alone_on_the_output(place):
    done = CliRunner().invoke(app, ["blimp", str(place / "encoder"), str(place / "pairs.jsonl"), "--json"])
    told = json.loads(done.stdout)
    assert told["precision"] == "bf16" and len(told["left_out"]) == 1
    assert [row["name"] for row in told["paradigms"]] == ["order", "other", "all"]
    assert "sentences" in done.stderr, "progress goes where it does no harm"


def test_a_classifier_is_refused(place):
    model = tiny_classifier(place / "classifier", place / "encoder", ["no", "yes"])
    done = CliRunner().invoke(app, ["blimp", str(model), str(place / "pairs.jsonl")])
    assert isinstance(done.exception, BadInput) and "is no encoder" in str(done.exception)
