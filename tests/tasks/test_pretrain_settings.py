"""The stage `pretrain` as a process: its numbers, its settings, and the lines that bad ones end in."""

from pathlib import Path

import pytest
import yaml

from roberta_core.atomic import read_json
from tests.tasks.stage_processes import finish, start
from tests.tasks.test_pretrain_stage import UPDATES, newest, write_inputs

pytestmark = pytest.mark.slow


def prepared(folder: Path, runtime: dict | None = None, **pretrain: object) -> Path:
    write_inputs(folder, checkpoint_minutes=5.0, **(runtime or {}))
    file = folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["pretrain"] |= pretrain
    file.write_text(yaml.safe_dump(params))
    return folder


def columns(file: Path) -> tuple[list[str], list[list[str]]]:
    header, *rows = [line.split(",") for line in file.read_text().splitlines()]
    return header, rows


def test_every_setting_at_once_and_what_the_run_tells(tmp_path, monkeypatch):
    settings = {"optimizer": "stable-adamw", "schedule": "wsd", "decay_from": 0.5, "batch_from": 2}
    prepared(tmp_path, batch_warmup_steps=10, log_every=5, **settings)
    code, said = finish(start(tmp_path, "pretrain"))
    assert code == 0, said
    metrics = read_json(tmp_path / "metrics/pretrain.json")
    samples = sum(2 + 6 * step // 10 for step in range(10)) + (UPDATES - 10) * 8
    rows = metrics["tokens"] / 32
    assert metrics["skipped"] == 0 and metrics["steps"] == UPDATES and samples - 20 < rows <= samples
    assert metrics["perplexity"] == pytest.approx(2.718281828 ** metrics["loss"], rel=1e-3)
    header, points = columns(tmp_path / "plots/pretrain.csv")
    assert header == ["step", "loss", "lr", "grad_norm"] and [int(row[0]) for row in points] == list(range(5, 61, 5))
    rates = [float(row[2]) for row in points]
    assert rates[1] == rates[5] == max(rates) and rates[6] < rates[5] and rates[-1] < 0.2 * rates[0]
    assert all(float(row[3]) > 0 for row in points)
    speed = read_json(tmp_path / "logs/pretrain.speed.json")
    assert speed["tokens_per_s"] > 0 and 0 < speed["mfu"] < 2 and speed["memory_mb"] > 50
    assert 0 <= speed["padded_share"] < 0.2
    written = {path.name for path in (tmp_path / "metrics").iterdir()} | {
        path.name for path in (tmp_path / "plots").iterdir()
    }
    assert written == {"pretrain.json", "pretrain.csv", "validation.csv"}
    assert "speed" not in (tmp_path / "models/encoder/training.json").read_text()

    monkeypatch.chdir(tmp_path)
    from tasks.dry_run import report
    from tasks.params_file import load_params

    lines = report(load_params(), "L4")
    assert any(f"{metrics['epochs']:.2f} epochs of" in line for line in lines)


def test_a_budget_of_two_seconds_ends_in_order(tmp_path):
    prepared(tmp_path, max_steps=10**6, max_minutes=2 / 60)
    process = start(tmp_path, "pretrain")
    shown, said = process.communicate(timeout=120)
    assert process.returncode == 0 and "no second run will give the same bits" in shown, said
    assert " left" in shown
    metrics = read_json(tmp_path / "metrics/pretrain.json")
    assert 0 < metrics["steps"] < 10**5
    rates = [float(row[2]) for row in columns(tmp_path / "plots/pretrain.csv")[1]]
    assert rates[-1] < max(rates)


def test_a_run_that_diverges_ends_in_one_line_and_leaves_no_output(tmp_path):
    prepared(tmp_path, peak_lr=1e30, warmup_steps=0, clip_norm=0, optimizer="adamw", max_skipped=5)
    code, said = finish(start(tmp_path, "pretrain"))
    assert code == 1 and "Training has diverged" in said and "Lower pretrain.peak_lr" in said
    assert "Traceback" not in said and not (tmp_path / "models/encoder").exists()
    assert not (tmp_path / "metrics/pretrain.json").exists() and newest(tmp_path) <= 1


def test_more_ranks_than_sequences(tmp_path):
    prepared(tmp_path, {"processes": 3}, batch_from=2, batch_warmup_steps=4)
    code, said = finish(start(tmp_path, "pretrain"))
    assert code == 1 and "3 ranks are to share a batch of 2 sequences." in said, said
    assert not (tmp_path / "models/encoder").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"batch_from": 4}, "batch_from and batch_warmup_steps go together"),
        ({"optimizer": "lamb"}, "pretrain.optimizer"),
        ({"max_minutes": 0}, "pretrain.max_minutes"),
        ({"decay_from": 1.0}, "pretrain.decay_from"),
    ],
)
def test_wrong_settings_name_the_key(tmp_path, settings, told):
    prepared(tmp_path, **settings)
    code, said = finish(start(tmp_path, "pretrain"))
    assert code == 1 and told in said and "Traceback" not in said, said
    assert not (tmp_path / ".work" / "pretrain").exists()
