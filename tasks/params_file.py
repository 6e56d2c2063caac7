"""Reads params.yaml. A wrong, unknown or missing key names the key, what it got, what it takes, and the file."""

import difflib
import re
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from roberta_core.errors import BadParams
from tasks.params import Corpus, OwnTask, Params, Source
from tasks.params_finetune import Options

TAKES = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "model_type": "keys of its own, below it",
    "dict_type": "keys of its own, below it",
    "too_short": "one entry at least",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "letters, digits, dots, hyphens and underscores, a letter or digit first",
}
"""What a key takes in words, by the beginning of pydantic's name for the error."""


_UNION = re.compile(r"(literal|list)\[")


def _branch(error: dict) -> int | None:
    """Where in an error's place the branch of a key stands that takes one thing or another: `list[str]` in text.list[str].0."""
    place = error["loc"]
    for at, part in enumerate(place):
        if _UNION.match(str(part)) or (part == "str" and at == len(place) - 1 and error["type"].startswith("string")):
            return at
    return None


def _one_a_key(errors: list[dict]) -> list[dict]:
    """The errors, of such keys those of one branch alone: the one that fits best, whose errors lie deepest."""
    branches: dict[tuple, dict[object, list[dict]]] = {}
    for error in errors:
        at = _branch(error)
        place = error["loc"] if at is None else error["loc"][:at]
        branch = None if at is None else error["loc"][at]
        told = error if at is None else error | {"loc": place + error["loc"][at + 1 :]}
        branches.setdefault(place, {}).setdefault(branch, []).append(told)
    return [
        error
        for each in branches.values()
        for error in max(each.values(), key=lambda found: max(len(error["loc"]) for error in found))
    ]


def _line(error: dict, file: Path) -> str:
    """One pydantic error as a sentence with the key, what it got, what it takes, and the file."""
    keys = [str(part) for part in error["loc"]]
    key = ".".join(keys)
    if error["type"] == "extra_forbidden":
        section: type[BaseModel] | None = Params
        for part in keys[:-1]:
            field = section.model_fields.get(part) if section else None
            annotation = field.annotation if field else (Source if section is None or section is Corpus else None)
            section = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
            if part == "sources" or (len(keys) > 2 and keys[1] == "sources"):
                section = Source
            elif len(keys) > 3 and keys[:2] == ["finetune", "tasks"]:
                section = Options if keys[3:-1] == ["options"] else OwnTask
        known = list(section.model_fields) if section else []
        near = difflib.get_close_matches(keys[-1], known, 1)
        takes = f"did you mean {near[0]}?" if near else f"it takes: {', '.join(known)}"
        return f"{file}: unknown key {key}; {takes}"
    if error["type"] == "missing":
        return f"{file}: the key {key} is missing"
    if error["type"] == "string_pattern_mismatch" and keys[-1] == "[key]":
        where = ".".join(keys[:-2])
        return (
            f"{file}: {where}: the name {keys[-2]!r} has other characters than lower case letters, digits and hyphens"
        )
    if error["type"] == "string_too_long" and keys[-1] == "[key]":
        return f"{file}: {'.'.join(keys[:-2])}: a name has {len(keys[-2])} characters, {error['ctx']['max_length']} at most"
    got = error.get("input")
    shown = "" if isinstance(got, dict) else ", got nothing" if got is None else f", got {got!r}"
    takes = next((words for kind, words in TAKES.items() if error["type"].startswith(kind)), "")
    if takes:
        return f"{file}: {key} takes {takes}{shown}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{file}: {key or 'the file'}: {message[0].lower() + message[1:]}{shown}"


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a section: DVC does too, while YAML's default here takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value} stands there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _bad_yaml(error: yaml.YAMLError, file: Path) -> str:
    """`params.yaml, line 3: found a tab`, from an error that shows a picture of several lines."""
    mark = getattr(error, "problem_mark", None)
    told = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{file}, line {mark.line + 1}: {told}" if mark else f"{file} is not valid YAML: {told}"


def _watched(item: object) -> set[str]:
    """Every key that a stage of dvc.yaml names under `params`, or whose value names one of its dependencies."""
    if not isinstance(item, dict):
        return set()
    own = {key for key in item.get("params") or () if isinstance(key, str) and "$" not in key}
    own |= {key for each in item.get("deps") or () for key in re.findall(r"\$\{([a-z_]+\.[a-z_.]+)\}", str(each))}
    own = {key for key in own if not key.startswith("item.")}  # of a loop
    return own.union(*map(_watched, item.values()))


def _left_out(raw: dict, file: Path) -> list[str]:
    """Keys that the dvc.yaml beside the params file watches and the file lacks: DVC stops at them, in the middle of a run."""
    dag = file.with_name("dvc.yaml")
    if not dag.is_file():
        return []
    try:
        keys = _watched(yaml.load(dag.read_text(encoding="utf8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (yaml.YAMLError, UnicodeDecodeError):
        return []  # DVC says it, with the line
    missing = []
    for key in sorted(keys):
        at: object = raw
        for part in key.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        if at is None:
            missing.append(key)
    return missing


def load_params(file: Path | str = "params.yaml") -> Params:
    """Reads and validates a params file.

    Raises:
        BadParams: the file is missing, is not YAML, or has a wrong or unknown key.
    """
    file = Path(file)
    try:
        raw = yaml.load(file.read_text(encoding="utf8"), _Loader)
    except FileNotFoundError:
        raise BadParams(
            f"There is no {file} here.",
            "Start in the project's folder, or copy a preset: cp presets/quickstart.yaml params.yaml",
        ) from None
    except OSError as error:
        raise BadParams(
            f"{file} cannot be read: {error.strerror}.", "Mend that, or put a preset in its place."
        ) from None
    except UnicodeDecodeError as error:
        raise BadParams(f"{file} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise BadParams(f"{_bad_yaml(error, file)}.", "Mend that line.") from None
    if not isinstance(raw, dict):
        raise BadParams(f"{file} holds no sections.", "Copy a preset: cp presets/quickstart.yaml params.yaml")
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        lines = [_line(each, file) for each in _one_a_key(error.errors())]
        raise BadParams("; ".join(lines) + ".", "Mend the params file; docs/params.md lists every key.") from None
    if missing := _left_out(raw, file):
        raise BadParams(
            f"{file} leaves out {', '.join(missing)}, which DVC watches.",
            "Put it back; docs/params.md has the defaults, presets/quickstart.yaml is a whole file.",
        )
    return params
