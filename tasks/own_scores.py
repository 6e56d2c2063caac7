"""Tasks of your own in the summary and in the report: what `results.json` of `models/tasks/<NAME>/` says, for people.

No number is made here. A score stands beside its protocol and beside what simpler ways reach on the same rows; dev
and test are never put into one column, because dev is where everything was chosen.
"""

from pathlib import Path

from roberta_core.atomic import read_json
from roberta_core.errors import BadInput
from tasks.params import Params

FOLDER = Path("models/tasks")
WAYS = {"majority": "most frequent", "dictionary": "dictionary", "tfidf": "TF-IDF"}
"""What a baseline is called; `tasks.finetune` writes those that make sense for a kind."""
CONSTANTS = {"regression": "mean", "questions": "no answer"}
"""What `majority` says where there is no label to be the most frequent one."""


def own_results(params: Params, root: Path, needed: bool = False) -> dict[str, dict]:
    """`results.json` of each task of finetune.tasks that was fine-tuned.

    Raises:
        BadInput: one was not, and all are needed.
    """
    found = {}
    for name in params.finetune.tasks:
        file = root / FOLDER / name / "results.json"
        if file.is_file():
            found[name] = read_json(file)
        elif needed:
            raise BadInput(f"There is no {file}: finetune@{name} has not run.", "Run the whole chain: dvc repro")
    return found


def own_protocol(results: dict) -> str:
    """How a score was measured, in one line."""
    protocol, chosen = results["protocol"], results.get("chosen", {})
    seeds = [str(seed) for seed in protocol["seeds"]]
    parts = [protocol["split"], f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} ({', '.join(seeds)})"]
    epochs = f"{protocol['epochs']} {'epoch' if protocol['epochs'] == 1 else 'epochs'}"
    parts.append(f"up to {epochs}" if "epoch" in chosen else epochs)
    if protocol["steps"] < protocol["epochs"] * -(-results["rows"]["train"] // protocol["batch_size"]):
        parts[-1] = f"stopped after {protocol['steps']:,} steps"
    parts += [f"batch {protocol['batch_size']}", f"peak rate {protocol['peak_lr']:g}"]
    parts += [f"{protocol['max_length']} tokens" + (f", stride {protocol['stride']}" if protocol["stride"] else "")]
    parts.append(protocol["selection"])
    parts += [f"{key.replace('_', ' ')} {value}" for key, value in protocol["options"].items()]
    return ", ".join(parts)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _called(way: str, kind: str) -> str:
    """What a baseline of a kind is called."""
    return CONSTANTS.get(kind, WAYS[way]) if way == "majority" else WAYS.get(way, way)


def _rows_of(results: dict) -> list[tuple[str, dict, int]]:
    """(split, figures, rows) of dev and, where it has labels, test."""
    found = [("dev", results, results["rows"]["dev"])]
    test = results.get("test", {})
    return found + ([("test", test, results["rows"]["test"])] if "score" in test else [])


def own_table(results: dict[str, dict]) -> list[str]:
    """Lines of Markdown: the scores, then the protocols; nothing without tasks."""
    if not results:
        return []
    lines = ["", "## Scores: your own tasks", ""]
    lines += [f"| task | kind | metric | split | score | {' | '.join(WAYS.values())} | train | rows |"]
    lines += ["|---|---|---|---|--:|" + "--:|" * len(WAYS) + "--:|--:|"]
    for name, each in results.items():
        for split, figures, rows in _rows_of(each):
            ways = [_cell(figures["baselines"].get(way, {}).get(each["metric"])) for way in WAYS]
            cells = [name, each["kind"], each["metric"], split, _cell(figures["score"]), *ways]
            lines.append("| " + " | ".join([*cells, f"{each['rows']['train']:,}", f"{rows:,}"]) + " |")
    lines.append("")
    kinds = {each["kind"] for each in results.values()}
    constants = [f"{told} ({kind})" for kind, told in CONSTANTS.items() if kind in kinds]
    lines += [f"- Under most frequent also: {', '.join(constants)}."] if constants else []
    lines += [f"- Protocol of {name}: {own_protocol(each)}." for name, each in results.items()]
    return lines


def own_numbers(results: dict[str, dict]) -> dict[str, float]:
    """For metrics/summary.json: `scores.<task>`, and `scores.<task>.test`."""
    return {
        f"scores.{name}" + (".test" if split == "test" else ""): figures["score"]
        for name, each in results.items()
        for split, figures, _ in _rows_of(each)
    }


def own_section(root: Path, params: Params) -> dict | None:
    """What the report's template shows; None without tasks."""
    if not params.finetune.tasks:
        return None
    results = own_results(params, root)
    tasks = []
    for name, each in results.items():
        seeds = list(each["seeds"].values())
        splits = [
            {
                "split": split,
                "rows": rows,
                "score": figures["score"],
                "also": {key: value for key, value in figures["metrics"].items() if key != each["metric"]},
                "ways": {
                    _called(way, each["kind"]): values[each["metric"]] for way, values in figures["baselines"].items()
                },
            }
            for split, figures, rows in _rows_of(each)
        ]
        tasks.append(
            {
                "name": name,
                "kind": each["kind"],
                "metric": each["metric"],
                "train": each["rows"]["train"],
                "splits": splits,
                "lowest": min(seeds),
                "highest": max(seeds),
                "seeds": len(seeds),
                "protocol": own_protocol(each),
                "notes": each["notes"] + each.get("test", {}).get("notes", []),
                "truncated": each["truncated"],
                "strided": each["strided"],
                "no_answer": each.get("no_answer", {}),
                "hidden": each.get("test", {}).get("hidden", False),
                "tables": each["tables"],
            }
        )
    return {"tasks": tasks, "missing": [name for name in params.finetune.tasks if name not in results]}
