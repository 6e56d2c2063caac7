"""The report: one self-contained page about a run, for a person.

Everything comes from files that the stages left (metrics, plots, funnels, results, timings) and from the registry's
overview, so the page can be made again at any time, and a stage that has not run yet leaves a gap that says so. The
page loads nothing: style, charts and the few lines of script are inside. Text from the corpus is not trusted; Jinja
escapes every value, and links are made only of http addresses.
"""

import csv
import datetime
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from roberta_core.atomic import atomic_file
from roberta_core.errors import UserError
from roberta_core.progress import human_count, human_time
from tasks import gate
from tasks.averages import NEVER_AVERAGED, PUBLISHED, beside, is_glue, means, shown
from tasks.charts import NARROW, Line, Step, both, funnel_chart, line_chart
from tasks.examples import DEEPEST_RANK, fill_mask_examples
from tasks.own_scores import own_section
from tasks.params import Params
from tasks.params_file import load_params
from tasks.stage import stage_file
from tasks.summary import (
    corpus_tokens,
    documents_by_source,
    protocol_line,
    read_if_there,
    tokenizer_rows,
)

PAGE = Path("reports/index.html")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def read_curve(path: Path) -> dict[str, list[tuple[float, float]]]:
    """A plots file as `{column: [(step, value), …]}`; empty where it is not there."""
    curves: dict[str, list[tuple[float, float]]] = {}
    if path.exists():
        with open(path, newline="", encoding="utf8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name != "step" and value:
                        curves.setdefault(name, []).append((float(row["step"]), float(value)))
    return curves


def documents_section(root: Path, params: Params) -> dict | None:
    """The funnel drawn, and the reasons of each step."""
    rows = [row for row in documents_by_source(root, list(params.corpus.sources)) if row["found"] is not None]
    if not rows:
        return None
    steps = []
    for key, label in (("found", "found"), ("read", "download"), ("clean", "clean"), ("unique", "dedup")):
        if all(row[key] is not None for row in rows):
            steps.append(Step(label, {row["source"]: row[key] for row in rows}))
    shard = read_if_there(root / "metrics/shard.json")
    title = f"{steps[-1].total:,} of {steps[0].total:,} documents are kept"
    losses: list[dict] = []
    changed: Counter[str] = Counter()
    folders = [("download", root / "data/raw" / row["source"], row["source"]) for row in rows]
    folders += [("clean", root / "data/clean" / row["source"], row["source"]) for row in rows]
    folders += [("dedup", root / "data/dedup", "all sources"), ("shard", root / "data/shards", "all sources")]
    for step, folder, source in folders:
        funnel = read_if_there(folder / "funnel.json") or {}
        changed.update({reason.replace("_", " "): count for reason, count in funnel.get("changed", {}).items()})
        for reason, count in sorted(funnel.get("dropped", {}).items(), key=lambda item: (-item[1], item[0])):
            if count:
                losses.append(
                    {
                        "step": step,
                        "source": source,
                        "reason": reason.replace("_", " "),
                        "count": count,
                        "share": count / max(funnel["seen"], 1),
                        "examples": funnel.get("examples", {}).get(reason, []),
                    }
                )
    most = max((loss["count"] for loss in losses), default=1)
    return {
        "title": title,
        "found": steps[0].total,
        "rows": rows,
        "shard": shard,
        "losses": losses,
        "most": most,
        "changed": changed,
        "chart": both(partial(funnel_chart, steps, title=title), 250, 230),
    }


def pretrain_section(root: Path) -> dict | None:
    """The curves, and what they come to."""
    training, validation = read_curve(root / "plots/pretrain.csv"), read_curve(root / "plots/validation.csv")
    numbers = read_if_there(root / "metrics/pretrain.json")
    if not training.get("loss") and not validation.get("loss"):
        return None
    lines = [
        Line("training", training.get("loss", []), "quiet"),
        Line("held out", validation.get("loss", []), "main", dots=True),
    ]
    entropy = (numbers["unigram_entropy"], "plateau: unigram entropy") if numbers else None
    title = "Masked loss, in nats"
    if numbers:
        gain = numbers["gain_over_unigram"]
        title = f"The held-out loss ends {abs(gain):.2f} nats {'below' if gain >= 0 else 'above'} the plateau"
    loss = partial(line_chart, lines, title=title, x_name="steps", shape="{:.2f}", reference=entropy)
    charts = {"loss": both(loss, 340, 300)}
    small = {"x_name": "steps", "width": NARROW, "height": 200, "zero": True}
    if validation.get("accuracy"):
        share = [(step, 100 * value) for step, value in validation["accuracy"]]
        line = [Line("held out", share, "main", dots=True)]
        charts["accuracy"] = line_chart(line, title="Masked tokens right, %", shape="{:.1f}", unit=" %", **small)
    rates = [name for name in training if name.startswith("lr")]
    if rates:
        line = [Line("", training[rates[0]], "quiet")]
        charts["lr"] = line_chart(line, title="Learning rate", shape="{:.3g}", **small)
    return {"title": title, "numbers": numbers, "charts": charts}


def published_score(task: str, result: dict) -> float | None:
    """RoBERTa-base's score where the task is the real one, else None."""
    score = PUBLISHED[0].scores.get(task)
    return score / 100 if score is not None and is_glue(task, result) else None


def scores_section(root: Path, params: Params) -> dict | None:
    """The scores beside their protocol and baselines."""
    found = {task: read_if_there(root / "models/glue" / task / "results.json") for task in params.glue.all_tasks}
    results = {task: result for task, result in found.items() if result}
    if not results:
        return None
    sample = any(result["data"] == "sample" for result in results.values())
    rows = []
    for task, result in results.items():
        metric = result["metric"]
        also = {name: value for name, value in result["metrics"].items() if name != metric}
        seeds = list(result["seeds"].values())
        rows.append(
            {
                "task": task,
                "metric": metric,
                "also": also,
                "score": result["score"],
                "notes": result.get("notes", []),
                "about": result.get("description", ""),
                "rows": result["rows"],
                "truncated": result.get("truncated", 0),
                "averaged": task not in NEVER_AVERAGED,
                "lowest": min(seeds),
                "highest": max(seeds),
                "seeds": len(seeds),
                "majority": result["baselines"]["majority"][metric],
                "tfidf": result["baselines"]["tfidf"][metric],
                "published": published_score(task, result),
            }
        )
    protocols: dict[str, list[str]] = {}
    for task, result in results.items():
        protocols.setdefault(protocol_line(result), []).append(task)
    missing = [task for task in params.glue.all_tasks if task not in results]
    better = sum(row["score"] > max(row["majority"], row["tfidf"]) for row in rows)
    return {
        "rows": rows,
        "sample": sample,
        "protocols": protocols,
        "missing": missing,
        "better": better,
        "mean": means(results).get("mean_score"),
        "leaderboard": means(results).get("leaderboard_mean"),
        "beside": beside(results),
        "lines": PUBLISHED,
        "averaged": sum(row["averaged"] for row in rows),
        "published": any(row["published"] for row in rows),
    }


def speed_section(root: Path, params: Params) -> dict | None:
    """Seconds and memory of each stage, in the chain's order."""
    names = [stage_file(stage, [source]) for stage in ("download", "clean") for source in params.corpus.sources]
    names += ["dedup", "shard", "tokenizer", "pack", "pretrain", "taskdata"]
    names += [*(stage_file("glue", [task]) for task in params.glue.all_tasks)]
    names += [*(stage_file("finetune", [name]) for name in params.finetune.tasks), "summary"]
    stages = [
        {"name": name, **timing} for name in names if (timing := read_if_there(root / f"logs/{name}.timing.json"))
    ]
    if not stages:
        return None
    speed = read_if_there(root / "logs/pretrain.speed.json")
    total = sum(stage["seconds"] for stage in stages)
    return {
        "stages": stages,
        "longest": max(stage["seconds"] for stage in stages),
        "total": total,
        "peak_mb": max(stage["peak_mb"] for stage in stages),
        "pretrain": speed,
    }


def fill_section(root: Path) -> dict:
    """The fill-mask examples, or why there are none."""
    encoder = root / "models/encoder"
    if not (encoder / "model.safetensors").exists():
        return {"held_out": [], "prompts": []}
    examples = fill_mask_examples(encoder, root / "data/shards/validation")
    return {
        "held_out": [each for each in examples if each.word],
        "prompts": [each for each in examples if not each.word],
    }


def gather(root: Path, overview: Sequence[dict], written: datetime.datetime) -> dict:
    """All that the template shows."""
    params = load_params(root / "params.yaml")
    scores = scores_section(root, params)
    pretrain = pretrain_section(root)
    documents = documents_section(root, params)
    pack = read_if_there(root / "metrics/pack.json")
    tokens = corpus_tokens(pack) if pack else None
    tokenizer = read_if_there(root / "metrics/tokenizer.json")
    config = read_if_there(root / "models/encoder/config.json")
    return {
        "params": params,
        "params_text": (root / "params.yaml").read_text(encoding="utf8"),
        "commit": _git(root, "rev-parse", "--short=10", "HEAD"),
        "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        "written": written,
        "documents": documents,
        "tokens": tokens,
        "token_rows": tokenizer_rows(tokenizer, pack) if tokenizer and pack else [],
        "pretrain": pretrain,
        "scores": scores,
        "own": own_section(root, params),
        "config": config,
        "speed": speed_section(root, params),
        "fill": fill_section(root),
        "registry": [row | gate_table(row.get("gate", "")) for row in overview],
        "deepest_rank": DEEPEST_RANK,
    }


def gate_table(told: str) -> dict:
    """The table behind a decision of the gate: headers, rows, checks; empty where it had no figures."""
    return {"gate_headers": gate.HEADERS, "gate_rows": gate.table(told), "gate_checks": gate.checks(told)}


def environment() -> Environment:
    """Jinja with escaping on for everything, and the page's number formats."""
    here = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=here, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "n": lambda value: f"{value:,}",
        "short": human_count,
        "hundredths": shown,
        "time": human_time,
        "points": lambda value: f"{100 * value:.1f}",
        "percent": lambda value: f"{value:.1%}",
        "at": lambda value: f"{100 * min(max(value, 0.0), 1.0):.2f}%",
        "mb": lambda value: f"{value / 1024:.1f} GB" if value >= 1024 else f"{value:.0f} MB",
    }
    made.tests["web"] = lambda value: str(value).startswith(("http://", "https://"))
    return made


def write_report(root: Path, overview: Sequence[dict] = (), written: datetime.datetime | None = None) -> Path:
    """Writes `reports/index.html` under `root`, and returns its path.

    `overview` is the answer of `tasks.registry.overview`; `written` is the date on the page (now, unless given).
    """
    root = Path(root)
    written = written or datetime.datetime.now().astimezone()
    page = environment().get_template("report.html").render(gather(root, overview, written))
    with atomic_file(root / PAGE) as handle:
        handle.write(page)
    return root / PAGE


def main() -> int:
    """Writes the page for the project in this folder."""
    from tasks.registry import overview

    try:
        print(write_report(Path("."), overview(load_params(), Path("."))))
    except UserError as error:
        print(f"report: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
