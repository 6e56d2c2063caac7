"""The section finetune: the example is valid, and what is wrong in an entry is one line with its key."""

import re
from pathlib import Path

import pytest
import yaml

from roberta_core.errors import BadParams
from roberta_core.own.kinds import KINDS
from tasks.params_file import load_params
from tasks.params_own import OwnTask

ROOT = Path(__file__).parents[2]
EXAMPLE = yaml.safe_load((ROOT / "docs/examples/own-tasks.yaml").read_text(encoding="utf8"))


def written(tmp_path: Path, tasks: dict) -> Path:
    params = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text(encoding="utf8"))
    params["finetune"]["tasks"] = tasks
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path / "params.yaml"


def test_the_example_has_every_kind_and_is_valid(tmp_path):
    tasks = EXAMPLE["finetune"]["tasks"]
    assert {task["kind"] for task in tasks.values()} == set(KINDS)
    params = load_params(written(tmp_path, tasks))
    assert params.finetune.tasks["reviews"].primary == "f1_macro" and params.finetune.tasks["wnut"].primary == "f1"
    assert params.finetune.tasks["comments"].labels == ("toxic", "insult", "threat")


def test_kinds_of_params_and_library_are_the_same():
    assert set(KINDS) == set(OwnTask.model_fields["kind"].annotation.__args__)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "tagging"}, r"finetune\.tasks\.pets\.kind"),
        ({"epoch": 3}, r"unknown key finetune\.tasks\.pets\.epoch; did you mean epochs\?"),
        ({"options": {"keep_bests": True}}, r"unknown key finetune\.tasks\.pets\.options\.keep_bests"),
        ({"metric": "f1"}, "takes the metric accuracy or f1_macro or mcc, got 'f1'"),
        ({"label": ["a", "b"]}, "a list of columns is for kind: multi-label"),
        ({"text": "label"}, "text and label are the same column"),
        ({"text": ["a", "b", "c"]}, "one column, or the two of a pair"),
        ({"kind": "tokens", "options": {"swap_words": 0.1}}, "words with tags or answers stay where they are"),
        (
            {"kind": "questions", "options": {"class_weights": "balanced"}},
            r"class_weights is for kind: classification",
        ),
        ({"kind": "tokens", "tag": 1}, "two numbers of columns"),
        ({"stride": 100}, "stride is at most half of max_length"),
        ({"dev_share": 0.8, "test_share": 0.5}, "leave nothing for training"),
        ({"path": None}, r"finetune\.tasks\.pets\.path"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_key(tmp_path, changes, told):
    file = written(tmp_path, {"pets": {"kind": "classification", "path": "pets.csv"} | changes})
    with pytest.raises(BadParams, match=told) as raised:
        load_params(file)
    assert "\n" not in str(raised.value) and re.search(r"params\.yaml", str(raised.value))


def test_names_are_told(tmp_path):
    task = {"kind": "classification", "path": "pets.csv"}
    with pytest.raises(BadParams, match=r"finetune\.tasks: the name 'My Pets' has other characters"):
        load_params(written(tmp_path, {"My Pets": task}))
    with pytest.raises(BadParams, match=r"finetune\.tasks\.sst-2 has the name of a GLUE task"):
        load_params(written(tmp_path, {"sst-2": task}))
