"""Who is champion: by the gate, by hand, and back again; and the record of each change.

A change of an alias is written down twice. As tags of the version (`promoted`, `promoted_by`, `promoted_at`, `gate`,
`champion_before`), which everybody sees who sees the registry. And as a line of `promotions.jsonl` in the project's
folder, which is only ever appended to: it belongs beside params.yaml and dvc.lock in git, where a line that was changed
later shows, so it is neither in `.work/` (which `make clean` removes) nor among the files that git ignores.

Order of a change: tags, `previous`, and last `champion`: a registry that goes away before the last call has the old
champion still, and running again does the rest. One change a model at a time, on all machines: a flow that decides
holds the model's claim, a registered model `promotion-claim.<name>`, whose making is the one thing that MLflow's
registry does for one caller only; the name is free again a moment later. Whoever waited decides anew, against the
champion of then.
"""

import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from roberta_core.errors import TryAgain, UserError
from tasks.candidates import model_names
from tasks.evidence import fetch
from tasks.gate import Side, Verdict, decide
from tasks.params import Params
from tasks.registry import StoreAway, aliases_of, find_version, model_folder, newest_versions, open_store
from tasks.tracking import first_line

LOG = Path("promotions.jsonl")
CLAIM = "promotion-claim."
CLAIM_WAIT_S = 60.0
CLAIM_OLD_S = 900.0
"""A claim of another machine counts as left behind after this; a decision takes seconds."""


class NoWayBack(UserError):
    """There is no earlier champion to go back to."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def who() -> str:
    """`name@machine` of the user that runs this."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


_held: set[str] = set()
"""Tokens of the claims that this process holds now; one that is not among them was left by a registry that was away."""


def _left_behind(tags: dict[str, str]) -> bool:
    """Whether the holder of a claim is gone: its process on this machine, or too long ago on another one."""
    if tags.get("machine") == socket.gethostname() and tags.get("process", "").isdigit():
        if int(tags["process"]) == os.getpid():
            return tags.get("token") not in _held
        try:
            os.kill(int(tags["process"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
    return time.time() - float(tags.get("since", "0")) > CLAIM_OLD_S


@contextmanager
def claimed(client, name: str) -> Iterator[None]:
    """Holds the right to change a model's aliases for the block.

    Raises:
        TryAgain: another flow holds it for longer than a decision takes. StoreAway: the registry went away in the block.
    """
    own = {"machine": socket.gethostname(), "process": str(os.getpid()), "token": os.urandom(8).hex()}
    _held.add(own["token"])
    try:
        _claim(client, name, own)
        yield
    except Exception as error:
        if isinstance(error, UserError) or not _of_store(error):
            raise
        told = first_line(error)
        raise StoreAway(
            f"The registry went away while {name} was decided on ({told}); its champion is the one it was.",
            "Run again; `roberta status` says who is champion.",
        ) from None
    finally:
        with suppress(Exception):  # a claim that stays is known as left behind
            if client.get_registered_model(CLAIM + name).tags.get("token") == own["token"]:
                client.delete_registered_model(CLAIM + name)
        _held.discard(own["token"])


def _of_store(error: Exception) -> bool:
    """Whether an error is MLflow's, its database's or the network's."""
    packages = ("mlflow", "requests", "urllib3", "sqlalchemy", "sqlite3")
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in packages


def _claim(client, name: str, own: dict[str, str]) -> None:
    """Makes the claim, or waits for it."""
    from mlflow.exceptions import MlflowException

    until = time.monotonic() + CLAIM_WAIT_S
    claim, tags = CLAIM + name, {}
    while True:
        try:
            client.create_registered_model(claim, tags=own | {"since": repr(time.time())})
            return
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with suppress(MlflowException):  # given back in this moment
            tags = client.get_registered_model(claim).tags
            if tags.get("token") == own["token"]:
                return  # made by a call whose answer was lost
            if _left_behind(tags):
                _clear(client, claim, own, tags)
        if time.monotonic() > until:
            raise TryAgain(
                f"{name} is being promoted by process {tags.get('process')} on {tags.get('machine')}.",
                f"Wait until it is done, or stop it; if it is gone, delete {claim} from the registry.",
            )
        time.sleep(0.2)


def _clear(client, claim: str, own: dict[str, str], tags: dict[str, str]) -> None:
    """Removes a claim that was left behind, and never one that a third flow made meanwhile.

    Only who makes the name `<claim>.<token>` may remove the claim with that token; while it stands, nobody else can.
    Such a name is left behind like a claim, and cleared like one.
    """
    from mlflow.exceptions import MlflowException

    guard = f"{claim}.{tags.get('token', '')}"
    try:
        client.create_registered_model(guard, tags=own | {"since": repr(time.time())})
    except MlflowException:
        others = client.get_registered_model(guard).tags
        if _left_behind(others):
            _clear(client, guard, own, others)
        return
    try:
        if client.get_registered_model(claim).tags.get("token") == tags.get("token"):
            client.delete_registered_model(claim)
    finally:
        client.delete_registered_model(guard)


def _crown(client, root: Path, name: str, version: str, before: str | None, kind: str, verdict: Verdict) -> None:
    """Makes a version champion and writes it down; the caller holds the claim.

    Raises:
        StoreAway: the registry went away in the middle; the champion is the old one unless only its answer was lost.
    """
    entry = {"at": _now(), "name": name, "version": version, "before": before, "how": kind, "by": who()}
    tags = {
        "promoted": verdict.why,
        "promoted_by": entry["by"],
        "promoted_at": entry["at"],
        "promoted_how": kind,
        "gate": verdict.as_json(),
    }
    if kind != "rollback":
        tags["champion_before"] = before or ""
    try:
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        if kind == "hand":
            client.delete_model_version_tag(name, version, "rolled_back")
        if before is not None:
            client.set_registered_model_alias(name, "previous", before)
        client.set_registered_model_alias(name, "champion", version)
    except Exception as error:
        if not _of_store(error):
            raise
        told = first_line(error)
        raise StoreAway(
            f"The registry went away while {name} {version} was promoted ({told}): "
            f"{f'version {before} is champion' if before else 'there is no champion'} still.",
            "Run again; `roberta status` says who is champion.",
        ) from None
    append(root, entry | {"why": verdict.why} | ({"gate": json.loads(tags["gate"])} if tags["gate"] else {}))


def append(root: Path, entry: dict) -> None:
    """Adds a line to the log of promotions: one write to the end of the file, on the disk when it returns."""
    handle = os.open(Path(root) / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(entry, ensure_ascii=False) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_log(root: Path, name: str = "") -> list[dict]:
    """The log's entries, oldest first; those of one model, or all. A line that is no entry is left out."""
    file = Path(root) / LOG
    entries = []
    for line in file.read_text(encoding="utf8").splitlines() if file.is_file() else ():
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and name in ("", entry.get("name")):
                entries.append(entry)
    return entries


def side_of(root: Path, name: str, version) -> Side:
    """A version as the gate takes it."""
    number = str(version.version)

    def folder() -> Path | None:
        with suppress(UserError):
            return model_folder(root, name, number)

    return Side(number, dict(version.tags), lambda: fetch(root, name, number), folder)


def promote_all(params: Params, root: Path) -> list[str]:
    """Decides on the newest version of each model. Sets `champion`, and `previous` to the one before.

    Returns:
        One sentence for each decision that was made now; none for versions that are champion already.
    """
    root = Path(root).resolve()
    client = open_store(root)
    said = []
    for name, version in newest_versions(client, list(model_names(params).values())).items():
        if aliases_of(client, name).get("champion") == str(version.version):
            continue
        with claimed(client, name):
            said += _decide_newest(params, root, client, name)
    return said


def _decide_newest(params: Params, root: Path, client, name: str) -> list[str]:
    version = newest_versions(client, [name])[name]
    number, before = str(version.version), aliases_of(client, name).get("champion")
    if before == number:
        return []
    champion = client.get_model_version(name, before) if before else None
    if back := version.tags.get("rolled_back"):
        verdict = Verdict(False, f"not promoted: rolled back {back}; only a promotion by hand undoes that")
    else:
        rival = side_of(root, name, champion) if champion else None
        verdict = decide(side_of(root, name, version), rival, params.registry)
    if champion is not None:
        verdict = Verdict(
            verdict.promoted, f"{verdict.why} (champion then: version {before})", verdict.gains, verdict.checks
        )
    if verdict.promoted:
        _crown(client, root, name, number, before, "gate", verdict)
    elif version.tags.get("promoted") == verdict.why:
        return []
    else:
        for key, value in {"promoted": verdict.why, "gate": verdict.as_json()}.items():
            client.set_model_version_tag(name, number, key, value)
    return [f"{name} {number} {verdict.why}"]


def promote_by_hand(root: Path, name: str, which: str, why: str = "") -> str:
    """Makes a version champion without the gate; `which` is its number or an alias. Returns what was done.

    Raises:
        NotRegistered: there is no such model or version.
    """
    root = Path(root).resolve()
    client = open_store(root)
    number = str(find_version(client, name, which).version)
    with claimed(client, name):
        before = aliases_of(client, name).get("champion")
        if before == number:
            return f"{name} {number} is champion already"
        reason = f"promoted: by hand{f', {why}' if why else ''} (champion then: version {before or 'none'})"
        _crown(client, root, name, number, before, "hand", Verdict(True, reason))
    return f"{name} {number} {reason}"


def rollback(root: Path, name: str, why: str = "") -> str:
    """Makes the champion before this one champion again, and marks this one, so that the gate does not take it back.

    Going back again goes back further: each version knows the champion that it took the place of, versions that were
    rolled back, and deleted ones, are passed over.

    Raises:
        NotRegistered: there is no such model.
        NoWayBack: no earlier champion is there.
    """
    root = Path(root).resolve()
    client = open_store(root)
    find_version(client, name, "")
    with claimed(client, name):
        known = {str(each.version): each.tags for each in client.search_model_versions(f"name='{name}'")}
        champion = aliases_of(client, name).get("champion")
        # where the champion itself was deleted, its own tags are too: the log and `previous` know who was before
        back = champion or next((each["version"] for each in reversed(read_log(root, name))), None)
        target = earlier(back, known, read_log(root, name))
        if target is None and champion is None:
            target = aliases_of(client, name).get("previous")
        if target is None or target not in known:
            have = ", ".join(sorted(known, key=int)) or "none"
            raise NoWayBack(
                f"{name} has no champion before version {back or 'none'} to go back to.",
                f"`roberta promote {name} VERSION` makes any version champion; there are: {have}.",
            )
        if champion is not None:
            reason = f"by {who()} on {_now()[:10]}{f': {why}' if why else ''}"
            client.set_model_version_tag(name, champion, "rolled_back", reason)
        told = f"promoted: rolled back to it{f', {why}' if why else ''} (champion then: version {champion or 'none'})"
        _crown(client, root, name, target, champion, "rollback", Verdict(True, told))
    return f"{name} {target} {told}"


def earlier(version: str | None, known: dict[str, dict[str, str]], log: list[dict]) -> str | None:
    """The champion before `version` that is still there and was not rolled back: version -> tags, and the log."""
    logged = {each["version"]: each.get("before") for each in log if each.get("how") != "rollback"}
    seen = set()
    while version and version not in seen:
        seen.add(version)
        version = known[version].get("champion_before") if version in known else logged.get(version)
        if version in known and version not in seen and "rolled_back" not in known[version]:
            return version
    return None
