"""Where a registered model came from, down to the md5 of every file, and which models came of a source.

Backwards is a walk through the dvc.lock that lies with the version (`tasks/evidence.py`): from the stage that wrote the
model to the stages that wrote what it read, down to what no stage wrote: source files, and the code. It needs nothing
but the registry: not this folder's dvc.lock, which has moved on, nor the data. Forwards is the same walk from every
version, kept where it meets what is asked for.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from roberta_core.atomic import read_json
from roberta_core.errors import UserError
from tasks.evidence import fetch, read_lock, task_folder
from tasks.params import Params
from tasks.registry import NotRegistered, aliases_of, named_version, open_store, registered_models

SHOWN_FILES = 20
"""Files of a source that the terminal lists; the page has all."""
MIN_HASH = 6
PER_SOURCE = ("download", "clean")
"""Stages that stand in dvc.yaml once for each source."""


class NoLineage(UserError):
    """A version that does not keep the dvc.lock it was made under, or nothing came of what was asked for."""


@dataclass
class Node:
    """A stage, a file or a folder: what it is called, facts about it, and what it was made from.

    Attributes:
        kind: model, stage, source, code or file.
        again: it stands with its own branches further up.
    """

    kind: str
    name: str
    facts: dict[str, str] = field(default_factory=dict)
    made_from: list["Node"] = field(default_factory=list)
    again: bool = False

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        yield self
        for each in self.made_from:
            yield from each.walk()


def _covers(one: str, other: str) -> bool:
    return one == other or other.startswith(f"{one}/") or one.startswith(f"{other}/")


def _flat(value: object, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield f"{prefix} {json.dumps(value, ensure_ascii=False)}"


def _dropped(stage: str, reader: dict) -> bool:
    """Whether a stage is of a source that the reader's own parameters do not name: DVC keeps its entry in dvc.lock for good."""
    kind, _, source = stage.partition("@")
    return kind in PER_SOURCE and source not in reader.get("corpus.sources", {source})


class _Lock:
    """A dvc.lock as a graph."""

    def __init__(self, stages: dict[str, dict], files: dict[str, dict[str, str]]):
        self.stages, self.files = stages, files
        self._seen: set[str] = set()

    def maker_of(self, path: str) -> list[str]:
        """The stages that wrote a path, parts of it, or a folder that it lies in."""
        return [
            name
            for name, stage in self.stages.items()
            if any(_covers(out["path"], path) for out in stage.get("outs", ()))
        ]

    def stage(self, name: str) -> Node:
        own = self.stages[name]
        facts = {f"wrote {out['path']}": out.get("md5", "") for out in own.get("outs", ())}
        given = own.get("params", {}).get("params.yaml", {})
        if given:
            facts["params"] = ", ".join(_flat(given))
        node = Node("stage", name, facts, again=name in self._seen)
        if node.again:
            return node
        self._seen.add(name)
        for dep in own.get("deps", ()):
            # a stage that reads its own kind of output (metrics of many stages) is no cycle: DVC allows none
            makers = [maker for maker in self.maker_of(dep["path"]) if maker != name and not _dropped(maker, given)]
            if makers:
                node.made_from += [self.stage(maker) for maker in makers]
            else:
                node.made_from.append(self.leaf(name, dep))
        return node

    def leaf(self, stage: str, dep: dict) -> Node:
        code = dep["path"].startswith(("tasks/", "roberta_core/"))
        source = stage.startswith(("download@", "taskdata")) and not code
        facts = {"md5": dep.get("md5", "")} | ({"files": str(dep["nfiles"])} if "nfiles" in dep else {})
        node = Node("code" if code else "source" if source else "file", dep["path"], facts)
        for file, md5 in self.files.get(dep["path"], {}).items():
            node.made_from.append(Node("file", f"{dep['path']}/{file}", {"md5": md5}))
        return node


def trace(root: Path, name: str) -> Node:
    """The tree of a registered version, as `roberta-cola`, `models:/roberta-cola@champion` or `models:/roberta-cola/2`.

    Raises:
        NotRegistered: there is no such model or version. NoLineage: it keeps no dvc.lock.
    """
    root = Path(root).resolve()
    client = open_store(root)
    version = named_version(client, name)
    return _trace(root, version, aliases_of(client, version.name))


def _trace(root: Path, version, aliases: dict[str, str]) -> Node:
    number, tags = str(version.version), version.tags
    kept = {file: fetch(root, version.name, number, f"evidence/{file}") for file in ("dvc.lock", "sources.json")}
    machine = fetch(root, version.name, number, "evidence/machine.json")
    stages = read_lock(kept["dvc.lock"]) if kept["dvc.lock"] else {}
    lock = _Lock(stages, read_json(kept["sources.json"]) if kept["sources.json"] else {})
    out = task_folder(tags["task"]) if "task" in tags else "models/encoder"
    makers = lock.maker_of(out)
    if not makers:
        raise NoLineage(
            f"{version.name} {number} keeps no dvc.lock with {out} in it.",
            "It was registered without DVC; a model that `roberta run` makes keeps one.",
        )
    facts = {"aliases": ", ".join(sorted(alias for alias, its in aliases.items() if its == number))}
    facts |= {"score": f"{tags['measure']} {tags['score']} ({tags['data']} data)" if "score" in tags else ""}
    facts |= {"git commit": tags.get("git_commit", ""), "dvc.lock sha256": tags.get("dvc_lock_sha256", "")}
    facts |= {"weights sha256": tags.get("model_sha256", ""), "MLflow run": version.run_id or ""}
    if machine:
        made = read_json(machine)
        packages = ", ".join(f"{package} {release}" for package, release in made["packages"].items())
        facts["registered on"] = f"Python {made['python']}, {made['system']}, {made['cores']} cores; {packages}"
    facts = {key: value for key, value in facts.items() if value}
    return Node("model", f"{version.name} {number}", facts, [lock.stage(maker) for maker in makers])


def forward(params: Params, root: Path, asked: str) -> list[tuple[Node, Node]]:
    """The versions that came of a source: of its name, of a path, or of (the first digits of) an md5.

    Returns:
        For each version, newest first, its tree and the node in it that was asked for.
    """
    root = Path(root).resolve()
    found = []
    for client, name, aliases in registered_models(params, root):
        if aliases is None:
            continue
        for version in client.search_model_versions(f"name='{name}'", order_by=["version_number DESC"]):
            try:
                tree = _trace(root, version, aliases)
            except NoLineage:
                continue
            hit = next((node for node in tree.walk() if node.kind != "model" and _meets(node, asked)), None)
            if hit:
                found.append((tree, hit))
    return found


def _meets(node: Node, asked: str) -> bool:
    hashed = len(asked) >= MIN_HASH and any(value.startswith(asked) for value in node.facts.values())
    wrote = any(fact == f"wrote {asked}" for fact in node.facts)
    return node.name in (asked, f"download@{asked}", asked.rstrip("/")) or hashed or wrote


def as_lines(node: Node) -> list[str]:
    """The tree for a terminal."""
    lines = [f"{node.name}{_told(node)}"]
    shown = node.made_from
    if node.kind == "source" and len(shown) > SHOWN_FILES:
        rest = Node("file", f"and {len(shown) - SHOWN_FILES} more files: --html lists all")
        shown = [*shown[:SHOWN_FILES], rest]
    for number, each in enumerate(shown):
        last = number == len(shown) - 1
        first, *more = as_lines(each)
        lines.append(("└─ " if last else "├─ ") + first)
        lines += [("   " if last else "│  ") + line for line in more]
    return lines


def _told(node: Node) -> str:
    if node.again:
        return "  (see above)"
    told = []
    for key, value in node.facts.items():
        if key == "params":
            value = value if len(value) <= 120 else f"{value[:120]}…"
        told.append(value if key == "md5" else f"{key}: {value}")
    if node.kind == "model":
        return "".join(f"\n│  {each}" for each in told)
    return f"  {'; '.join(told)}" if told else ""


def is_version(root: Path, asked: str) -> bool:
    """Whether this names a registered model and not a source."""
    if asked.startswith("models:/"):
        return True
    try:
        named_version(open_store(root), asked)
    except NotRegistered:
        return False
    return True
