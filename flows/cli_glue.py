"""`roberta glue …`: the leaderboard's zip, and the diagnostic."""

from pathlib import Path
from typing import Annotated

import typer

glue = typer.Typer(help="GLUE's hidden test rows, by the models in models/glue.", no_args_is_help=True)


@glue.command()
def submit(
    out: Annotated[Path, typer.Argument(help="The zip to write.")] = Path("reports/glue-submission.zip"),
) -> None:
    """Write the leaderboard's zip of eleven files, or say what keeps it from being whole."""
    from flows.settings import find_root
    from tasks import submission
    from tasks.params_file import load_params

    root = find_root()
    for line in submission.submit(root, load_params(root / "params.yaml"), out):
        print(line)


@glue.command()
def diagnostic() -> None:
    """Score MNLI's model on the AX diagnostic, where its file with labels (diagnostic-full.tsv) is there."""
    from flows.settings import find_root
    from tasks import submission
    from tasks.params_file import load_params

    root = find_root()
    print(submission.diagnostic(root, load_params(root / "params.yaml")))
