"""`roberta`: the third door, and the models at hand.

Every heavy import stands in the command that needs it, so that `roberta --help` answers at once. An error that a user
can mend is one line on the error output and an exit code that means something (75: try again); `--debug` adds the
traceback.
"""

import os
import signal
import sys
import threading
from importlib import import_module
from typing import Annotated

import typer

from flows import cli_data, cli_glue, cli_models, cli_registry
from flows.cli_models import ModelArgument
from flows.cli_stop import stoppable

app = typer.Typer(
    help="From raw text to a pretrained RoBERTa encoder, to scores, to a promoted model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["ROBERTA_DEBUG"] = "1"


@app.command()
def run(
    publish: Annotated[bool, typer.Option(help="Register, promote and report when the stages are done.")] = True,
) -> None:
    """Bring everything up to date: every stage that is stale, then register, promote and report."""
    from flows.settings import find_root, prepare
    from tasks.params_file import load_params

    root = find_root()
    prepare(root, terminal=True)
    params = load_params(root / "params.yaml")
    # what can go wrong at once is said before Prefect starts, which takes some seconds
    from roberta_core.lock import held_lock

    with held_lock(root / ".work" / "run.lock", "Another run is going on in this folder"):
        pass
    from flows.graph import check_inputs
    from flows.settings import check_server

    check_inputs(root)
    server = os.environ.get("PREFECT_API_URL")
    check_server(server)
    print(
        f"starting, with Prefect's server at {server}" if server else "starting, with a Prefect server of its own",
        flush=True,
    )
    with stoppable():
        from flows.pipeline import pipeline
        from flows.process import shield_server
        from flows.terminal import show_results

        shield_server()
        if publish:
            # takes 2 s and is needed at the end; Prefect's server starts in a process of its own meanwhile
            threading.Thread(target=import_module, args=("mlflow",), daemon=True).start()
        ended = pipeline(str(root), publish=publish)
    show_results(root, params, ended)


@app.command()
def stage(name: Annotated[str, typer.Argument(help="As in dvc.yaml: pack, clean@python-docs, glue@CoLA.")]) -> None:
    """Run one stage here, through DVC, as `dvc repro -s` does."""
    import difflib

    from flows.graph import read_stages
    from flows.process import Groups, run_stage
    from flows.settings import find_root, prepare
    from roberta_core.errors import BadInput
    from roberta_core.progress import human_time

    root = find_root()
    prepare(root, terminal=True)
    known = [each.name for each in read_stages(root)]
    if name not in known:
        near = (
            difflib.get_close_matches(name, known, 3)
            or [each for each in known if each.startswith(f"{name}@")]
            or known
        )
        raise BadInput(f"There is no stage {name}.", f"There are: {', '.join(near)}.")
    with stoppable():
        ended = run_stage(name, root, Groups(), print)
    print(f"{name}: {ended.how}, {human_time(ended.seconds)}")


@app.command()
def pretrain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it will cost, and train nothing.")] = False,
    device: Annotated[str, typer.Option(help="With --dry-run: a GPU's name, as H100; none: this machine.")] = "",
    devices: Annotated[int, typer.Option(help="With --dry-run: how many of them; 0: runtime.processes.", min=0)] = 0,
) -> None:
    """Run the stage pretrain here, through DVC; or say what it will cost: parameters, FLOPs, memory, tokens, hours."""
    if not dry_run:
        stage("pretrain")
        return
    from flows.settings import find_root
    from tasks.dry_run import report
    from tasks.params_file import load_params

    os.chdir(find_root())
    for line in report(load_params(), device, devices):
        print(line)


@app.command()
def status() -> None:
    """Which stages are stale and why, and which model versions are champion."""
    from flows.graph import read_stages, read_stale
    from flows.settings import find_root, prepare
    from flows.terminal import show_status
    from roberta_core.errors import TryAgain
    from roberta_core.lock import held_lock
    from tasks.params_file import load_params

    root = find_root()
    prepare(root, terminal=True)
    params = load_params(root / "params.yaml")
    stale: dict[str, list[str]] | None = None
    try:
        # `dvc status` fails while a stage runs
        with held_lock(root / ".work" / "run.lock", "A run is going on"):
            stages, stale = read_stages(root), read_stale(root)
    except TryAgain as error:
        print(error.what)
    if stale is not None:
        show_status(stages, stale)
    from tasks.registry import overview

    rows = [row for row in overview(params, root) if "champion" in row["alias"]]
    for row in rows:
        score = "" if row["score"] is None else f"  {row['measure']} {row['score']:.4f} ({row['data']} data)"
        print(f"champion: {row['name']} version {row['version']}{score}")
    from tasks.versions import troubles

    found = troubles(params, root)
    for trouble in found:
        print(f"TROUBLE: {trouble}")
    if not rows and not found:
        print("No model is registered yet.")


@app.command()
def predict(
    model: ModelArgument,
    texts: Annotated[
        list[str],
        typer.Argument(
            help=r"One or more texts; \t stands between the two of a pair, or between a question and its context."
        ),
    ],
) -> None:
    """Predict: labels, entities or an answer, as the model was fine-tuned; a vector from an encoder. One line of JSON a text."""
    import json

    for answer in cli_models.open_model(model).predict([text.replace("\\t", "\t") for text in texts]):
        print(json.dumps(answer, ensure_ascii=False))


@app.command()
def fill(
    model: ModelArgument,
    text: Annotated[str, typer.Argument(help="A text with one or more <mask>.")],
    top: Annotated[int, typer.Option(help="How many words to show.", min=1, max=100)] = 5,
) -> None:
    """Fill each <mask> of a text: the likeliest tokens and their probabilities."""
    from roberta_core.errors import BadInput

    opened = cli_models.open_model(model)
    if opened.kind != "encoder":
        raise BadInput(f"{model} is a {opened.kind}, which fills no gaps.", "Give an encoder, such as models/encoder.")
    for number, words in enumerate(opened.fill(text, top), 1):
        if number > 1:
            print()
        for word, probability in words:
            print(f"{probability:7.2%}  {word}")


@app.command()
def report() -> None:
    """Write reports/index.html anew."""
    from flows.settings import find_root
    from tasks.params_file import load_params
    from tasks.registry import overview
    from tasks.report import write_report

    root = find_root()
    print(write_report(root, overview(load_params(root / "params.yaml"), root)))


@app.command()
def ui() -> None:
    """Start the pages of Prefect and MLflow on this project's stores; Ctrl-C ends both."""
    from flows.pages import serve
    from flows.settings import find_root, prepare

    root = find_root()
    prepare(root)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve(root)


@app.command()
def notify() -> None:
    """Let Prefect's server tell failures by webhook (ROBERTA_WEBHOOK) or e-mail; also finds runs that were killed."""
    from flows.settings import check_server, find_root, prepare
    from roberta_core.errors import BadInput

    prepare(find_root())
    server = os.environ.get("PREFECT_API_URL")
    if not server:
        raise BadInput("A server has to be there to send.", "Start one, and set PREFECT_API_URL.")
    check_server(server)
    from flows.notify import set_up

    for name in set_up():
        print(f"automation: {name}")


for each in (*cli_registry.COMMANDS, *cli_data.COMMANDS):
    app.command()(each)
for name, each in cli_models.COMMANDS.items():
    app.command(name)(each)
app.add_typer(cli_data.data, name="data")
app.add_typer(cli_glue.glue, name="glue")


def main() -> None:
    """The entry point. Turns an error that a user can mend into one line and its exit code."""
    try:
        sys.exit(app(standalone_mode=True))
    except Exception as error:
        from tasks.stage import explain

        told = explain(error)
        if told is None or os.environ.get("ROBERTA_DEBUG"):
            import traceback

            traceback.print_exc()
        line, code = told or (f"{type(error).__name__}: {error} (a bug: the lines above say where)", 1)
        print(f"roberta: {line}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
