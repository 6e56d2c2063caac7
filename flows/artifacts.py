"""What a run leaves on Prefect's page when its stages have ended: tables of stages, funnel and scores, the gate, links.

Everything here is read from what the stages wrote; the page of the report shows the same. Keys stay the same from run
to run, so that the page shows the history of each.
"""

from collections.abc import Iterable
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from roberta_core.atomic import read_json
from tasks.params import Params

Ended = dict[str, tuple[str, float, str]]
"""How each stage and step ended: name -> (how, seconds, note)."""


def publish(root: Path, params: Params, ended: Ended, errors: Iterable[BaseException]) -> None:
    """Creates the artifacts of a run, those that there is something to say for."""
    errors = list(errors)
    rows = [
        {"stage": name, "ended": how, "seconds": round(seconds, 1), "note": note}
        for name, (how, seconds, note) in ended.items()
    ]
    create_table_artifact(key="stages", table=rows, description="How each stage ended")
    if documents := funnel_rows(root, params):
        create_table_artifact(key="funnel", table=documents, description="What happened to every document")
    if scores := score_rows(root, params):
        create_table_artifact(key="scores", table=scores, description="Scores, each with its protocol")
    if ended.get("promote", ("",))[0] in ("done", "up to date"):
        _registry(root, params)
    _summary(root, rows, errors)


def funnel_rows(root: Path, params: Params) -> list[dict]:
    """One row for each step with a funnel: documents in and out, and why the others went."""
    from tasks.funnels import steps

    rows = []
    for name, folder in steps(root, list(params.corpus.sources)):
        if (folder / "funnel.json").is_file():
            funnel = read_json(folder / "funnel.json")
            reasons = sorted(funnel["dropped"].items(), key=lambda item: (-item[1], item[0]))
            dropped = ", ".join(f"{reason} {count:,}" for reason, count in reasons)
            rows.append({"step": name, "in": funnel["seen"], "out": funnel["kept"], "dropped": dropped})
    return rows


def score_rows(root: Path, params: Params) -> list[dict]:
    """The held-out loss, and one row for each task that was scored here."""
    from tasks.own_scores import own_protocol, own_results
    from tasks.summary import protocol_line

    rows = []
    if (root / "metrics/pretrain.json").is_file():
        numbers = read_json(root / "metrics/pretrain.json")
        told = f"unigram entropy {numbers['unigram_entropy']}; {numbers['steps']:,} updates"
        rows.append({"of": "encoder", "measure": "held-out masked loss", "score": numbers["loss"], "protocol": told})
    for task in params.glue.all_tasks:
        file = root / "models/glue" / task / "results.json"
        if file.is_file():
            found = read_json(file)
            told = f"{found['data']} data, {protocol_line(found)}"
            rows.append({"of": task, "measure": found["metric"], "score": found["score"], "protocol": told})
    for task, found in own_results(params, root).items():
        told = f"own data, {own_protocol(found)}"
        rows.append({"of": task, "measure": found["metric"], "score": found["score"], "protocol": told})
    return rows


def _registry(root: Path, params: Params) -> None:
    """The registry as the gate left it, with each newest version's table, as `roberta compare` and the report show it.

    A version whose MLflow run has an address (a tracking server's) gets a link.
    """
    from tasks.gate import as_markdown
    from tasks.registry import overview

    parts = []
    for row in overview(params, root):
        told = f"## {row['name']} {row['version']} ({row['alias']})\n\n{row['promoted'] or 'not decided yet'}"
        parts.append("\n\n".join(filter(None, [told, as_markdown(row["gate"])])))
        if row["run_url"]:
            create_link_artifact(
                key=f"mlflow-{row['name'].lower().replace('_', '-').replace('.', '-')}-{row['version']}",
                link=row["run_url"],
                link_text=f"MLflow run of {row['name']} {row['version']}",
                description=f"The run that made {row['name']} {row['version']} ({row['alias']})",
            )
    if parts:
        create_markdown_artifact(key="gate", markdown="\n\n".join(parts), description="What the gate said, and why")


def _summary(root: Path, rows: list[dict], errors: list[BaseException]) -> None:
    summary = root / "reports" / "summary.md"
    counts = ", ".join(
        f"{sum(row['ended'] == how for row in rows)} {how}" for how in dict.fromkeys(row["ended"] for row in rows)
    )
    text = f"# Run of {root.name}\n\n{len(rows)} stages and steps: {counts}.\n"
    text += "".join(f"\n- **failed**: {error}" for error in errors)
    if summary.is_file() and not errors:
        text += f"\n{summary.read_text(encoding='utf8')}"
    create_markdown_artifact(key="summary", markdown=text, description="What the run did")
