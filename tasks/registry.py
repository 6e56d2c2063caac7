"""The model registry: what goes into it, and how it is read. Who is champion is decided in `tasks/promotion.py`.

Two kinds of model: the encoder, and one classifier a task. Nothing is registered before it was logged, loaded back as a
user would load it, and predicted the same as the folder it came from (MLflow itself registers models that cannot load,
with a warning). A folder whose weights are the newest version's already is not registered again; its scores and
predictions are brought up to date.

Reading never goes through MLflow's loaders: they run what a version brings along (its code, its pickles), and whoever
may write to a registry could run code on every machine that reads it. Here only the Hugging Face folder inside is
fetched, config.json and model.safetensors are read by this project's own code, and a pickle is refused.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from roberta_core.atomic import digest_of
from roberta_core.errors import TryAgain, UserError
from tasks.candidates import Candidate, candidates, model_names
from tasks.evidence import FOLDER, PACKAGES, copy_origin, copy_scores, fetch, read_lock
from tasks.params import Params
from tasks.tracking import experiment_id, first_line, lineage_tags, mlflow_on, open_client, shown_uri, upload_spool

SERVED = Path(__file__).with_name("served.py")
SERVED_QUESTIONS = Path(__file__).with_name("served_questions.py")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib")
"""Files that can run code when they are loaded."""


class CannotBeRegistered(UserError):
    """A model that does not load back, or predicts something else when it does."""


class StoreAway(TryAgain):
    """MLflow's store does not answer."""


class StoreUnusable(UserError):
    """MLFLOW_TRACKING_URI is none, or the database is damaged."""


class NotRegistered(UserError):
    """A name or version that the registry does not have."""


class FilesGone(UserError):
    """A version whose model folder is not in the store, or not whole."""


class HoldsPickle(UserError):
    """A version with a file in it that can run code when it is loaded."""


def open_store(root: Path):
    """A client on a store that answers.

    Raises:
        StoreAway: a server is down, or a database is locked. StoreUnusable: no later attempt will help.
    """
    uri = shown_uri(root)
    try:
        client = open_client(root)
        client.search_experiments(max_results=1)
    except Exception as error:  # MLflow's own, its database's, or the network's
        told = first_line(error)
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
            f"MLflow's store {shown_uri(root)} does not answer ({told}).",
            "Start it, or mend MLFLOW_TRACKING_URI, and run again: finished stages are kept.",
        ) from None
    return client


def newest_versions(client, names: list[str]) -> dict[str, object]:
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
            python_model=str(SERVED_QUESTIONS if candidate.evidence.get("kind") == "questions" else SERVED),
            artifacts={"model": str(candidate.folder)},
            code_paths=[str(Path(roberta_core.__file__).parent)],
            pip_requirements=[f"{package}=={installed(package)}" for package in PACKAGES],
        )
    return logged.model_id


def _same(one: object, other: object) -> bool:
    """Equal predictions, up to the last bits of float32."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list) and any(isinstance(each, dict) for each in one):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, str | None) or isinstance(other, str | None):
        return one == other
    return np.allclose(np.asarray(one, float), np.asarray(other, float), atol=1e-5)


def _try_out(root: Path, model_id: str, candidate: Candidate) -> None:
    """Loads the logged model as a user would, and compares what it predicts with the folder's own prediction.

    Raises:
        CannotBeRegistered: it does not load, or predicts something else.
    """
    from roberta_core.inference import load_model

    model = load_model(candidate.folder)
    samples = list(model.samples)
    direct = model.predict(samples)
    try:
        with mlflow_on(root) as mlflow:
            back = mlflow.pyfunc.load_model(f"models:/{model_id}").predict(samples)
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


def _source_md5s(root: Path) -> dict[str, str]:
    """The md5 of each source's documents, by the source's name: what a search for models of a source looks for."""
    stages = read_lock(root / "dvc.lock").items()
    found = {name.partition("@")[2]: stage.get("outs", ()) for name, stage in stages if name.startswith("download@")}
    return {source: outs[0]["md5"] for source, outs in found.items() if outs and "md5" in outs[0]}


def _bring_up_to_date(client, name: str, version, tags: dict[str, str], evidence: Path) -> None:
    """New scores of the same weights: the predictions first, so that no score stands there without them."""
    changed = {key: value for key, value in tags.items() if version.tags.get(key) != value}
    if "evidence_sha256" in changed and version.model_id:
        client.log_model_artifacts(version.model_id, str(evidence), FOLDER)
    for key, value in changed.items():
        client.set_model_version_tag(name, version.version, key, value)


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
    client = open_store(root)
    upload_spool(client, root)
    newest = newest_versions(client, [each.name for each in found])
    source = lineage_tags(root)
    source |= {f"source.{key}": md5 for key, md5 in _source_md5s(root).items()}
    made = []
    for number, candidate in enumerate(found, 1):
        weights = candidate.folder / "model.safetensors"
        digest = digest_of(weights)
        last = newest.get(candidate.name)
        with tempfile.TemporaryDirectory() as beside:
            evidence = Path(beside) / FOLDER
            evidence.mkdir()
            tags = candidate.evidence | {"evidence_sha256": copy_scores(root, candidate.tasks, evidence)}
            if last is not None and last.tags.get("model_sha256") == digest:
                _bring_up_to_date(client, candidate.name, last, tags, evidence)
                continue
            on_line(f"{number}/{len(found)} {candidate.name}: logging, loading back, predicting")
            copy_origin(root, evidence)
            run_id = _run_of(client, root, digest)
            model_id = _log(client, root, candidate, run_id)
            try:
                client.log_model_artifacts(model_id, str(evidence), FOLDER)
                _try_out(root, model_id, candidate)
            except UserError:
                client.delete_logged_model(model_id)
                raise
        client.finalize_logged_model(model_id, "READY")
        if last is None and not client.search_registered_models(f"name='{candidate.name}'"):
            client.create_registered_model(candidate.name)
        tags |= source | {"model_sha256": digest, "model_bytes": str(weights.stat().st_size)}
        with mlflow_on(root):  # the registry looks the logged model up by global state
            version = client.create_model_version(
                candidate.name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id
            )
        client.set_registered_model_alias(candidate.name, "challenger", version.version)
        made.append(f"{candidate.name} {version.version}")
    return made


def aliases_of(client, name: str) -> dict[str, str]:
    """The aliases of a model; SQLite gives the versions as numbers and a server as text."""
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def find_version(client, name: str, which: str):
    """The version of a name by number or alias; with an empty `which` only the name is looked for, and None returned.

    Raises:
        NotRegistered: there is no such model or version.
    """
    from mlflow.exceptions import MlflowException

    found = client.search_registered_models(f"name='{name}'") if "'" not in name else []
    if not found:
        every = [each.name for each in client.search_registered_models()]
        known = ", ".join(each for each in every if not each.startswith("promotion-claim.")) or "none"
        raise NotRegistered(f"No model is registered as {name}.", f"Registered are: {known}.")
    if not which:
        return None
    try:
        if which.isdigit():
            return client.get_model_version(name, which)
        return client.get_model_version_by_alias(name, which)
    except MlflowException:
        aliases = ", ".join(f"{alias} ({number})" for alias, number in found[0].aliases.items()) or "none"
        raise NotRegistered(f"{name} has no version {which}.", f"Its aliases are: {aliases}.") from None


def named_version(client, name: str):
    """The version that `roberta-cola` (its champion), `models:/roberta-cola@challenger` or `models:/roberta-cola/2` names.

    Raises:
        NotRegistered: there is no such model or version.
    """
    plain = name.removeprefix("models:/")
    model, _, which = plain.partition("@") if "@" in plain else plain.partition("/")
    return find_version(client, model, which or "champion")


def files_of(root: Path, name: str, version: str, folder: str = "") -> dict[str, int]:
    """Files below a folder of a version, without fetching them: path -> bytes. Empty where they are gone."""
    found: dict[str, int] = {}
    with mlflow_on(root) as mlflow:
        uri = f"models:/{name}/{version}"
        try:
            waiting = [folder]
            while waiting:
                at = waiting.pop()
                for each in mlflow.artifacts.list_artifacts(f"{uri}/{at}" if at else uri):
                    # relative to the folder that was asked for, and not to the version
                    path = f"{at}/{each.path.rsplit('/', 1)[-1]}" if at else each.path
                    if each.is_dir:
                        waiting.append(path)
                    else:
                        found[path] = each.file_size or 0
        except Exception:  # MLflow's errors, or the store's, by store
            return {}
    return found


def check_files(root: Path, name: str, version: str) -> str:
    """Looks a version over without fetching it. Returns the path of its model folder.

    Raises:
        FilesGone: its files are not there. HoldsPickle: one of them can run code when it is loaded.
    """
    files = files_of(root, name, version)
    pickles = sorted(path for path in files if path.endswith(PICKLES))
    if pickles:
        raise HoldsPickle(
            f"{name} {version} holds a pickle ({pickles[0]}), which can run code when it is loaded; it was not opened.",
            "Only config.json and model.safetensors are read: register such a folder.",
        )
    folders = [
        path.rpartition("/")[0] for path in files if path.startswith("artifacts/") and path.endswith("/config.json")
    ]
    if not folders or f"{folders[0]}/model.safetensors" not in files:
        raise FilesGone(
            f"The files of {name} {version} are gone from the store.",
            f"`roberta rollback {name}` goes back to the champion before it.",
        )
    return folders[0]


def model_folder(root: Path, name: str, version: str) -> Path:
    """The Hugging Face folder inside a version, on this disk; of a server, a copy.

    Raises:
        FilesGone: it is not there. HoldsPickle: one of its files can run code when it is loaded.
    """
    inside = check_files(root, name, version)
    folder = fetch(root, name, version, inside)
    if folder is None:
        raise FilesGone(f"The files of {name} {version} cannot be fetched.", "Run `roberta status`.")
    from roberta_core.model.folder import is_pickle  # it brings torch, which `roberta status` can do without

    if is_pickle(folder / "model.safetensors"):
        raise HoldsPickle(
            f"model.safetensors of {name} {version} is a pickle under another name; it was not opened.",
            "Find out who registered it.",
        )
    return folder


def open_registered(name: str, root: Path):
    """The model inside a registered version: `roberta-cola` (its champion), `models:/roberta-cola@challenger`, `…/2`.

    Raises:
        NotRegistered: there is no such model or version. FilesGone, HoldsPickle: it cannot be used.
    """
    from roberta_core.inference import load_model

    root = Path(root).resolve()
    version = named_version(open_store(root), name)
    return load_model(model_folder(root, version.name, str(version.version)))


def has_store(root: Path) -> bool:
    """Whether there is a store to ask; asking SQLite makes one."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (Path(root) / "mlflow.db").is_file()


def registered_models(params: Params, root: Path, only: str = "") -> Iterator[tuple]:
    """Client, name and aliases (None: not registered) of the project's models, or of one; nothing without a store."""
    if not has_store(root):
        return
    client = open_store(root)
    for name in [only] if only else model_names(params).values():
        registered = "'" not in name and client.search_registered_models(f"name='{name}'")
        yield client, name, aliases_of(client, name) if registered else None


def overview(params: Params, root: Path = Path(".")) -> list[dict]:
    """Champion, challenger and previous version of each model, for tables: newest first.

    Each has name, version, alias, score (None where there is none), measure, data, run_id, run_url, `promoted`: the
    gate's sentence, and `gate`: its table as `tasks.gate.table` reads it. Empty when there is no store yet.
    """
    root = Path(root).resolve()
    rows = []
    for client, name, known in registered_models(params, root):
        by_version: dict[str, list[str]] = {}
        for alias, version in (known or {}).items():
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
                    "gate": tags.get("gate", ""),
                }
            )
    return rows


def _run_url(client, root: Path, run_id: str) -> str:
    """The address of a run on a tracking server; empty for a local store, whose page has no fixed address."""
    uri = shown_uri(root)
    if not run_id or not uri.startswith("http"):
        return ""
    return f"{uri.rstrip('/')}/#/experiments/{experiment_id(client, root)}/runs/{run_id}"
