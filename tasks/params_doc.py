"""Writes docs/params.md from the schema in tasks/params.py, so that the page cannot drift from the code.

`python -m tasks.params_doc` writes it; a test compares the two.
"""

import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from roberta_core.atomic import atomic_file
from tasks.params import OwnTask, Params, Section, Source

PAGE = Path("docs/params.md")
BOUNDS = (
    ("ge", "at least"),
    ("gt", "more than"),
    ("le", "at most"),
    ("lt", "less than"),
    ("min_length", "entries at least"),
)
PYTHON_TO_YAML = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
HEAD = """# Parameters

Every key of `params.yaml`, made from `tasks/params.py` by `python -m tasks.params_doc`. A wrong or unknown key is refused
before anything is written. Whole files to start from are in `presets/`.

Everything but the sections `registry` and `runtime` changes results, and makes the stages that use it run again. DVC
watches the sections `clean` to `pretrain` as a whole, and the keys of `glue` one by one: so these sections and all keys
of `glue` must stand in the file. Any other key that is left out has its default.
"""


def _bounds(metadata: list) -> str:
    """`[Ge(0), Le(1)]` -> `at least 0, at most 1`."""
    found = []
    for item in metadata:
        for inner in item.metadata if isinstance(item, FieldInfo) else [item]:
            for name, words in BOUNDS:
                if (bound := getattr(inner, name, None)) is not None:
                    found.append(f"{words} {bound}")
    return ", ".join(found)


def kind_of(annotation: Any, metadata: list | None = None) -> str:
    """A type annotation as a reader of YAML would say it: `Positive | None` -> `integer (more than 0) or null`."""
    bounds = _bounds(metadata or [])
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "keys of its own"
    if origin is Annotated:
        return kind_of(inner[0], [*inner[1:], *(metadata or [])])
    if origin is Literal:
        text = ", ".join(f"`{value}`" for value in inner)
    elif origin in (types.UnionType, Union):
        text = " or ".join(kind_of(each) for each in inner)
    elif origin is dict:
        text = "keys of its own"
    elif origin is list:
        text = f"list of {kind_of(inner[0])}"
    else:
        text = PYTHON_TO_YAML[annotation]
        if annotation is str:
            bounds = bounds.replace("entries at least 1", "not empty")
    return f"{text} ({bounds})" if bounds else text


def _shown(value: object) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, Section):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if value == "" else f"`{value}`"


def table(section: type[Section]) -> list[str]:
    """The Markdown lines of one section: key, type, default, meaning."""
    lines = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for key, field in section.model_fields.items():
        default = "needed" if field.is_required() else _shown(field.default)
        cells = (f"`{key}`", kind_of(field.annotation, field.metadata), default, field.description or "")
        # `<s>` in a cell would be read as HTML.
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return lines


def page() -> str:
    """The whole page."""
    seed = _shown(Params.model_fields["seed"].default)
    lines = [HEAD, "## seed", "", f"One integer, by default {seed}: weights, data order and masks follow from it.", ""]
    for name, field in Params.model_fields.items():
        if name == "seed":
            continue
        section = field.annotation
        lines += [f"## {name}", ""]
        if name == "corpus":
            about = section.model_fields["sources"].description
            lines += [f"`corpus.sources` holds one entry a source. {about}", ""]
            lines += ["Names are lower case letters, digits and hyphens.", ""]
            lines += table(Source)
        else:
            if section.__doc__ and section.__doc__ != Section.__doc__:
                lines += [" ".join(section.__doc__.split()), ""]
            lines += table(section)
            for key, inner in section.model_fields.items():
                if isinstance(inner.annotation, type) and issubclass(inner.annotation, Section):
                    lines += ["", f"### {name}.{key}", "", " ".join(inner.annotation.__doc__.split()), ""]
                    lines += table(inner.annotation)
            if name == "finetune":
                lines += ["", "### finetune.tasks.NAME", "", "Names are lower case letters, digits and hyphens.", ""]
                lines += table(OwnTask)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Writes the page."""
    with atomic_file(PAGE) as handle:
        handle.write(page())
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
