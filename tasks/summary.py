"""summary: all of a run in one metrics file and one table, read from what the stages before it left.

No number is computed here that a stage has not already measured, but for sums and the mean score; so the page can be
checked against its sources line by line. Seconds and memory stay out: the same run gives the same bytes.
"""

import math
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from roberta_core.atomic import atomic_file, read_json
from roberta_core.errors import BadInput
from tasks.averages import PUBLISHED, beside, means, shown, spread
from tasks.own_scores import own_numbers, own_results, own_table
from tasks.params import Params
from tasks.stage import main

TABLE = Path("reports/summary.md")


def read_if_there(path: Path) -> dict | None:
    """A stage's JSON, or None where that stage has not run."""
    return read_json(path) if path.exists() else None


def _needed(path: Path) -> dict:
    found = read_if_there(path)
    if found is None:
        raise BadInput(
            f"There is no {path}: a stage before the summary has not run.", "Run the whole chain: dvc repro"
        )
    return found


def _kept_rows(path: Path) -> int | None:
    """Rows of a `keep-<source>.arrow` that stay; read one batch at a time."""
    if not path.exists():
        return None
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        return sum(pc.sum(reader.get_batch(i).column("keep")).as_py() or 0 for i in range(reader.num_record_batches))


def documents_by_source(root: Path, sources: list[str]) -> list[dict]:
    """Documents of each source after each step, `{"source", "found", "read", "clean", "unique"}`; None: not run yet."""
    rows = []
    for source in sources:
        raw = read_if_there(root / "data/raw" / source / "funnel.json") or {}
        clean = read_if_there(root / "data/clean" / source / "funnel.json") or {}
        unique = _kept_rows(root / "data/dedup" / f"keep-{source}.arrow")
        counts = {"found": raw.get("seen"), "read": raw.get("kept"), "clean": clean.get("kept"), "unique": unique}
        rows.append({"source": source} | counts)
    return rows


def corpus_tokens(pack: dict) -> int:
    """Tokens of the kept documents, of both splits, from the pack stage's metrics."""
    return pack["train_tokens"] + pack["validation_tokens"]


def protocol_line(results: dict) -> str:
    """How a score was measured, in one line: a score is never shown without it."""
    protocol = results["protocol"]
    chosen = results.get("chosen", protocol)
    seeds = [str(seed) for seed in protocol["seeds"]]
    parts = [
        f"{protocol.get('name', 'quick')}: {protocol['split']} split",
        f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} ({', '.join(seeds)})",
    ]
    parts.append(f"{protocol['epochs']} {'epoch' if protocol['epochs'] == 1 else 'epochs'}")
    if "epoch" in chosen:
        parts[-1] = f"up to {parts[-1]}"
    if chosen["steps"] < protocol["epochs"] * math.ceil(results["rows"]["train"] / chosen["batch_size"]):
        parts[-1] = f"stopped after {chosen['steps']:,} steps"
    if "grid" in protocol:
        rates, sizes = ({each[key]: None for each in protocol["grid"]} for key in ("peak_lr", "batch_size"))
        rates, sizes = (", ".join(f"{each:g}" for each in values) for values in (rates, sizes))
        parts.append(f"grid of peak rates {rates} and batches {sizes}")
    else:
        parts += [f"batch {protocol['batch_size']}", f"peak rate {protocol['peak_lr']:g}"]
    parts.append(protocol["selection"])
    parts += [
        f"{key.removeprefix('options.')} {value}" for key, value in protocol.items() if key.startswith("options.")
    ]
    parts.append("started from MNLI" if protocol["staged_from_mnli"] else "not started from MNLI")
    return ", ".join(parts)


def data_name(kinds: set[str]) -> str:
    """What the tasks are to be called: sample tasks are never called GLUE."""
    return "sample tasks, made from the corpus (not GLUE)" if "sample" in kinds else "GLUE"


def _row(*cells: object) -> str:
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells) + " |"


COUNTS = (("parameters", "parameters"), ("steps", "steps"), ("tokens trained on", "tokens"))


def tokenizer_rows(tokenizer: dict, pack: dict) -> list[tuple[str, int | str]]:
    """What the tokenizer and pack stages measured: names and values, for people."""
    rows: list[tuple[str, int | str]] = [("vocabulary", tokenizer["vocab_size"])]
    rows += [("of them taken over", tokenizer["kept"])] if "kept" in tokenizer else []
    return [
        *rows,
        ("bytes a token, held out", f"{tokenizer['bytes_per_token']:.2f}"),
        ("tokens a word, held out", f"{tokenizer['tokens_per_word']:.2f}"),
        ("unknown tokens, held out", f"{tokenizer['unknown_share']:.2%}"),
        ("rows for training", pack["train_rows"]),
        ("filled with tokens", f"{pack['train_fill']:.2%}"),
    ]


def _table(
    documents: list[dict], numbers: dict, sizes: list, pretrain: dict, results: dict[str, dict], own: dict[str, dict]
) -> str:
    """The Markdown page."""
    lines = [
        "# Summary",
        "",
        "## Documents",
        "",
        "| source | found | read | clean | unique |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [_row(row["source"], row["found"], row["read"], row["clean"], row["unique"]) for row in documents]
    kept, seen = numbers["documents_kept"], numbers["documents_seen"]
    lines += ["", f"Kept: {kept:,} of {seen:,} documents, {numbers['tokens']:,} tokens.", ""]
    lines += ["## Tokens", "", "| | |", "|---|--:|", *(_row(*each) for each in sizes), ""]
    lines += ["## Pretraining", "", "| | |", "|---|--:|"]
    lines += [_row(name, pretrain[key]) for name, key in COUNTS]
    lines += [_row("held-out masked loss, nats", f"{pretrain['loss']:.3f}")]
    lines += [_row("unigram entropy of the same positions, nats", f"{pretrain['unigram_entropy']:.3f}")]
    lines += [_row("gain over the unigram, nats", f"{pretrain['gain_over_unigram']:.3f}")]
    lines += [_row("perplexity", f"{pretrain['perplexity']:.1f}")]
    lines += [_row("masked-token accuracy", f"{pretrain['accuracy']:.1%}"), ""]
    if pretrain.get("skipped"):
        lines += [
            f"**{pretrain['skipped']:,} updates were left out: their loss or gradient was no number, or jumped.**",
            "",
        ]
    if pretrain.get("on_plateau"):
        lines += [
            "**This run has not come below the unigram plateau: the model knows no more than how often words occur.**",
            "",
        ]
    lines += [f"## Scores: {data_name({each['data'] for each in results.values()})}", ""]
    lines += ["| task | metric | score | majority | TF-IDF | train | dev |", "|---|---|--:|--:|--:|--:|--:|"]
    for task, each in results.items():
        baselines = [f"{each['baselines'][name][each['metric']]:.3f}" for name in ("majority", "tfidf")]
        lines.append(_row(task, each["metric"], spread(each), *baselines, each["rows"]["train"], each["rows"]["dev"]))
    if "mean_score" in numbers:
        lines += [_row("mean without WNLI", "", f"{numbers['mean_score']:.3f}", "", "", "", "")]
    if "leaderboard_mean" in numbers:
        told = "the leaderboard's mean without WNLI"
        lines += [_row(told, "two metrics of a task joined", f"{numbers['leaderboard_mean']:.3f}", "", "", "", "")]
    lines.append("")
    if any(len(each["seeds"]) > 1 for each in results.values()):
        lines += ["A score is the median over its seeds, with the lowest and the highest in brackets.", ""]
    protocols: dict[str, list[str]] = {}
    for task, each in results.items():
        protocols.setdefault(protocol_line(each), []).append(task)
    lines += [f"- Protocol of {', '.join(tasks)}: {line}." for line, tasks in protocols.items()]
    lines += _published(results)
    lines += own_table(own)
    return "\n".join(lines) + "\n"


def _published(results: dict[str, dict]) -> list[str]:
    """The published lines beside ours, with their protocols; nothing for tasks that are not GLUE's own."""
    rows = beside(results)
    if not rows:
        return []
    tasks = list(rows[0]["scores"])
    lines = ["", "### Beside published lines", "", f"Dev rows, × 100; the mean is over these {len(tasks)} tasks."]
    lines += ["", f"| | {' | '.join(tasks)} | mean |", "|---|" + "--:|" * (len(tasks) + 1)]
    for row in rows:
        lines.append(_row(row["name"], *(shown(row["scores"][task]) for task in tasks), shown(row["mean"])))
    lines += ["", "Another scale, and where it says so another protocol: marks to aim at, not a comparison.", ""]
    return lines + [f"- {line.name}: {line.protocol} ({line.source})" for line in PUBLISHED]


def run(params: Params, root: Path = Path(".")) -> dict:
    """Gathers the numbers, writes `reports/summary.md`, and returns what goes to `metrics/summary.json`.

    Raises:
        BadInput: a stage before this one has not run.
    """
    sources, tasks = list(params.corpus.sources), params.glue.all_tasks
    for source in sources:
        _needed(root / "data/raw" / source / "funnel.json")
        _needed(root / "data/clean" / source / "funnel.json")
    _needed(root / "data/dedup/funnel.json")
    documents = documents_by_source(root, sources)
    shard, pack, pretrain = (_needed(root / f"metrics/{stage}.json") for stage in ("shard", "pack", "pretrain"))
    sizes = tokenizer_rows(_needed(root / "metrics/tokenizer.json"), pack)
    results = {task: _needed(root / "models/glue" / task / "results.json") for task in tasks}
    scores = {task: each["score"] for task, each in results.items()}
    numbers = {
        "documents_seen": sum(row["found"] for row in documents),
        "documents_kept": shard["kept"],
        "tokens": corpus_tokens(pack),
        "loss": pretrain["loss"],
        "unigram_entropy": pretrain["unigram_entropy"],
        "gain_over_unigram": pretrain["gain_over_unigram"],
        "accuracy": pretrain["accuracy"],
        **{f"scores.{task}": score for task, score in scores.items()},
        "data": "+".join(sorted({each["data"] for each in results.values()})),
    }
    numbers |= means(results)
    own = own_results(params, root, needed=True)
    numbers |= own_numbers(own)
    with atomic_file(root / TABLE) as handle:
        handle.write(_table(documents, numbers, sizes, pretrain, results, own))
    return numbers


if __name__ == "__main__":
    sys.exit(main("summary", run))
