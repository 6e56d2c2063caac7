"""The funnels that the data stages left, as lines for a terminal: `roberta funnel`."""

from collections.abc import Iterator
from pathlib import Path

from roberta_core.atomic import read_json
from roberta_core.errors import BadInput

WIDTH = 110
"""Columns of an excerpt."""


def steps(root: Path, sources: list[str]) -> Iterator[tuple[str, Path]]:
    """Every step with a funnel, in the order that documents go through: its name and its folder."""
    for step, folder in (("download", "raw"), ("clean", "clean")):
        for source in sources:
            yield f"{step} {source}", root / "data" / folder / source
    yield "dedup", root / "data/dedup"
    yield "shard", root / "data/shards"


def lines(root: Path, sources: list[str], examples: bool) -> Iterator[str]:
    """The funnels of the stages that have run.

    Raises:
        BadInput: none has.
    """
    none = True
    for name, folder in steps(root, sources):
        if not (folder / "funnel.json").is_file():
            continue
        none = False
        funnel = read_json(folder / "funnel.json")
        share = funnel["kept"] / max(funnel["seen"], 1)
        yield f"{name}: {funnel['kept']:,} of {funnel['seen']:,} documents kept ({share:.1%}), {funnel['chars']:,} characters"
        for word, counts in (("dropped", funnel["dropped"]), ("altered", funnel["changed"])):
            for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
                yield f"  {word} {count:>9,}  {count / max(funnel['seen'], 1):>6.1%}  {reason}"
                for excerpt in funnel["examples"].get(reason, []) if examples else []:
                    yield f"  {'':27}| {excerpt[:WIDTH]}"
    table = root / "data/shards/decontamination.json"
    if table.is_file():
        told = read_json(table)
        yield f"evaluation sets ({told['mode']}): texts found of those looked for, documents of the corpus with a match"
        for name, row in told["sets"].items():
            short = f", {row['too_short']:,} too short to look for" if row["too_short"] else ""
            yield f"  {name}: {row['found']:,} of {row['texts']:,} texts, in {row['documents']:,} documents{short}"
    if none:
        raise BadInput("No data stage has run here yet.", "Run them: roberta run")
