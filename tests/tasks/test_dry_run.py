"""`roberta pretrain --dry-run`: from a params file alone, on a named GPU and on this machine; nothing is written."""

import os
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from roberta_core.errors import BadParams
from tasks.dry_run import report
from tasks.params import Params
from tasks.params_file import load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A project where nothing ran yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def changed(preset: str, **sections: dict) -> Params:
    """A preset with some keys replaced."""
    values = yaml.safe_load((ROOT / f"presets/{preset}.yaml").read_text(encoding="utf8"))
    return Params.model_validate(values | {name: values[name] | keys for name, keys in sections.items()})


def test_the_papers_run_on_eight_gpus(empty):
    lines = "\n".join(report(load_params(ROOT / "presets/roberta-base.yaml"), "H100", 8))
    for told in (
        "base: 124.7 M",
        "500,000 of 8,192",
        "2.1T",
        "601.5 M a token · 1.26e+21",
        "4.6 days to 7.1 days",
        "not measured",
    ):
        assert told in lines, lines
    assert re.search(r"micro_batch 256 \(4 parts an update\)", lines) and "do not exist yet" in lines
    assert list(empty.iterdir()) == [empty / "dvc.yaml"]


def test_a_micro_batch_that_does_not_fit_and_a_model_that_does_not(empty):
    params = changed("roberta-large", runtime={"micro_batch": 512})
    assert any("micro_batch is 512, which does not fit" in line for line in report(params, "A100"))
    params = changed("roberta-large", pack={"max_length": 8192})
    assert any(line.startswith("fits        nothing: T4 has 16.00 GB") for line in report(params, "T4"))


def test_this_machine_is_measured_with_real_updates(empty):
    params = changed("smoke", pretrain={"size": "tiny"}, tokenizer={"vocab_size": 500}, pack={"max_length": 32})
    (told,) = [line for line in report(params) if line.startswith("time")]
    speed = re.search(r"([\d.]+)(k?) tokens/s, \d+% of [\d.]+ TFLOP/s, measured at (1 and )?\d+ sequences", told)
    assert speed and float(speed[1]) > 0, told
    assert sorted(path.name for path in empty.iterdir()) == ["dvc.yaml"]


def test_a_device_that_nobody_knows():
    with pytest.raises(BadParams, match=r"Voodoo is not known\. Known are: B200, H200, H100"):
        report(load_params(ROOT / "params.yaml"), "Voodoo")


def test_on_the_command_line(empty):
    from flows.cli import app

    (empty / "params.yaml").write_bytes((ROOT / "presets/small.yaml").read_bytes())
    here = os.getcwd()
    done = CliRunner().invoke(app, ["pretrain", "--dry-run", "--device", "A100"])
    os.chdir(here)
    assert done.exit_code == 0 and done.output.startswith("model       "), done.output
    assert "100.00 GB" not in done.output and "80.00 GB of A100" in done.output


def test_without_dry_run_the_stage_is_run(monkeypatch):
    from flows import cli

    asked = []
    monkeypatch.setattr(cli, "stage", asked.append)
    assert CliRunner().invoke(cli.app, ["pretrain"]).exit_code == 0 and asked == ["pretrain"]
