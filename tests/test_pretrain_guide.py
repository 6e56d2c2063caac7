"""docs/pretrain.md: its commands parse, its YAML validates, its links exist, and its numbers are those of the code."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from roberta_core.hardware import GPUS
from roberta_core.model import RobertaConfig
from roberta_core.train import plan
from roberta_core.train.batches import BatchPlan
from tasks.dry_run import report
from tasks.params import Params, Pretrain
from tasks.params_file import load_params
from tasks.pretrain import train_config

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/pretrain.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.S)
COMMANDS = [line.split("#")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
SECTIONS = [block for kind, block in BLOCKS if kind == "yaml"]


@pytest.mark.parametrize("preset", [line.split()[1] for line in COMMANDS if line.startswith("cp ")])
def test_presets_that_are_copied_exist(preset):
    assert (ROOT / preset).is_file()


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("roberta ")])
def test_commands_parse(command):
    from typer.testing import CliRunner

    from flows.cli import app

    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--help"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: " ".join(text.split())[:40])
def test_sections_work(section):
    base = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf8"))
    given = yaml.safe_load(section)
    params = Params.model_validate({**base, **{key: {**base.get(key, {}), **part} for key, part in given.items()}})
    assert train_config(params).recipe.peak_lr > 0


def test_there_is_something_to_test():
    assert len(SECTIONS) >= 3 and "roberta pretrain --dry-run" in COMMANDS


def test_links_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", GUIDE) if not link.startswith("http")]
    assert links and [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_keys_that_are_named_exist():
    known = {
        f"{kind}.{name}"
        for kind in ("pretrain", "runtime", "pack")
        for name in Params.model_fields[kind].annotation.model_fields
    }
    named = set(re.findall(r"`((?:pretrain|runtime|pack)\.\w+)", GUIDE))
    assert named and named - known == set()
    table = re.findall(r"^\| `(\w+)[`:]", GUIDE.split("| key |")[1].split("\n\n")[0], re.M)
    assert len(table) > 8 and set(table) <= set(Pretrain.model_fields)


def test_the_table_of_sizes_is_computed(tmp_path, monkeypatch):
    rows = re.findall(r"^\| `(\w+)` \| (\d+) × (\d+) \| (\d+), ([\d,]+) \| (.*) \|$", GUIDE, re.M)
    assert [row[0] for row in rows] == ["tiny", "mini", "small", "medium", "base", "large"]
    for size, layers, width, length, vocabulary, told in rows:
        length, vocabulary = int(length), int(vocabulary.replace(",", ""))
        config = RobertaConfig.named(size, vocabulary, length, 0.1)
        memory = plan.memory(config, length, 0.15, "bf16", "adamw", "cuda", 1024)
        state = memory.weights + memory.gradients + memory.optimizer + memory.casts
        assert (int(layers), int(width)) == (config.num_hidden_layers, config.hidden_size)
        assert told.split(" | ") == [
            f"{config.parameters() / 1e6:.1f} M",
            f"{config.train_flops_per_token(length, 0.15) / 1e6:,.1f}",
            f"{state / 1e9:.2f} GB",
            f"{memory.sequence / 1e6:.1f} MB",
            f"{memory.fitting(24e9):,}",
            f"{memory.fitting(80e9):,}",
        ], size


def hours(size: str, length: int, steps: int, batch: int, gpu: str, count: int) -> list[float]:
    config = RobertaConfig.named(size, 50_265, length, 0.1)
    tokens, flops = (
        plan.total_tokens(BatchPlan(batch, batch), steps, length),
        config.train_flops_per_token(length, 0.15),
    )
    return [plan.seconds(tokens, flops, GPUS[gpu].tflops * 1e12, count, share) / 3600 for share in (0.4, 0.26)]


def test_the_table_of_budgets_is_computed():
    line = r"^\| (base|large), rows of (\d+), ([\d,]+) × ([\d,]+) \(.*?\) \| .*? \| .*? \| (.*?) \| (.*?) \| (.*?) \|$"
    rows = re.findall(line, GUIDE, re.M)
    assert len(rows) == 5
    for size, length, steps, batch, *told in rows:
        for cell, (gpu, count) in zip(told, (("A100", 8), ("H100", 1), ("H100", 8)), strict=True):
            low, high, unit = re.fullmatch(r"([\d.]+) to ([\d.]+) (h|days)", cell).groups()
            numbers = [int(each.replace(",", "")) for each in (length, steps, batch)]
            real = [each / (24 if unit == "days" else 1) for each in hours(size, *numbers, gpu, count)]
            assert [float(low), float(high)] == pytest.approx(real, rel=0.06), (size, cell)


def test_the_dry_run_that_is_shown_is_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = report(load_params(ROOT / "presets/roberta-base.yaml"), "H100", 8)
    assert "\n".join(line for line in lines if not line.startswith("note")) in GUIDE
