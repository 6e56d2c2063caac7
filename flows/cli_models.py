"""`roberta import` and `roberta export`: models in from elsewhere, and out with a card."""

from pathlib import Path
from typing import Annotated

import typer

from flows.settings import find_root
from roberta_core.errors import UserError

Out = Annotated[Path, typer.Argument(help="The folder to write; what stood there is replaced if --force is given.")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT where it exists.")]


def _root() -> Path:
    """The project that this is run in, or the current folder: a model needs none to be taken in."""
    try:
        return find_root()
    except UserError:
        return Path.cwd()


def import_(
    source: Annotated[
        str,
        typer.Argument(help="A Hugging Face folder (RoBERTa, BERT), a fairseq model.pt or its folder, or a hub name."),
    ],
    out: Out,
    force: Force = False,
) -> None:
    """Take a model in: a folder, a fairseq checkpoint, or a name on the hub. No code in it is ever run."""
    from tasks.exchange import take_in

    for line in take_in(_root(), source, out, force):
        print(line)


def export(
    source: Annotated[
        str, typer.Argument(help="A model folder, a registered name (its champion), or models:/roberta-cola@champion.")
    ],
    out: Out,
    force: Force = False,
) -> None:
    """Write a model as a Hugging Face folder with its card: parameters, data, scores, protocol, lineage."""
    from tasks.exchange import give_out

    for line in give_out(_root(), source, out, force):
        print(line)


COMMANDS = {"import": import_, "export": export}
