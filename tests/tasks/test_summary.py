"""The summary: sums and the mean agree with the stages' own files, and a missing stage is one clear error."""

import shutil
from pathlib import Path

import pytest
import yaml

from roberta_core.atomic import read_json, write_json
from roberta_core.errors import BadInput
from tasks.averages import mean_score, shown
from tasks.params_file import load_params
from tasks.summary import documents_by_source, protocol_line, run
from tests.tasks.report_fixture import DOCUMENTS, SCORES, TASKS, finished_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return finished_run(tmp_path)


def summarise(root: Path) -> dict:
    return run(load_params(root / "params.yaml"), root)


def test_the_numbers_are_those_of_the_stages(finished: Path):
    numbers = summarise(finished)
    assert numbers["documents_seen"] == sum(counts[0] for counts in DOCUMENTS.values())
    assert numbers["documents_kept"] == sum(counts[3] for counts in DOCUMENTS.values())
    pack, pretrain = read_json(finished / "metrics/pack.json"), read_json(finished / "metrics/pretrain.json")
    assert numbers["tokens"] == pack["train_tokens"] + pack["validation_tokens"]
    for key in ("loss", "unigram_entropy", "accuracy"):
        assert numbers[key] == pretrain[key]
    for task in TASKS:
        assert numbers[f"scores.{task}"] == SCORES[task]
    assert numbers["data"] == "sample"


def test_wnli_is_reported_and_never_averaged(finished: Path):
    numbers = summarise(finished)
    others = [score for task, score in SCORES.items() if task != "WNLI"]
    assert numbers["mean_score"] == pytest.approx(sum(others) / len(others), abs=1e-12)
    assert "scores.WNLI" in numbers
    assert mean_score({"WNLI": 0.5}) is None


def test_the_table_says_everything_with_its_protocol(finished: Path):
    summarise(finished)
    table = (finished / "reports/summary.md").read_text(encoding="utf8")
    for source, counts in DOCUMENTS.items():
        assert f"| {source} | " + " | ".join(f"{count:,}" for count in counts) + " |" in table
    for task in TASKS:
        assert f"| {task} | " in table and f"{SCORES[task]:.3f}" in table
    assert "sample tasks, made from the corpus (not GLUE)" in table
    assert "dev split, 3 seeds (1, 2, 3), 2 epochs" in table and "not started from MNLI" in table


def test_real_glue_is_called_so(tmp_path: Path):
    root = finished_run(tmp_path, data="local")
    assert summarise(root)["data"] == "local"
    assert "## Scores: GLUE" in (root / "reports/summary.md").read_text(encoding="utf8")


def test_published_lines_stand_beside_real_glue_alone(tmp_path: Path):
    summarise(finished_run(tmp_path / "sample"))
    assert "published" not in (tmp_path / "sample/reports/summary.md").read_text(encoding="utf8")
    numbers = summarise(finished_run(tmp_path / "real", data="parquet"))
    table = (tmp_path / "real/reports/summary.md").read_text(encoding="utf8")
    ours = [SCORES[task] for task in TASKS if task != "WNLI"]
    assert (
        f"| this run | {' | '.join(f'{shown(100 * score)}' for score in ours)} | {shown(100 * sum(ours) / 8)} |"
        in table
    )
    assert "| RoBERTa-base | 63.6 | 94.8 | 90.2 | 91.2 | 78.7 | 92.8 | 91.9 | 87.6 | 86.4 |" in table
    assert "- MosaicBERT-base: 70,000 updates of 4,096 × 128; RTE, MRPC and STS-B started from MNLI" in table
    assert f"| {numbers['leaderboard_mean']:.3f} |" in table and numbers["leaderboard_mean"] != numbers["mean_score"]
    assert (
        f"| RTE | accuracy | {SCORES['RTE']:.3f} ({SCORES['RTE'] - 0.031:.3f} to {SCORES['RTE'] + 0.027:.3f}) |"
        in table
    )


def test_the_same_files_give_the_same_bytes(finished: Path):
    first = summarise(finished), (finished / "reports/summary.md").read_bytes()
    assert (summarise(finished), (finished / "reports/summary.md").read_bytes()) == first


def test_times_stay_out(finished: Path):
    first = summarise(finished), (finished / "reports/summary.md").read_bytes()
    shutil.rmtree(finished / "logs")
    assert (summarise(finished), (finished / "reports/summary.md").read_bytes()) == first


def test_it_reads_nothing_but_its_declared_dependencies(finished: Path):
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf8"))["stages"]["summary"]
    declared = [dependency for dependency in stage["deps"] if not dependency.endswith(".py")]
    lean = finished.parent / "lean"
    lean.mkdir()
    for dependency in [*declared, "params.yaml"]:
        target = lean / dependency
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (finished / dependency).is_dir() else shutil.copy)(finished / dependency, target)
    assert summarise(lean) == summarise(finished)


NEEDED = [
    "data/raw/notes",
    "data/clean/notes",
    "data/dedup",
    *(f"metrics/{name}.json" for name in ("shard", "tokenizer", "pack", "pretrain")),
]


@pytest.mark.parametrize("missing", [*NEEDED, "models/glue/RTE"])
def test_a_missing_stage_is_one_clear_line_and_nothing_is_written(finished: Path, missing: str):
    path = finished / missing
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    with pytest.raises(BadInput, match=Path(missing).name) as error:
        summarise(finished)
    assert "dvc repro" in str(error.value)
    assert not (finished / "reports").exists()


def test_a_source_that_was_removed_from_the_params_does_not_count(finished: Path):
    assert [row["source"] for row in documents_by_source(finished, ["notes"])] == ["notes"]


def test_a_run_that_was_stopped_early_says_so_in_its_protocol(finished: Path):
    results = read_json(finished / "models/glue/CoLA/results.json")
    assert "2 epochs" in protocol_line(results)
    results["protocol"]["steps"] = 40
    line = protocol_line(results)
    assert "stopped after 40 steps" in line and "epochs" not in line


def test_updates_that_were_left_out_are_told(finished: Path):
    metrics = read_json(finished / "metrics/pretrain.json")
    for skipped, told in ((0, False), (3, True)):
        write_json(finished / "metrics/pretrain.json", metrics | {"skipped": skipped})
        summarise(finished)
        assert ("3 updates were left out" in (finished / "reports/summary.md").read_text(encoding="utf8")) is told
