"""What happened, told to MLflow, at no cost to the one that tells.

A run's parameters, points, data and tags go into a record in memory; a thread takes them to MLflow in batches, and
imports MLflow too (2 s). Why so: `log_metric` costs 2 ms on SQLite and 54 ms through a server, at every point. When
MLflow is slow or down, training goes on; what was not delivered when the run ends is written to `.work/spool/` and goes
to MLflow with the next run. Delivery may repeat points after a broken connection; MLflow keeps equal points once.

The store is `sqlite:///<project>/mlflow.db` with an absolute path, because MLflow's own default depends on the working
directory; MLFLOW_TRACKING_URI overrides it.
"""

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from roberta_core.atomic import atomic_file, digest_of, read_json
from roberta_core.errors import Preempted
from tasks.params import Params

EXPERIMENT = "roberta"
SPOOL = Path(".work") / "spool"
FLUSH_S = 2.0
FINISH_WAIT_S = 10.0
STOPPED_WAIT_S = 4.0
"""After a SIGTERM the flow gives a stage 15 s in all."""


def home_of(root: Path) -> Path:
    """The project whose store a folder uses: its own; for the copy in which DVC runs a queued experiment, the original's.

    DVC makes those copies in `.dvc/tmp/exps/` of the project, and removes them.
    """
    root = Path(root).resolve()
    for folder in root.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return root


def tracking_uri(root: Path) -> str:
    """Where MLflow's store is: MLFLOW_TRACKING_URI, or SQLite in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home_of(root)}/mlflow.db"


def shown(text: str) -> str:
    """A text for people, logs and pages: its addresses without the user name and password that they may carry."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def shown_uri(root: Path) -> str:
    """`tracking_uri` as it may be shown."""
    return shown(tracking_uri(root))


def first_line(error: BaseException) -> str:
    """What MLflow or its database says, in one line that may be shown."""
    return shown((str(error).strip() or type(error).__name__).splitlines()[0])[:200]


def open_client(root: Path):
    """An MLflow client for tracking and registry on this project's store. Takes the 2 s of importing MLflow."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    # MLflow's own defaults wait minutes for a server that is down
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    uri = tracking_uri(root)
    return MlflowClient(uri, os.environ.get("MLFLOW_REGISTRY_URI", uri))


@contextmanager
def mlflow_on(root: Path) -> Iterator[Any]:
    """The module `mlflow`, set to this project's store for the block: its models are logged and loaded by global state.

    It puts the address into the environment too, where it would look like the user's own wish afterwards.
    """
    import mlflow

    named = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking_uri(root))
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(named)
        if named is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)


def experiment_id(client, root: Path) -> str:
    """The project's experiment; made at first use. Artifacts of a local store go to `mlartifacts/` in the project."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        local = tracking_uri(root).startswith("sqlite:")
        place = (home_of(root) / "mlartifacts").as_uri() if local else None
        try:
            return client.create_experiment(EXPERIMENT, artifact_location=place)
        except MlflowException:
            # another stage was quicker
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return found.experiment_id


def recorded_md5(root: Path, path: Path) -> str:
    """The md5 of an output or a dependency as dvc.lock has it; computed where DVC does not know the path yet."""
    lock = Path(root) / "dvc.lock"
    if lock.is_file():
        stages = yaml.load(lock.read_text(encoding="utf8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
        for kind in ("outs", "deps"):
            for stage in stages.values():
                for each in stage.get(kind, []):
                    if each["path"] == Path(path).as_posix() and "md5" in each:
                        return each["md5"]
    return digest_of(Path(root) / path, "md5")


def git_commit(root: Path) -> str:
    """The commit that the work tree stands on, with `-dirty` where tracked files differ from it; empty without git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""  # without commits it prints HEAD, and fails

    try:
        commit = git("rev-parse", "HEAD")
        # dvc.lock changes during every run, and has a tag of its own; the others are what runs make, no source of a model
        made = ("dvc.lock", "promotions.jsonl", "metrics", "plots", "reports")
        changed = ("--", ".", *(f":!{path}" for path in made))
        dirty = git("status", "--porcelain", "--untracked-files=no", *changed)
    except FileNotFoundError:
        return ""
    return f"{commit}-dirty" if commit and dirty else commit


def lineage_tags(root: Path) -> dict[str, str]:
    """Tags that tie a run or a model version to its source: git commit and the hash of dvc.lock."""
    lock = Path(root) / "dvc.lock"
    tags = {"git_commit": git_commit(Path(root)), "dvc_lock_sha256": digest_of(lock) if lock.is_file() else ""}
    return {key: value for key, value in tags.items() if value}


def experiment_tags() -> dict[str, str]:
    """Tags that tie a run to the experiment of `dvc exp run` that it belongs to; none outside of one."""
    tags = {"dvc_exp": os.environ.get("DVC_EXP_NAME"), "dvc_exp_baseline": os.environ.get("DVC_EXP_BASELINE_REV")}
    return {key: value for key, value in tags.items() if value}


def _chunks(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Record:
    """Everything about one run that MLflow shall know, and how much of it MLflow has. As JSON, it is the spool's file."""

    def __init__(self, values: dict[str, Any]):
        self.values = values
        self.lock = threading.Lock()

    @classmethod
    def begin(cls, name: str, params: Mapping[str, Any], tags: Mapping[str, str], inputs: list[dict]) -> "Record":
        flat = {key: str(value)[:6000] for key, value in params.items()}
        start = int(time.time() * 1000)
        return cls(
            {"name": name, "run_id": "", "opened": False, "start_ms": start, "params": flat, "tags": dict(tags),
             "inputs": inputs, "points": [], "status": "", "end_ms": 0}
        )  # fmt: skip

    def deliver(self, client, root: Path) -> None:
        """Takes to MLflow what it lacks. Raises whatever MLflow raises; calling again goes on from there."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        own = self.values
        if not own["run_id"]:
            tags = {**own["tags"], "mlflow.source.name": "roberta-pipeline", "mlflow.source.type": "PROJECT"}
            run = client.create_run(experiment_id(client, root), own["start_ms"], tags, own["name"])
            own["run_id"] = run.info.run_id
        if not own["opened"]:
            for chunk in _chunks(list(own["params"].items()), 100):
                client.log_batch(own["run_id"], params=[Param(*each) for each in chunk])
            data = [
                DatasetInput(
                    Dataset(each["name"], each["md5"][:36], "local", json.dumps({"uri": each["path"]})),
                    [InputTag("mlflow.data.context", "training")],
                )
                for each in own["inputs"]
            ]
            if data:
                client.log_inputs(own["run_id"], data)
            own["opened"] = True
        while True:
            with self.lock:
                # MLflow takes at most 1,000 points a call
                batch = own["points"][:1000]
            if not batch:
                break
            client.log_batch(own["run_id"], metrics=[Metric(*point) for point in batch])
            with self.lock:
                del own["points"][: len(batch)]
        if own["status"]:
            for chunk in _chunks(list(own["tags"].items()), 100):
                client.log_batch(own["run_id"], tags=[RunTag(*each) for each in chunk])
            client.set_terminated(own["run_id"], own["status"], own["end_ms"])


def upload_spool(client, root: Path) -> int:
    """Takes what earlier runs could not deliver to MLflow. Returns how many runs that were."""
    files = sorted((Path(root) / SPOOL).glob("*.json"))
    if not files:
        return 0
    with open(Path(root) / SPOOL / "lock", "w", encoding="utf8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        for file in files:
            if file.is_file():
                Record(read_json(file)).deliver(client, root)
                file.unlink()
    return len(files)


class TrackedRun:
    """A run that is going on. No method raises because of MLflow, and only `finish` waits, `FINISH_WAIT_S` at most."""

    def __init__(self, record: Record, root: Path):
        self._record, self._root = record, home_of(root)
        self._ending = threading.Event()
        self._over = threading.Event()
        self._delivered = False
        self._warned = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty as long as MLflow has not answered."""
        return self._record.values["run_id"]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Notes points of curves."""
        now = int(time.time() * 1000)
        with self._record.lock:
            self._record.values["points"] += [[key, float(value), now, int(step)] for key, value in values.items()]

    def finish(self, metrics: Mapping[str, Any], model_dir: Path | None = None) -> None:
        """Notes the final numbers (as `final.<name>`) and the model's hash, by which the registry finds this run."""
        numbers = {f"final.{key}": value for key, value in metrics.items() if isinstance(value, (int, float))}
        self.log(0, numbers)
        if model_dir is not None:
            self._record.values["tags"]["model_sha256"] = digest_of(Path(model_dir) / "model.safetensors")
        self._end("FINISHED", FINISH_WAIT_S)

    def _end(self, status: str, wait_s: float) -> None:
        if self._ending.is_set():
            return
        self._record.values |= {"end_ms": int(time.time() * 1000), "status": status}
        self._ending.set()
        self._over.wait(wait_s)
        if not self._delivered:
            self._warn("has not answered in time")
            name = f"{self._record.values['name']}-{self._record.values['start_ms']}.json"
            with self._record.lock, atomic_file(self._root / SPOOL / name) as handle:
                json.dump(self._record.values, handle)

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            uri = shown_uri(self._root)
            print(
                f"tracking: MLflow at {uri} {why}; its points are kept and go there later", file=sys.stderr, flush=True
            )

    def _work(self) -> None:
        client = None
        pause_s = FLUSH_S
        while True:
            last = self._ending.is_set()
            try:
                if client is None:
                    client = open_client(self._root)
                    upload_spool(client, self._root)
                self._record.deliver(client, self._root)
                pause_s = FLUSH_S
                if last:
                    self._delivered = True
                    self._over.set()
                    return
            except Exception as error:  # whatever MLflow or its database raises, training goes on
                self._warn(f"gives an error ({type(error).__name__}: {first_line(error)})")
                client = None
                pause_s = min(60.0, pause_s * 2)
                if last:
                    self._over.set()
                    return
            self._ending.wait(pause_s)


@contextmanager
def open_run(
    name: str, params: Params, section: Mapping[str, Any], inputs: Mapping[str, Path] | None = None
) -> Iterator[TrackedRun]:
    """A tracked run for the length of a `with` block; call `finish` at its end.

    Args:
        name: the run's name, for example `pretrain` or `glue-CoLA`.
        params: the params of the pipeline; its kinds of data become tags.
        section: flat parameters of this run.
        inputs: data read, by name, relative to the project; each becomes a dataset with DVC's md5.
    """
    root = Path.cwd()
    tags = (
        lineage_tags(root)
        | experiment_tags()
        | {
            "stage": name,
            "corpus": ", ".join(params.corpus.sources),
            "task_data": params.glue.data,
        }
    )
    data = [
        {"name": key, "path": path.as_posix(), "md5": recorded_md5(root, path)} for key, path in (inputs or {}).items()
    ]
    run = TrackedRun(Record.begin(name, section, tags, data), root)
    try:
        yield run
    except BaseException as error:
        stopped = isinstance(error, (Preempted, KeyboardInterrupt))
        run._end("KILLED" if stopped else "FAILED", STOPPED_WAIT_S)
        raise
    run._end("FINISHED", FINISH_WAIT_S)
