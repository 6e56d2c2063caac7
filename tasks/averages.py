"""Averages over GLUE's tasks in the two ways that are in use, and what others published, beside what is measured here.

An average says nothing without its way: RoBERTa's dev table (Liu et al. 2019, table 8) has one number a task, and their
plain mean; the leaderboard averages a task's two metrics first. WNLI is in neither: its dev rows contradict its train rows, the
commonest class scores 56.3, and better numbers come from other data. Published lines stand only beside the
real tasks, told by the number of their dev rows, and are averaged over the very tasks that were run.
"""

from collections.abc import Mapping
from dataclasses import dataclass

NEVER_AVERAGED = ("WNLI",)
JOINED = {
    "MRPC": ("accuracy", "f1"),
    "QQP": ("accuracy", "f1"),
    "STS-B": ("pearson", "spearman"),
    "MNLI": ("accuracy", "accuracy_mismatched"),
}
"""Metrics that the leaderboard averages before it averages over the tasks; of the others the primary one counts."""
DEV_ROWS = {
    "CoLA": 1_043,
    "SST-2": 872,
    "MRPC": 408,
    "STS-B": 1_500,
    "RTE": 277,
    "WNLI": 71,
    "QNLI": 5_463,
    "QQP": 40_430,
    "MNLI": 9_815,
}
"""Rows of GLUE's dev files (MNLI: matched). A folder of another size is somebody's own data."""


@dataclass(frozen=True)
class Published:
    """A line that others published: scores × 100 on dev rows, by task, with how they came about and where they stand."""

    name: str
    protocol: str
    source: str
    scores: Mapping[str, float]


def _line(name: str, protocol: str, source: str, *scores: float) -> Published:
    tasks = ("MNLI", "QNLI", "QQP", "RTE", "SST-2", "MRPC", "CoLA", "STS-B")
    return Published(name, protocol, source, dict(zip(tasks, scores, strict=True)))


_PAPER = (
    "one task at a time, not started from MNLI; best of rates 1e-5, 2e-5, 3e-5 and batches 16, 32, median of 5 seeds, up to "
    "10 epochs with early stopping; accuracy for MRPC and QQP, MNLI matched"
)
PUBLISHED = (
    _line(
        "RoBERTa-base",
        f"500,000 updates of 8,192 × 512; {_PAPER}",
        "its authors' fairseq, examples/roberta",
        87.6, 92.8, 91.9, 78.7, 94.8, 90.2, 63.6, 91.2,
    ),
    _line(
        "RoBERTa-large",
        f"500,000 updates of 8,192 × 512; {_PAPER}",
        "Liu et al. 2019, arXiv 1907.11692, table 8",
        90.2, 94.7, 92.2, 86.6, 96.4, 90.9, 68.0, 92.4,
    ),
    _line(
        "BERT-large",
        "as the paper of RoBERTa quotes it: one task at a time; accuracy for MRPC and QQP, MNLI matched",
        "Liu et al. 2019, arXiv 1907.11692, table 8",
        86.6, 92.3, 91.3, 70.4, 93.2, 88.0, 60.6, 90.0,
    ),
    _line(
        "MosaicBERT-base",
        "70,000 updates of 4,096 × 128; RTE, MRPC and STS-B started from MNLI; over 5 pretrained models",
        "model card of mosaicml/mosaic-bert-base",
        84.95, 90.74, 90.29, 81.36, 92.46, 90.03, 55.11, 89.27,
    ),
)  # fmt: skip


def mean_score(scores: Mapping[str, float]) -> float | None:
    """Mean over the tasks without WNLI, of the primary metric of each; None where nothing is left."""
    averaged = [score for task, score in scores.items() if task not in NEVER_AVERAGED]
    return sum(averaged) / len(averaged) if averaged else None


def leaderboard_mean(metrics: Mapping[str, Mapping[str, float]], primary: Mapping[str, str]) -> float | None:
    """The leaderboard's way, without WNLI: two metrics of a task are averaged first, MNLI's two dev files too.

    Args:
        metrics: of each task, all it has.
        primary: the metric of each task that counts where no two are joined.
    """
    scores = {}
    for task, values in metrics.items():
        names = JOINED.get(task, (primary[task],))
        scores[task] = sum(values[name] for name in names) / len(names)
    return mean_score(scores)


def is_glue(task: str, result: dict) -> bool:
    """Whether a result is on GLUE's own dev rows: no sample task, and their number."""
    return result["data"] != "sample" and result["rows"]["dev"] == DEV_ROWS.get(task)


def means(results: Mapping[str, dict]) -> dict[str, float]:
    """`mean_score`, and where all results are on GLUE's own rows `leaderboard_mean`; what cannot be told is left out."""
    found = {"mean_score": mean_score({task: each["score"] for task, each in results.items()})}
    if results and all(is_glue(task, each) for task, each in results.items()):
        metrics = {task: each["metrics"] for task, each in results.items()}
        found["leaderboard_mean"] = leaderboard_mean(metrics, {task: each["metric"] for task, each in results.items()})
    return {name: value for name, value in found.items() if value is not None}


def beside(results: Mapping[str, dict]) -> list[dict]:
    """Rows of a table that sets ours beside the published lines: `name`, `scores` × 100 by task, `mean` over them.

    Only the tasks that are GLUE's own, WNLI not among them; nothing where there are none. Ours comes first.
    """
    tasks = [task for task, each in results.items() if task not in NEVER_AVERAGED and is_glue(task, each)]
    if not tasks:
        return []
    lines: list[tuple[str, Mapping[str, float]]] = [
        ("this run", {task: 100 * results[task]["score"] for task in tasks})
    ]
    lines += [(line.name, {task: line.scores[task] for task in tasks}) for line in PUBLISHED]
    return [{"name": name, "scores": dict(scores), "mean": mean_score(scores)} for name, scores in lines]


def spread(result: dict) -> str:
    """The score with the lowest and the highest of its seeds: `0.431 (0.400 to 0.458)`; alone where there is one seed."""
    seeds = list(result["seeds"].values())
    return f"{result['score']:.3f}" + (f" ({min(seeds):.3f} to {max(seeds):.3f})" if len(seeds) > 1 else "")


def shown(score: float) -> str:
    """A score × 100 with one digit; a half goes up, as in the papers: 84.05 is 84.1."""
    return f"{score + 1e-9:.1f}"
