"""`roberta glue …`: the leaderboard's zip, and the diagnostic."""

from pathlib import Path
from typing import Annotated

import typer

glue = typer.Typer(help="GLUE's hidden test rows, by the models in models/glue.", no_args_is_help=True)


@glue.command()
def submit(
    out: Annotated[
        Path | None, typer.Argument(help="The zip to write; reports/glue-submission.zip of the project by default.")
    ] = None,
) -> None:
    """Write the leaderboard's zip of eleven files, or say what keeps it from being whole."""
    from flows.settings import find_root
    from tasks import submission
    from tasks.params_file import load_params

    root = find_root()
    for line in submission.submit(
        root, load_params(root / "params.yaml"), out or root / "reports/glue-submission.zip"
    ):
        print(line)


@glue.command()
def diagnostic() -> None:
    """Score MNLI's model on the AX diagnostic, where its file with labels (diagnostic-full.tsv) is there."""
    from flows.settings import find_root
    from tasks import submission
    from tasks.params_file import load_params

    root = find_root()
    print(submission.diagnostic(root, load_params(root / "params.yaml")))
