"""What the registry holds, for people: all versions of a model, two of them side by side, and champions in trouble."""

import time
from dataclasses import dataclass
from pathlib import Path

from roberta_core.errors import UserError
from roberta_core.progress import human_time
from tasks import gate
from tasks.params import Params
from tasks.promotion import earlier, read_log, side_of
from tasks.registry import check_files, files_of, find_version, open_store, registered_models


class CannotCompare(UserError):
    """Two versions that have nothing in common to be compared on."""


@dataclass(frozen=True)
class Trouble:
    """A champion that is not there, or cannot be used: what is wrong, and the way back."""

    name: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what} {self.mend}"


def list_versions(params: Params, root: Path, name: str = "") -> list[dict[str, str]]:
    """All versions of the project's models, or of one, newest first, as text for a table."""
    root = Path(root).resolve()
    rows = []
    for client, each, aliases in registered_models(params, root, name):
        if aliases is None:
            if name:
                find_version(client, name, "")  # says which ones there are
            continue
        versions = client.search_model_versions(f"name='{each}'", order_by=["version_number DESC"])
        for version in versions:
            tags, number = version.tags, str(version.version)
            told = f"{tags['measure']} {float(tags['score']):.4f}" if "score" in tags else ""
            rows.append(
                {
                    "model": each,
                    "version": number,
                    "alias": ", ".join(sorted(alias for alias, its in aliases.items() if its == number)),
                    "score": told,
                    "data": tags.get("data", ""),
                    "data md5": tags.get("data_md5", "")[:8],
                    "commit": tags.get("git_commit", "")[:8] + ("+" if "dirty" in tags.get("git_commit", "") else ""),
                    "age": human_time(max(0.0, time.time() - version.creation_timestamp / 1000)),
                    "note": f"rolled back {tags['rolled_back']}" if "rolled_back" in tags else "",
                }
            )
    return rows


def compare_versions(params: Params, root: Path, name: str, one: str, other: str) -> str:
    """What the gate would say about version `other` if `one` were champion, with its table. Changes nothing.

    Raises:
        NotRegistered: there is no such model or version.
        CannotCompare: they were not measured on the same yardstick, or keep no predictions.
    """
    root = Path(root).resolve()
    client = open_store(root)
    old, new = (side_of(root, name, find_version(client, name, which)) for which in (one, other))
    if "score" not in old.tags or "score" not in new.tags:
        without = old if "score" not in old.tags else new
        raise CannotCompare(f"{name} {without.version} has no score.", "Compare versions that were scored.")
    if differs := gate.difference(new.tags, old.tags):
        raise CannotCompare(f"{name} {new.version}: {differs}.", "Compare versions of one yardstick.")
    verdict = gate.decide(new, old, params.registry)
    if not verdict.gains and new.tags["measure"] != gate.LOSS:
        raise CannotCompare(
            f"{name} {new.version}: {verdict.why.removeprefix('not promoted: ')}.", "Register it again."
        )
    head = f"{name}: version {new.version} as the candidate, version {old.version} as the champion"
    return "\n".join(filter(None, [head, gate.as_text(verdict.as_json()), f"It would be {verdict.why}."]))


def troubles(params: Params, root: Path) -> list[Trouble]:
    """Champions that were deleted, and champions whose files are gone or damaged, each with the way back."""
    root = Path(root).resolve()
    found = []
    for client, name, aliases in registered_models(params, root):
        log = read_log(root, name)
        if aliases is None:
            if log:
                what = (
                    f"version {log[-1]['version']} was champion, and the registry has no model of this name any more."
                )
                found.append(Trouble(name, what, "Run `roberta run`: it registers the model that stands in models/."))
            continue
        known = {str(each.version): each.tags for each in client.search_model_versions(f"name='{name}'")}
        champion = aliases.get("champion")
        if champion is None:
            was = f"version {log[-1]['version']}, which was, is gone" if log else "none was promoted yet"
            back = earlier(log[-1]["version"], known, log) if log else None
            back = back or aliases.get("previous")
            found.append(Trouble(name, f"there is no champion; {was}.", _way_back(name, back, known)))
            continue
        try:
            weights = f"{check_files(root, name, champion)}/model.safetensors"
            size, then = files_of(root, name, champion)[weights], known[champion].get("model_bytes")
            if then and size != int(then):
                raise UserError(f"model.safetensors has {size:,} bytes instead of {int(then):,}.", "Fetch it again.")
        except UserError as error:
            back = _way_back(name, earlier(champion, known, log), known)
            found.append(Trouble(name, f"the champion, version {champion}, cannot be used: {error.what}", back))
    return found


def _way_back(name: str, back: str | None, known: dict[str, dict[str, str]]) -> str:
    if back in known:
        return f"`roberta rollback {name}` makes version {back} champion."
    if known:
        newest = max(known, key=int)
        return f"`roberta promote {name} {newest}` makes version {newest} champion."
    return "Run `roberta run`: it registers the model that stands in models/."
