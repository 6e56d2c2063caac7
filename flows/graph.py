"""What DVC knows: the stages and what they need, which ones are stale, and the order of dvc.lock.

The graph comes from DVC's own index, so that `dvc.yaml` stays the only place that lists stages. Staleness comes from
`dvc status` as a process: the index caches what it has read, and a process of its own forgets it.

Order of dvc.lock: `dvc repro` adds the stages it ran for the first time in its plan's order, while stages that run
side by side add themselves as they end. Everything else in the file is the same, so after a run the new keys are put
into plan order, old keys keep their place, and both doors write the same bytes.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roberta_core.atomic import read_json, write_json
from roberta_core.errors import BadInput, TryAgain, UserError

LOCK_ORDER = Path(".work") / "lock-order.json"


class PipelineUnreadable(UserError):
    """dvc.yaml, or what it names, is not as DVC wants it."""


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml: its name (`clean@wiki`) and the stages whose outputs it reads."""

    name: str
    needs: tuple[str, ...]


def read_stages(root: Path) -> list[Stage]:
    """All stages in the order in which `dvc repro` would run them.

    Raises:
        PipelineUnreadable: DVC cannot read dvc.yaml, or the graph has a cycle.
    """
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    root = Path(root).resolve()
    with _opened(root) as repo:
        graph = get_active_graph(repo.index.graph)
        plan = plan_repro(graph, collect_stages(repo, [str(root / "dvc.yaml")]))
        return [Stage(_name(each, root), tuple(_name(up, root) for up in graph.successors(each))) for each in plan]


def needed_for(plan: list[Stage], until: list[str]) -> list[Stage]:
    """The stages of a plan that are named (`pack`, `glue@CoLA`, or `clean` for all its sources), and all they need.

    Raises:
        BadInput: there is no such stage.
    """
    wanted: set[str] = set()
    for name in until:
        named = [stage.name for stage in plan if name in (stage.name, stage.name.partition("@")[0])]
        if not named:
            raise BadInput(f"There is no stage {name}.", f"There are: {', '.join(stage.name for stage in plan)}.")
        wanted.update(named)
    for stage in reversed(plan):  # what needs others stands after them
        if stage.name in wanted:
            wanted.update(stage.needs)
    return [stage for stage in plan if stage.name in wanted]


@contextmanager
def _opened(root: Path) -> Iterator:
    """DVC's view of the project; what DVC raises is one line.

    Raises:
        PipelineUnreadable: this is no git repository, or DVC cannot read dvc.yaml.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            yield repo
    except DvcException as error:
        told = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        if "not a git repository" in told:
            raise PipelineUnreadable(
                f"{root} is no git repository, and DVC wants one.",
                "Run once: git init (or, to do without: dvc config --local core.no_scm true).",
            ) from None
        raise PipelineUnreadable(f"DVC cannot read the pipeline: {told}.", "Mend dvc.yaml or params.yaml.") from None


def check_inputs(root: Path) -> None:
    """Finds what no stage makes and is not there, before anything runs: DVC would say so in the middle of a run.

    Raises:
        BadInput: an input is missing. PipelineUnreadable: as `read_stages`.
    """
    root = Path(root).resolve()
    with _opened(root) as repo:
        made = [Path(out.fs_path) for stage in repo.index.stages for out in stage.outs if out.protocol == "local"]
        for stage in repo.index.stages:
            for needed in stage.deps:
                path = Path(needed.fs_path)
                if needed.protocol != "local" or needed.exists:
                    continue
                if any(out == path or out in path.parents or path in out.parents for out in made):
                    continue
                name = _name(stage, root)
                kind, _, source = name.partition("@")
                keys = {"download": f"corpus.sources.{source}.path", "taskdata": "glue.path"}
                key = (keys | {"finetune": f"finetune.tasks.{source}.path"}).get(kind)
                mend = f"Put it there, or set {key} to one that exists." if key else "Put it back."
                raise BadInput(f"There is no {needed.def_path}, which {name} reads.", mend)


def _name(stage, root: Path) -> str:
    """What `dvc repro -s` in `root` calls a stage. DVC's own `addressing` depends on the working directory."""
    return getattr(stage, "name", None) or Path(stage.path).resolve().relative_to(root).as_posix()


def read_stale(root: Path) -> dict[str, list[str]]:
    """The stages whose inputs, parameters, command or outputs changed, each with the reasons in words.

    A stage below a stale one is not listed unless its own inputs changed already.

    Raises:
        PipelineUnreadable: `dvc status` fails.
        TryAgain: another dvc command holds the project.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        told = next((line for line in lines if line.startswith("ERROR")), lines[0]).removeprefix("ERROR: ")
        if "lock" in told or "busy" in told:
            raise TryAgain(f"Another dvc command is at work here: {told}.", "Wait until it is done.")
        raise PipelineUnreadable(f"dvc status fails: {told}.", "Mend that; `dvc status -v` says more.")
    reasons: dict[str, list[str]] = {}
    ran = set(lock_keys(root))
    for name, entries in json.loads(done.stdout or "{}").items():
        reasons[name] = [] if name in ran else ["has not run yet"]
        for entry in entries if name in ran else ():
            if isinstance(entry, str):
                reasons[name].append(entry)
                continue
            for kind, items in entry.items():
                for item, how in items.items():
                    # parameters come as {"params.yaml": {"clean": "modified"}}
                    for key, change in how.items() if isinstance(how, dict) else ((item, how),):
                        reasons[name].append(f"{kind.removeprefix('changed ')}: {key} {change}")
    return reasons


def lock_keys(root: Path) -> list[str]:
    """The stages in dvc.lock, in its order."""
    from dvc.utils.serialize import load_yaml

    lock = root / "dvc.lock"
    return list(load_yaml(str(lock)).get("stages", {})) if lock.is_file() else []


def remember_lock_order(root: Path) -> None:
    """Keeps the order of dvc.lock as it is before a run; what a killed run had kept stands."""
    if not (root / LOCK_ORDER).is_file():
        write_json(root / LOCK_ORDER, {"stages": lock_keys(root)})


def restore_lock_order(root: Path, plan: list[Stage]) -> bool:
    """Puts dvc.lock into the order that `dvc repro` would have given it, byte for byte.

    Returns False where another dvc command is at work: then the next run does it.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.utils.serialize import modify_yaml

    remembered = root / LOCK_ORDER
    before = read_json(remembered)["stages"] if remembered.is_file() else []
    now = lock_keys(root)
    old = [key for key in before if key in now]
    new = [stage.name for stage in plan if stage.name in now and stage.name not in old]
    wanted = old + new + [key for key in now if key not in old and key not in new]
    if wanted != now:
        try:
            with Repo(str(root)) as repo, repo.lock, modify_yaml(str(root / "dvc.lock")) as lock:
                for key in wanted:
                    lock["stages"].move_to_end(key)
        except LockError:
            return False
    remembered.unlink(missing_ok=True)
    return True
