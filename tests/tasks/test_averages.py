"""Averages by hand, in both ways; published lines against the means that their authors give."""

import pytest

from tasks.averages import PUBLISHED, beside, is_glue, leaderboard_mean, mean_score, means, shown, spread

METRICS = {
    "CoLA": {"mcc": 0.6, "accuracy": 0.8},
    "MRPC": {"accuracy": 0.8, "f1": 0.9},
    "STS-B": {"pearson": 0.5, "spearman": 0.7},
    "MNLI": {"accuracy": 0.6, "accuracy_mismatched": 0.8},
    "WNLI": {"accuracy": 0.1},
}
PRIMARY = {task: next(iter(values)) for task, values in METRICS.items()}
ROWS = {"CoLA": 1043, "MRPC": 408, "STS-B": 1500, "MNLI": 9815, "WNLI": 71}


def result(task: str, **change) -> dict:
    return {
        "data": "local", "metric": PRIMARY[task], "score": METRICS[task][PRIMARY[task]], "metrics": METRICS[task],
        "rows": {"dev": ROWS[task]}, "seeds": {"1": 0.25, "2": 0.5},
    } | change  # fmt: skip


def test_both_means_by_hand_and_wnli_in_neither():
    primary = {task: METRICS[task][name] for task, name in PRIMARY.items()}
    assert mean_score(primary) == pytest.approx((0.6 + 0.8 + 0.5 + 0.6) / 4)
    assert leaderboard_mean(METRICS, PRIMARY) == pytest.approx((0.6 + 0.85 + 0.6 + 0.7) / 4)
    found = means({task: result(task) for task in METRICS})
    assert found == pytest.approx({"mean_score": 2.5 / 4, "leaderboard_mean": 2.75 / 4})
    assert mean_score({"WNLI": 0.5}) is None and means({"WNLI": result("WNLI")}) == {}


@pytest.mark.parametrize("change", [{"data": "sample"}, {"rows": {"dev": 407}}])
def test_other_rows_are_not_glue(change):
    results = {"CoLA": result("CoLA"), "MRPC": result("MRPC", **change)}
    assert is_glue("CoLA", results["CoLA"]) and not is_glue("MRPC", results["MRPC"])
    assert list(means(results)) == ["mean_score"]
    assert all(list(row["scores"]) == ["CoLA"] for row in beside(results))
    assert beside({"MRPC": results["MRPC"]}) == []


def test_lines_are_averaged_over_the_tasks_that_were_run():
    ours, *lines = beside({task: result(task) for task in ("CoLA", "STS-B", "WNLI")})
    assert ours == {"name": "this run", "scores": {"CoLA": 60.0, "STS-B": 50.0}, "mean": 55.0}
    assert [line["name"] for line in lines] == ["RoBERTa-base", "RoBERTa-large", "BERT-large", "MosaicBERT-base"]
    assert lines[0]["mean"] == pytest.approx((63.6 + 91.2) / 2)


def test_published_lines_have_the_means_that_are_known():
    found = [sum(line.scores.values()) / 8 for line in PUBLISHED]
    assert found == pytest.approx([86.35, 88.925, 84.05, 84.276], abs=1e-3), "summed by hand; 84.28 on the model card"
    assert [shown(mean) for mean in found] == ["86.4", "88.9", "84.1", "84.3"], "a half goes up"
    assert all(len(line.scores) == 8 and "WNLI" not in line.scores for line in PUBLISHED)
    assert all(line.protocol and line.source for line in PUBLISHED)


def test_a_spread_is_shown_where_there_is_one():
    assert spread(result("CoLA")) == "0.600 (0.250 to 0.500)"
    assert spread(result("CoLA", seeds={"1": 0.6})) == "0.600"
