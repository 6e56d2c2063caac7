"""`roberta reproduce`: a registered model built again in a fresh folder, from its own commit, params and data.

A claim that a model can be rebuilt is worth what its last test was. So this takes the version's word for everything:
the git commit in its tags, the dvc.lock and params.yaml that lie with it, the data by the md5 in that lock. The data
that came from outside (what `download` fetched, tasks from elsewhere) is taken from the DVC cache or a remote, because
the outside has moved on; every stage after it runs anew, with DVC's caches of finished work switched off, and after
each one its outputs are held against the lock. So a model that comes out different names the first stage that did.

On the CPU the weights must come out the same to the bit. Price: the time of a whole run, and a second set of outputs.
The rebuilt run tracks into its own `mlflow.db`; the project's registry only hears questions.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from flows.graph import read_stages
from flows.process import Groups, run_stage
from roberta_core.atomic import digest_of, read_json
from roberta_core.errors import BadInput, UserError
from roberta_core.progress import human_time
from tasks.evidence import fetch, read_lock, task_folder
from tasks.lineage import NoLineage
from tasks.registry import named_version, open_store

PLACE = Path(".work") / "reproduce"
CODE = ("tasks/", "roberta_core/")
FROM_OUTSIDE = "download"
"""The stage whose outputs are taken from the cache or a remote rather than made anew."""


class CannotReproduce(UserError):
    """Something that the version was made from is not to be had."""


@dataclass
class Reproduction:
    """What came of it.

    Attributes:
        wanted, found: sha256 of the weights, then and now.
        differs: outputs that came out with other bytes, as `stage: path`, in the order in which they were made.
    """

    name: str
    folder: Path
    wanted: str
    found: str
    differs: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return self.wanted == self.found


def reproduce(
    root: Path, model: str, into: Path | None = None, on_line: Callable[[str], None] = print
) -> Reproduction:
    """Rebuilds a registered version in `into`, or in `.work/reproduce/<name>-<version>`.

    Raises:
        NotRegistered: there is no such version. NoLineage: it does not say what it was made from.
        CannotReproduce: the commit, the code or the data of then is not to be had. BadInput: `into` is not empty.
        StageFailed, StageTryAgain: a stage did not run through.
    """
    root = Path(root).resolve()
    version = named_version(open_store(root), model)
    number, tags = str(version.version), version.tags
    evidence = fetch(root, version.name, number)
    lock = read_lock(evidence / "dvc.lock") if evidence else {}
    out = task_folder(tags["task"]) if "task" in tags else "models/encoder"
    target = next((name for name, stage in lock.items() if out in _outs(stage)), None)
    commit = tags.get("git_commit", "").removesuffix("-dirty")
    if target is None or not commit or not (evidence / "params.yaml").is_file():
        raise NoLineage(
            f"{version.name} {number} does not keep its git commit, params.yaml and dvc.lock with {out} in it.",
            "Only a model that was made in a git repository, through DVC, can be built again.",
        )
    folder = Path(into) if into else root / PLACE / f"{version.name}-{number}"
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise BadInput(f"{folder} is not empty.", "Delete it, or name another folder with --into.")
    on_line(f"{version.name} {number}: commit {commit[:12]} goes to {folder}")
    project = _check_out(root, commit, folder)
    for name in ("params.yaml", "dvc.lock"):
        shutil.copyfile(evidence / name, project / name)
    _share_data(root, project)
    for line in _other_machine(read_json(evidence / "machine.json")):
        on_line(line)
    given, made = _split(project, target)
    work = _Work(project, lock, on_line)
    for name in given:
        work.take(name)
    for name in made:
        work.make(name)
    found = digest_of(project / out / "model.safetensors")
    return Reproduction(f"{version.name} {number}", folder, tags.get("model_sha256", ""), found, work.differs)


def _outs(stage: dict) -> dict[str, str]:
    """Outputs of a stage in a dvc.lock: path -> md5. Numbers and curves are not compared: they are no input of a model."""
    outs = {each["path"]: each.get("md5", "") for each in stage.get("outs", ())}
    return {path: md5 for path, md5 in outs.items() if not path.startswith(("metrics/", "plots/"))}


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _check_out(root: Path, commit: str, folder: Path) -> Path:
    """A clone of the project's repository at a commit. Returns the project's folder in it.

    The clone reads the objects of the first repository, so a commit that no branch holds any more can be had too.
    """
    top, inside = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "--show-prefix")
    if top is None or _git(root, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise CannotReproduce(
            f"The git commit {commit[:12]} is not in this repository.", "Fetch it (git fetch), and run again."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    cloned = _git(root, "clone", "--quiet", "--shared", "--no-checkout", top, str(folder.resolve()))
    if cloned is None or _git(folder, "checkout", "--quiet", "--detach", commit) is None:
        raise CannotReproduce(
            f"git cannot check out {commit[:12]} in {folder}.", "Is there room, and may it be written?"
        )
    project = folder.resolve() / inside
    if not (project / "dvc.yaml").is_file() or not (project / ".dvc").is_dir():
        raise CannotReproduce(f"The commit {commit[:12]} has no dvc.yaml and .dvc in it.", "Commit them next time.")
    return project


def _share_data(root: Path, project: Path) -> None:
    """Gives the fresh folder the cache of this one, and its remotes, whose addresses may be relative or in config.local."""
    from dvc.config import Config
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        cache, remotes, core = repo.cache.local_cache_dir, repo.config["remote"], repo.config["core"]
        with Config(str(project / ".dvc"), local_dvc_dir=str(project / ".dvc")).edit("local") as config:
            config["cache"] = {"dir": str(cache)}
            config["remote"] = {
                # DVC writes a local address relative to its own file
                name: {key: str(value) for key, value in remote.items()}
                for name, remote in remotes.items()
            }
            config["core"] = {"remote": core["remote"]} if core.get("remote") else {}


def _other_machine(then: dict) -> list[str]:
    """What is another here than where the version was registered, as lines; other packages may give other bits."""
    lines = []
    for package, release in then["packages"].items():
        try:
            now = installed(package)
        except PackageNotFoundError:
            now = "not installed"
        if now != release:
            lines.append(f"note: {package} was {release}, here it is {now}")
    if then["cores"] != os.cpu_count():
        lines.append(f"note: {then['cores']} cores then, {os.cpu_count()} here: torch may add in another order")
    return lines


def _changed(project: Path) -> dict[str, list[tuple[str, str]]]:
    """What `dvc status` says of each stage: (kind, path) pairs."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=project, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotReproduce(f"dvc status fails in {project}: {done.stderr.strip()[-300:]}.", "Mend that.")
    found: dict[str, list[tuple[str, str]]] = {}
    for stage, entries in json.loads(done.stdout or "{}").items():
        for entry in entries:
            for kind, items in entry.items() if isinstance(entry, dict) else [(entry, {"": ""})]:
                found.setdefault(stage, []).extend((kind, path) for path in items)
    return found


def _split(project: Path, target: str) -> tuple[list[str], list[str]]:
    """The stages whose outputs are taken as they are, and those that run, in their order.

    Taken are downloads, and what reads a file that no stage makes and that is not here as it was then.

    Raises:
        CannotReproduce: the code or dvc.yaml of the commit is not what the version was made with.
    """
    plan = {stage.name: stage for stage in read_stages(project)}
    changed = _changed(project)
    made_by = {out: name for name, stage in read_lock(project / "dvc.lock").items() for out in _outs(stage)}
    given: set[str] = set()
    made: set[str] = set()
    waiting = [target]
    while waiting:
        name = waiting.pop()
        if name in given | made:
            continue
        if name not in plan:
            raise CannotReproduce(f"The commit's dvc.yaml has no stage {name}.", "It was changed and not committed.")
        outside = [path for kind, path in changed.get(name, ()) if kind == "changed deps" and not _made(path, made_by)]
        code = [path for path in outside if path.startswith(CODE)]
        if code or "changed command" in [kind for kind, _ in changed.get(name, ())]:
            raise CannotReproduce(
                f"{name}: {', '.join(code) or 'its command'} was not committed as it was when the model was made.",
                "The commit is the nearest there is; what was changed then is lost, unless a stash or a branch has it.",
            )
        if outside or name.split("@")[0] == FROM_OUTSIDE:
            given.add(name)
        else:
            made.add(name)
            waiting += plan[name].needs
    return [name for name in plan if name in given], [name for name in plan if name in made]


def _made(path: str, made_by: dict[str, str]) -> bool:
    return any(path == out or out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in made_by)


class _Work:
    """Runs stages in the fresh folder, and holds what they write against the lock of then."""

    def __init__(self, project: Path, lock: dict[str, dict], on_line: Callable[[str], None]):
        self.project, self.lock, self.on_line = project, lock, on_line
        self.groups = Groups()
        self.differs: list[str] = []
        self.environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"}

    def _dvc(self, *arguments: str) -> bool:
        done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=self.project, capture_output=True)
        return done.returncode == 0

    def take(self, name: str) -> None:
        """A stage's outputs from the cache or a remote; a download that neither has runs again, and must come out equal."""
        if self._dvc("checkout", "--quiet", name) or self._dvc("pull", "--quiet", name):
            self.on_line(f"{name}: its data, from the cache or a remote")
            return
        try:
            self.make(name)
        except UserError as error:
            gone = f"The data of {name} is neither in the cache nor in a remote, and cannot be made again"
            raise CannotReproduce(
                f"{gone} ({error.what})", "Find a remote or a cache that has it: dvc pull."
            ) from None
        if any(each.startswith(f"{name}: ") for each in self.differs):
            raise CannotReproduce(
                f"The data of {name} is neither in the cache nor in a remote, and what its source holds now differs.",
                "Find a remote or a cache that has it: dvc pull.",
            )

    def make(self, name: str) -> None:
        """Runs a stage anew, and notes which of its outputs differ."""
        run = ("--force", "--no-run-cache")
        ended = run_stage(name, self.project, self.groups, lambda line: None, more=run, environment=self.environment)
        now = _outs(read_lock(self.project / "dvc.lock").get(name, {}))
        others = [f"{name}: {path}" for path, md5 in _outs(self.lock.get(name, {})).items() if now.get(path) != md5]
        self.differs += others
        told = (
            f"OTHER BYTES in {', '.join(each.partition(': ')[2] for each in others)}" if others else "the same bytes"
        )
        self.on_line(f"{name}: built in {human_time(ended.seconds)}, {told}")


def as_text(done: Reproduction) -> str:
    """The outcome in a line or two."""
    if done.same:
        told = f"{done.name}: rebuilt, the same weights to the bit (sha256 {done.found[:16]}…)."
        return told + (f" Beside them, other bytes in: {'; '.join(done.differs)}." if done.differs else "")
    first = f" The first other bytes: {done.differs[0]}." if done.differs else ""
    return f"{done.name}: rebuilt, and the weights differ (sha256 {done.found[:16]}… instead of {done.wanted[:16]}…).{first}"
