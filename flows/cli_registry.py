"""`roberta register`, `models`, `compare`, `promote`, `rollback`, `lineage`, `evaluate`, `reproduce`: the registry.

As in `flows/cli.py`, every heavy import stands in the command that needs it.
"""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_stop import stoppable

NameArgument = Annotated[str, typer.Argument(help="Registered name, for example roberta-cola.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, for the record.")]


def register(
    gate: Annotated[bool, typer.Option(help="Let the gate decide on what is new.")] = True,
) -> None:
    """Register what stands in models/ and is not registered yet, and let the gate decide, as `roberta run` does at its end."""
    from flows.settings import find_root
    from tasks.params_file import load_params
    from tasks.promotion import promote_all
    from tasks.registry import register_all

    root = find_root()
    params = load_params(root / "params.yaml")
    made = register_all(params, root, on_line=print)
    print(f"new versions: {', '.join(made)}" if made else "Nothing new to register.")
    for line in promote_all(params, root) if gate else ():
        print(line)


def models(
    name: Annotated[str, typer.Argument(help="Registered name; all of the project's without one.")] = "",
) -> None:
    """List registered versions: alias, score, data, commit, age."""
    from flows.settings import find_root
    from flows.terminal import show_table
    from tasks.params_file import load_params
    from tasks.versions import list_versions

    root = find_root()
    rows = list_versions(load_params(root / "params.yaml"), root, name)
    show_table(rows)
    if not rows:
        print("No model is registered yet.")


def evaluate(
    model: Annotated[str, typer.Argument(help="A registered name (its champion), or models:/roberta-cola/2.")],
    rows: Annotated[
        Path | None,
        typer.Argument(help="A file of rows with labels, for a task of your own; its dev rows without one."),
    ] = None,
) -> None:
    """Score a registered model again on its task's dev rows in this folder, or on a file of rows; changes nothing."""
    from flows.settings import find_root
    from tasks.evaluate import evaluate_version

    print(evaluate_version(find_root(), model, rows).told)


def compare(
    name: NameArgument,
    old: Annotated[str, typer.Argument(help="A version's number or alias, as the champion.")],
    new: Annotated[str, typer.Argument(help="Another one, as the candidate.")],
) -> None:
    """Compare two versions on the same dev rows, as the gate does; changes nothing."""
    from flows.settings import find_root
    from tasks.params_file import load_params
    from tasks.versions import compare_versions

    root = find_root()
    print(compare_versions(load_params(root / "params.yaml"), root, name, old, new))


def promote(
    name: NameArgument,
    version: Annotated[str, typer.Argument(help="A version's number, or an alias.")],
    why: WhyOption = "",
) -> None:
    """Make a version champion by hand; the one before becomes previous."""
    from flows.settings import find_root
    from tasks.promotion import promote_by_hand

    print(promote_by_hand(find_root(), name, version, why))


def rollback(name: NameArgument, why: WhyOption = "") -> None:
    """Make the champion before this one champion again; the gate does not take this one back."""
    from flows.settings import find_root
    from tasks.promotion import rollback as go_back

    print(go_back(find_root(), name, why))


def lineage(
    what: Annotated[
        str,
        typer.Argument(help="models:/roberta-cola@champion, a registered name; or a source's name, a path, an md5."),
    ],
    page: Annotated[bool, typer.Option("--html", help="Write it as a page, reports/lineage.html.")] = False,
) -> None:
    """Of a model, everything it was made from; of a source, the models that came of it."""
    from flows.settings import find_root
    from roberta_core.errors import BadInput
    from tasks.lineage import as_lines, forward, is_version, trace
    from tasks.lineage_page import write_page
    from tasks.params_file import load_params

    root = find_root()
    if is_version(root, what):
        trees = [trace(root, what)]
        print("\n".join(as_lines(trees[0])))
    else:
        found = forward(load_params(root / "params.yaml"), root, what)
        if not found:
            raise BadInput(
                f"No registered model came of {what}.",
                "Give a source's name, a path or the md5 of a file, as in dvc.lock.",
            )
        trees = [tree for tree, _ in found]
        for tree, hit in found:
            hashed = next((value for key, value in hit.facts.items() if key != "params"), "")
            aliases = f" ({tree.facts['aliases']})" if "aliases" in tree.facts else ""
            print(f"{tree.name}{aliases}: by {hit.name} {hashed}".rstrip())
    if page:
        print(write_page(root, trees))


def reproduce(
    model: Annotated[str, typer.Argument(help="A registered name (its champion), or models:/roberta-cola/2.")],
    into: Annotated[
        Path | None, typer.Option(help="An empty or new folder; .work/reproduce/<name>-<version> without it.")
    ] = None,
) -> None:
    """Build a registered model again in a fresh folder, from its commit, params and data, and compare the weights."""
    from flows.reproduce import as_text
    from flows.reproduce import reproduce as rebuild
    from flows.settings import find_root, prepare

    root = find_root()
    prepare(root, terminal=True)
    with stoppable():
        done = rebuild(root, model, into, lambda line: print(line, flush=True))
    print(as_text(done))
    if not done.same:
        raise typer.Exit(1)


COMMANDS = (register, models, evaluate, compare, promote, rollback, lineage, reproduce)
