"""`roberta import` and `roberta export`: models in from elsewhere, and out with a card; `roberta blimp`: what one knows."""

from pathlib import Path
from typing import Annotated

import typer

from flows.settings import find_root
from roberta_core.errors import UserError

ModelArgument = Annotated[
    str, typer.Argument(help="A model folder, a registered name (its champion), or models:/roberta-cola@champion.")
]
Out = Annotated[Path, typer.Argument(help="The folder to write; what stood there is replaced if --force is given.")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT where it exists.")]


def _root() -> Path:
    """The project that this is run in, or the current folder: a model needs none to be taken in."""
    try:
        return find_root()
    except UserError:
        return Path.cwd()


def open_model(name: str):
    """The model of a folder, or the one inside a registered version."""
    from roberta_core.inference import load_model

    if not name.startswith("models:/") and (Path(name).is_dir() or "/" in name):
        return load_model(name)
    from tasks.registry import open_registered

    return open_registered(name, find_root())


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


def blimp(
    model: ModelArgument,
    paths: Annotated[
        list[Path], typer.Argument(help="Files of minimal pairs as BLiMP's, or folders of such *.jsonl files.")
    ],
    fp32: Annotated[
        bool, typer.Option("--fp32", help="Everything in float32; on a CPU with bfloat16 that is slower.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Zero-shot minimal pairs: how often an encoder finds the good sentence likelier than the bad one; trains nothing."""
    import contextlib
    import json
    import sys
    from dataclasses import asdict

    from flows.terminal import show_table
    from roberta_core.device import set_threads
    from roberta_core.errors import BadInput
    from roberta_core.minimal_pairs import read_pairs, score_pairs
    from roberta_core.progress import Progress

    pairs, left_out = read_pairs(paths)
    opened = open_model(model)
    if opened.kind != "encoder":
        raise BadInput(
            f"{model} is no encoder: it has lost its head for masked words.", "Give one, as models/encoder."
        )
    set_threads(0)
    precision = "fp32" if fp32 else "bf16"
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        progress = Progress("blimp", len({text for pair in pairs for text in (pair.good, pair.bad)}), "sentences")
        rows, too_long = score_pairs(opened.model, opened.tokenizer, pairs, precision, progress.advance)
        progress.finish()
    left_out += too_long
    if as_json:
        told = {
            "model": model,
            "precision": precision,
            "left_out": left_out,
            "paradigms": [asdict(row) for row in rows],
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    shown = [
        {
            "paradigm": row.name,
            "pairs": f"{row.pairs:,}",
            "accuracy": f"{row.accuracy:.1%}",
            "ties": f"{row.ties:,}",
            "unequal length": f"{row.unequal:,}",
            "accuracy, equal length": "" if row.accuracy_equal is None else f"{row.accuracy_equal:.1%}",
        }
        for row in rows
    ]
    show_table(shown)
    for line in left_out:
        print(f"left out: {line}")
    print(f"Pseudo-log-likelihood by masking each token, {precision}; nothing was trained. Chance is 50 %.")


COMMANDS = {"import": import_, "export": export, "blimp": blimp}
