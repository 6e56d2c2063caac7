"""`roberta funnel` and `roberta data …`: what became of the documents, here and between two commits."""

from typing import Annotated

import typer

data = typer.Typer(help="The data between two commits.", no_args_is_help=True)


def funnel(
    examples: Annotated[bool, typer.Option(help="Show what was dropped, in excerpts.")] = True,
) -> None:
    """What happened to every document, step by step: what came in, what was dropped or altered and why."""
    from flows.settings import find_root
    from tasks.funnels import lines
    from tasks.params_file import load_params

    root = find_root()
    for line in lines(root, list(load_params(root / "params.yaml").corpus.sources), examples):
        print(line)


@data.command()
def diff(
    old: Annotated[str, typer.Argument(help="A commit, branch or tag.")],
    new: Annotated[str, typer.Argument(help="Another one; . is the folder as it is now.")] = ".",
) -> None:
    """What changed in the data between two commits: documents, tokens, by source, and why documents were dropped."""
    from flows.settings import find_root
    from flows.terminal import show_table
    from tasks import data_diff

    root = find_root()
    one, other = (data_diff.read_state(root, commit) for commit in (old, new))
    for rows in (data_diff.totals(one, other), data_diff.by_source(one, other), data_diff.funnel(one, other)):
        if rows:
            show_table(rows)
            print()


COMMANDS = (funnel,)
