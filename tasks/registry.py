"""The model registry: what is registered, and which version is champion.

Two kinds of model: the encoder, and one classifier a task. Nothing is registered before it was logged, loaded back as a
user would load it, and predicted the same as the folder it came from (MLflow itself registers models that cannot load,
with a warning). A folder whose weights are the newest version's already is not registered again; its scores are
brought up to date.

Promotion: the first version becomes champion. A later one must beat the champion by more than `registry.min_gain`, on
the same yardstick: same data for the score, same metric, and for the encoder the same fine-tuning. Scores on different
yardsticks are never compared. Every decision is a sentence with its numbers, kept as the version's tag `promoted`.
"""

import json
import os
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from roberta_core.atomic import digest_of
from roberta_core.errors import TryAgain, UserError
from tasks.candidates import Candidate, candidates, model_names
from tasks.params import Params
from tasks.tracking import experiment_id, lineage_tags, mlflow_on, open_client, tracking_uri, upload_spool

SERVED = Path(__file__).with_name("served.py")
PACKAGES = ("mlflow", "torch", "tokenizers", "safetensors", "numpy", "pyarrow")
SAMPLES = [
    "The function returns a list of strings.",
    "This is one text,\tand this is the other one.",
    "Short.",
]
"""What a version predicts on before it is registered: one text, a pair, and padding in the batch."""


class CannotBeRegistered(UserError):
    """A model that does not load back, or predicts something else when it does."""


class StoreAway(TryAgain):
    """MLflow's store does not answer."""


class StoreUnusable(UserError):
    """MLFLOW_TRACKING_URI is none, or the database is damaged."""


class NotRegistered(UserError):
    """A name or version that the registry does not have."""


def _open_store(root: Path):
    """A client on a store that answers.

    Raises:
        StoreAway: a server is down, or a database is locked. StoreUnusable: no later attempt will help.
    """
    uri = tracking_uri(root)
    try:
        client = open_client(root)
        client.search_experiments(max_results=1)
    except Exception as error:  # MLflow's own, its database's, or the network's
        told = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if not uri.startswith(("sqlite:", "http")):
            raise StoreUnusable(
                f"MLflow cannot use {uri} ({told}).", "Mend MLFLOW_TRACKING_URI, or unset it: then mlflow.db is used."
            ) from None
        if uri.startswith("sqlite:") and "locked" not in told:
            raise StoreUnusable(
                f"MLflow's database {uri.removeprefix('sqlite:///')} cannot be used ({told}).",
                "Mend its permissions, or move it away: a new one is made, and the models here are registered again.",
            ) from None
        raise StoreAway(
            f"MLflow's store {tracking_uri(root)} does not answer ({told}).",
            "Start it, or mend MLFLOW_TRACKING_URI, and run again: finished stages are kept.",
        ) from None
    return client


def _newest(client, names: list[str]) -> dict[str, object]:
    """The newest version of each name that has one."""
    newest: dict[str, object] = {}
    for name in names:
        versions = client.search_model_versions(f"name='{name}'", max_results=1, order_by=["version_number DESC"])
        if versions:
            newest[name] = versions[0]
    return newest


def _log(client, root: Path, candidate: Candidate, run_id: str | None) -> str:
    """Logs the folder as an MLflow model, which nobody finds in the registry yet. Returns its id."""
    import roberta_core

    logged = client.create_logged_model(experiment_id(client, root), candidate.name, source_run_id=run_id)
    with mlflow_on(root) as mlflow:
        mlflow.pyfunc.log_model(
            name=candidate.name,
            model_id=logged.model_id,
            python_model=str(SERVED),
            artifacts={"model": str(candidate.folder)},
            code_paths=[str(Path(roberta_core.__file__).parent)],
            pip_requirements=[f"{package}=={installed(package)}" for package in PACKAGES],
        )
    return logged.model_id


def _same(one: object, other: object) -> bool:
    """Equal predictions, up to the last bits of float32."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return np.allclose(np.asarray(one, float), np.asarray(other, float), atol=1e-5)


def _try_out(root: Path, model_id: str, candidate: Candidate) -> None:
    """Loads the logged model as a user would, and compares what it predicts with the folder's own prediction.

    Raises:
        CannotBeRegistered: it does not load, or predicts something else.
    """
    from roberta_core.inference import load_model

    direct = load_model(candidate.folder).predict(SAMPLES)
    try:
        with mlflow_on(root) as mlflow:
            back = mlflow.pyfunc.load_model(f"models:/{model_id}").predict(SAMPLES)
    except Exception as error:
        raise CannotBeRegistered(
            f"{candidate.name}: the logged model cannot be loaded back ({type(error).__name__}: {error}).",
            "Nothing was registered under this name; mend that and run again.",
        ) from None
    if len(back) != len(direct) or not all(map(_same, direct, back)):
        raise CannotBeRegistered(
            f"{candidate.name}: the logged model predicts something else than {candidate.folder}.",
            "Nothing was registered under this name; report it as a bug.",
        )


def _run_of(client, root: Path, digest: str) -> str | None:
    """The newest run that made these weights."""
    found = client.search_runs(
        [experiment_id(client, root)], f"tags.model_sha256 = '{digest}'", max_results=1, order_by=["start_time DESC"]
    )
    return found[0].info.run_id if found else None


def register_all(params: Params, root: Path, on_line: Callable[[str], None] = lambda line: None) -> list[str]:
    """Registers the models that the registry does not have yet, each as `challenger`.

    Returns:
        The new versions, as `roberta-cola 3`.

    Raises:
        CannotBeRegistered: a model did not load back; it is not in the registry.
    """
    root = Path(root).resolve()
    found = candidates(params, root)
    if not found:
        return []
    client = _open_store(root)
    upload_spool(client, root)
    newest = _newest(client, [each.name for each in found])
    source = lineage_tags(root)
    made = []
    for number, candidate in enumerate(found, 1):
        digest = digest_of(candidate.folder / "model.safetensors")
        last = newest.get(candidate.name)
        if last is not None and last.tags.get("model_sha256") == digest:
            for key, value in candidate.evidence.items():
                if last.tags.get(key) != value:
                    client.set_model_version_tag(candidate.name, last.version, key, value)
            continue
        on_line(f"{number}/{len(found)} {candidate.name}: logging, loading back, predicting")
        run_id = _run_of(client, root, digest)
        model_id = _log(client, root, candidate, run_id)
        try:
            _try_out(root, model_id, candidate)
        except UserError:
            client.delete_logged_model(model_id)
            raise
        client.finalize_logged_model(model_id, "READY")
        if last is None and not client.search_registered_models(f"name='{candidate.name}'"):
            client.create_registered_model(candidate.name)
        tags = source | candidate.evidence | {"model_sha256": digest}
        with mlflow_on(root):  # the registry looks the logged model up by global state
            version = client.create_model_version(
                candidate.name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id
            )
        client.set_registered_model_alias(candidate.name, "challenger", version.version)
        made.append(f"{candidate.name} {version.version}")
    return made


def decide(new: dict[str, str], champion: dict[str, str] | None, min_gain: float) -> tuple[bool, str]:
    """Whether a version takes the champion's place, and why, in words and numbers. Both are versions' tags."""
    if champion is None:
        told = f" with {new['measure']} {float(new['score']):.4f} ({new['data']} data)" if "score" in new else ""
        return True, f"promoted: the first version{told}"
    if "score" not in new:
        return False, "not promoted: it has no score"
    if "score" not in champion:
        return True, f"promoted: {new['measure']} {float(new['score']):.4f}, and the champion has no score"
    if new["data"] != champion["data"]:
        return False, (
            f"not promoted: its score is on {new['data']} data and the champion's on {champion['data']} data, "
            "which cannot be compared"
        )
    if new["measure"] != champion["measure"] or new["yardstick"] != champion["yardstick"]:
        why = _difference(new, champion)
        return False, f"not promoted: its score and the champion's cannot be compared ({why})"
    ours, theirs = float(new["score"]), float(champion["score"])
    gain = theirs - ours if new["measure"] == "held-out loss" else ours - theirs
    told = f"{new['measure']} {ours:.4f} against the champion's {theirs:.4f}, a gain of {gain:+.4f}"
    if gain > min_gain:
        return True, f"promoted: {told}, more than {min_gain:g}"
    return False, f"not promoted: {told}, and more than {min_gain:g} is asked for"


def _difference(new: dict[str, str], champion: dict[str, str]) -> str:
    """The first thing in which two yardsticks differ."""
    if new["measure"] != champion["measure"]:
        return f"{new['measure']} against {champion['measure']}"
    one, other = json.loads(new["yardstick"]), json.loads(champion["yardstick"])
    if one.keys() != other.keys():
        return f"measured on {', '.join(one)} against {', '.join(other)}"
    key = next(key for key in one if one[key] != other[key])
    if isinstance(one[key], dict):
        inner = next(name for name in one[key] | other[key] if one[key].get(name) != other[key].get(name))
        return f"{key}: another {inner}"
    return f"another {key}"


def _aliases(client, name: str) -> dict[str, str]:
    """The aliases of a model; SQLite gives the versions as numbers and a server as text."""
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def promote_all(params: Params, root: Path) -> list[str]:
    """Decides on the newest version of each model. Sets `champion`, and `previous` to the one before.

    Returns:
        One sentence for each decision that was made now; none for versions that are champion already.
    """
    client = _open_store(Path(root).resolve())
    said = []
    for name, version in _newest(client, list(model_names(params).values())).items():
        aliases = _aliases(client, name)
        if aliases.get("champion") == str(version.version):
            continue
        champion = client.get_model_version(name, aliases["champion"]) if "champion" in aliases else None
        promoted, why = decide(version.tags, champion.tags if champion else None, params.registry.min_gain)
        if champion is not None:
            why += f" (champion then: version {champion.version})"
        if promoted:
            if champion is not None:
                client.set_registered_model_alias(name, "previous", champion.version)
            client.set_registered_model_alias(name, "champion", version.version)
        elif version.tags.get("promoted") == why:
            continue
        client.set_model_version_tag(name, version.version, "promoted", why)
        said.append(f"{name} {version.version} {why}")
    return said


def promote_by_hand(root: Path, name: str, which: str) -> str:
    """Makes a version champion without the gate; `which` is its number or an alias. Returns what was done.

    Raises:
        NotRegistered: there is no such model or version.
    """
    client = _open_store(Path(root).resolve())
    version = _find_version(client, name, which)
    before = _aliases(client, name).get("champion")
    if before == str(version.version):
        return f"{name} {version.version} is champion already"
    if before is not None:
        client.set_registered_model_alias(name, "previous", before)
    client.set_registered_model_alias(name, "champion", version.version)
    told = f"promoted: by hand (champion then: version {before or 'none'})"
    client.set_model_version_tag(name, version.version, "promoted", told)
    return f"{name} {version.version} {told}"


def _find_version(client, name: str, which: str):
    """The version of a name by number or alias."""
    from mlflow.exceptions import MlflowException

    try:
        if which.isdigit():
            return client.get_model_version(name, which)
        return client.get_model_version_by_alias(name, which)
    except MlflowException:
        found = client.search_registered_models(f"name='{name}'") if "'" not in name else []
        if not found:
            known = ", ".join(each.name for each in client.search_registered_models()) or "none"
            raise NotRegistered(f"No model is registered as {name}.", f"Registered are: {known}.") from None
        aliases = ", ".join(f"{alias} ({number})" for alias, number in found[0].aliases.items()) or "none"
        raise NotRegistered(f"{name} has no version {which}.", f"Its aliases are: {aliases}.") from None


def open_registered(name: str, root: Path):
    """The model inside a registered version: `roberta-cola` (its champion), `models:/roberta-cola@challenger`, `…/2`.

    Raises:
        NotRegistered: there is no such model or version.
    """
    client = _open_store(Path(root).resolve())
    plain = name.removeprefix("models:/")
    model, _, which = plain.partition("@") if "@" in plain else plain.partition("/")
    version = _find_version(client, model, which or "champion")
    with mlflow_on(root) as mlflow:
        return mlflow.pyfunc.load_model(f"models:/{model}/{version.version}").unwrap_python_model().model


def overview(params: Params, root: Path = Path(".")) -> list[dict]:
    """Champion, challenger and previous version of each model, for tables: newest first.

    Each has name, version, alias, score (None where there is none), measure, data, run_id, run_url, and `promoted`: the
    gate's sentence. Empty when there is no store yet.
    """
    root = Path(root).resolve()
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (root / "mlflow.db").is_file():
        return []
    client = _open_store(root)
    rows = []
    for name in model_names(params).values():
        registered = client.search_registered_models(f"name='{name}'")
        if not registered:
            continue
        by_version: dict[str, list[str]] = {}
        for alias, version in registered[0].aliases.items():
            by_version.setdefault(version, []).append(alias)
        for number, aliases in sorted(by_version.items(), key=lambda item: -int(item[0])):
            version = client.get_model_version(name, number)
            tags, run_id = version.tags, version.run_id or ""
            rows.append(
                {
                    "name": name,
                    "version": str(number),
                    "alias": ", ".join(sorted(aliases)),
                    "score": float(tags["score"]) if "score" in tags else None,
                    "measure": tags.get("measure", ""),
                    "data": tags.get("data", ""),
                    "run_id": run_id,
                    "run_url": _run_url(client, root, run_id),
                    "promoted": tags.get("promoted", ""),
                }
            )
    return rows


def _run_url(client, root: Path, run_id: str) -> str:
    """The address of a run on a tracking server; empty for a local store, whose page has no fixed address."""
    uri = tracking_uri(root)
    if not run_id or not uri.startswith("http"):
        return ""
    return f"{uri.rstrip('/')}/#/experiments/{experiment_id(client, root)}/runs/{run_id}"
