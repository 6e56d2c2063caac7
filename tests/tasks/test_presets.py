"""Every preset is a params file that works: the schema takes it, and DVC builds the whole DAG from it."""

import re
import shutil
import subprocess
from functools import reduce
from pathlib import Path

import pytest
import yaml

from tasks.params_file import load_params

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of what DVC reads of the project: the DAG and the settings."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "dvc.yaml", folder)
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    return folder


def test_the_presets_are_all_there():
    assert {"quickstart", "wiki", "small", "roberta-base", "roberta-large"} <= {preset.stem for preset in PRESETS}


def test_params_yaml_is_the_quickstart():
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "presets/quickstart.yaml").read_bytes()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_a_preset_loads_and_dvc_resolves_the_dag_with_it(preset: Path, project: Path):
    params = load_params(preset)
    shutil.copy(preset, project / "params.yaml")
    done = subprocess.run(["dvc", "stage", "list", "--name-only"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stages = set(done.stdout.split())
    assert {f"download@{source}" for source in params.corpus.sources} <= stages
    assert {f"glue@{task}" for task in params.glue.tasks} == {stage for stage in stages if stage.startswith("glue@")}
    assert "summary" in stages


def watched(item: object) -> set[str]:
    """Every key that a stage of dvc.yaml names under `params`."""
    if isinstance(item, dict):
        return set(item.get("params", ())) | {key for each in item.values() for key in watched(each)}
    return set()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_a_preset_has_every_key_that_dvc_watches(preset: Path):
    """DVC stops at a watched key that the file leaves to its default, and only once the stage's turn has come."""
    dag = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf8"))
    keys = {key for key in watched(dag["stages"]) if "$" not in key}
    assert {"clean", "glue.epochs"} <= keys
    values = yaml.safe_load(preset.read_text(encoding="utf8"))
    missing = [
        key for key in sorted(keys) if reduce(lambda at, part: (at or {}).get(part), key.split("."), values) is None
    ]
    assert missing == []


@pytest.mark.parametrize("preset", [p for p in PRESETS if p.stem != "quickstart"], ids=lambda preset: preset.stem)
def test_a_preset_says_on_its_first_line_what_it_needs(preset: Path):
    first = preset.read_text(encoding="utf8").splitlines()[0]
    assert first.startswith("# ") and re.search(r"\bcores?\b|\bGPUs?\b", first), first
    assert re.search(r"\b(minutes?|hours?|days?)\b", first), first


@pytest.mark.parametrize("name", ["roberta-base", "roberta-large"])
def test_the_papers_corpora_are_named_each_with_a_word_on_its_licence(name: str):
    """Liu et al. 2019, section 3.2: five corpora of 160 GB."""
    text = (ROOT / f"presets/{name}.yaml").read_text(encoding="utf8")
    sources = load_params(ROOT / f"presets/{name}.yaml").corpus.sources
    assert list(sources) == ["wikipedia", "books", "openwebtext", "stories", "cc-news"]
    guide = (ROOT / "docs/data.md").read_text(encoding="utf8")
    for source, given in sources.items():
        assert re.search(rf"^    {source}: +# .*(cc|public domain|licence)", text, re.MULTILINE), source
        on_the_hub = given.name or "/".join(given.url.removeprefix("hf://datasets/").split("@")[0].split("/")[:2])
        assert f"`{on_the_hub}`" in guide, "the guide has its size and its licence"


def test_the_roberta_large_preset_has_the_papers_values():
    """Liu et al. 2019, table 9."""
    pretrain = load_params(ROOT / "presets/roberta-large.yaml").pretrain
    assert (pretrain.size, pretrain.recipe) == ("large", "paper")
    assert (pretrain.max_steps, pretrain.batch_size) == (500_000, 8192)
    assert (pretrain.peak_lr, pretrain.warmup_steps) == (4e-4, 30_000)


def test_the_roberta_base_preset_has_the_papers_values():
    """Liu et al. 2019, tables 9 and 10."""
    params = load_params(ROOT / "presets/roberta-base.yaml")
    pretrain, glue = params.pretrain, params.glue
    assert (pretrain.size, pretrain.recipe) == ("base", "paper")
    assert (pretrain.max_steps, pretrain.batch_size) == (500_000, 8192)
    assert (pretrain.peak_lr, pretrain.warmup_steps) == (6e-4, 24_000)
    assert (pretrain.weight_decay, pretrain.dropout, pretrain.clip_norm) == (0.01, 0.1, 0)
    assert (params.pack.max_length, params.tokenizer.vocab_size) == (512, 50_265)
    assert (glue.weight_decay, glue.warmup_ratio, glue.epochs, len(glue.seeds)) == (0.1, 0.06, 10, 5)
    assert glue.peak_lr in (1e-5, 2e-5, 3e-5) and glue.batch_size in (16, 32)
