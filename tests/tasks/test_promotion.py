"""Champions on a real store: made by the gate, by hand, taken back; two at once; a registry that goes away; the record."""

import json
import os
import shutil
import threading
import time

import pytest

from roberta_core.errors import TryAgain
from tasks import promotion
from tasks.promotion import LOG, NoWayBack, claimed, earlier, promote_all, promote_by_hand, read_log, rollback
from tasks.registry import (
    FilesGone,
    HoldsPickle,
    NotRegistered,
    StoreAway,
    aliases_of,
    open_registered,
    overview,
    register_all,
)
from tasks.tracking import mlflow_on, open_client
from tasks.versions import CannotCompare, compare_versions, list_versions, troubles

from .tiny_models import tiny_classifier, tiny_project, write_results

COLA = "roberta-cola"
LABELS = ["unacceptable", "acceptable"]


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A project with three versions of one classifier (mcc 0.4, 0.7, 0.72), of which none was promoted yet.

    One database for all tests here, made once; each test gets the aliases and the log as they are now.
    """
    root = tmp_path_factory.mktemp("promotion") / "project"
    params = tiny_project(root)
    shutil.rmtree(root / "models" / "glue" / "STS-B")
    for seed, score in ((1, 0.4), (2, 0.7), (3, 0.72)):
        tiny_classifier(root / "models" / "glue" / "CoLA", root / "models" / "encoder", LABELS, seed)
        write_results(root, "CoLA", score)
        assert f"{COLA} {seed}" in register_all(params, root)
    return root, params


@pytest.fixture
def project(stock, tmp_path):
    """A copy: the database with its own rows, the models' files shared."""
    root, params = stock
    copy = tmp_path / "project"
    copy.mkdir()
    for name in ("mlflow.db", "params.yaml"):
        shutil.copy(root / name, copy)
    for name in ("models", "data"):
        shutil.copytree(root / name, copy / name)
    return copy, params


def aliases(root, name=COLA) -> dict[str, str]:
    return {key: value for key, value in aliases_of(open_client(root), name).items() if key != "challenger"}


def tags_of(root, version: str) -> dict[str, str]:
    return open_client(root).get_model_version(COLA, version).tags


def only_version(client, number: int) -> None:
    """Leaves versions up to `number`, as if the later ones had not been made."""
    for version in client.search_model_versions(f"name='{COLA}'"):
        if int(version.version) > number:
            client.delete_model_version(COLA, str(version.version))


def test_the_gate_compares_on_the_same_rows_and_everything_is_recorded(project):
    root, params = project
    promote_by_hand(root, COLA, "1", "to begin with")
    said = promote_all(params, root)
    assert (
        f"{COLA} 3 promoted: mcc 0.7200 against the champion's 0.4000, a gain of +0.3200 (95 % interval +0." in said[1]
    )
    assert aliases(root) == {"champion": "3", "previous": "1"}
    tags = tags_of(root, "3")
    assert tags["promoted_by"] == promotion.who() and tags["promoted_how"] == "gate" and tags["champion_before"] == "1"
    entries = read_log(root, COLA)
    assert [(each["version"], each["before"], each["how"]) for each in entries] == [
        ("1", None, "hand"),
        ("3", "1", "gate"),
    ]
    assert entries[0]["why"].startswith("promoted: by hand, to begin with")
    assert entries[1]["gate"] == json.loads(tags["gate"])
    assert {each["asked"]: each["passed"] for each in entries[1]["gate"]["checks"]} == {
        "gain in the mean above 0": True,
        "p below 0.05": True,
        "no task loses more than 0.03": True,
        "at most 1.5 times the size": True,
        "at most 1.5 times the time of a prediction": True,
    }
    assert promote_all(params, root) == []
    assert next(row for row in overview(params, root) if row["name"] == COLA)["gate"] == tags["gate"]


def test_a_gain_that_may_be_luck_is_not_enough(project):
    root, params = project
    promote_by_hand(root, COLA, "2")
    (said,) = [line for line in promote_all(params, root) if line.startswith(COLA)]
    assert "3 not promoted: mcc 0.7200 against the champion's 0.7000, a gain of +0.0200" in said
    assert "asked for: p below 0.05, found 0." in said and said.endswith("(champion then: version 2)")
    assert aliases(root)["champion"] == "2" and len(read_log(root, COLA)) == 1
    assert promote_all(params, root) == [], "a decision is told once"
    # the margins are the user's
    loose = params.model_copy(
        update={
            "registry": params.registry.model_copy(
                update={"gate": params.registry.gate.model_copy(update={"max_p": 0.9})}
            )
        }
    )
    assert promote_all(loose, root)[0].startswith(f"{COLA} 3 promoted")


def test_rolling_back_goes_back_and_further_back_and_the_gate_does_not_undo_it(project):
    root, params = project
    for version in "123":
        promote_by_hand(root, COLA, version)
    assert rollback(root, COLA, "answers in Dutch").startswith(
        f"{COLA} 2 promoted: rolled back to it, answers in Dutch"
    )
    assert aliases(root) == {"champion": "2", "previous": "3"}
    (said,) = [line for line in promote_all(params, root) if line.startswith(COLA)]
    assert "3 not promoted: rolled back by" in said and "answers in Dutch" in said
    assert rollback(root, COLA).startswith(f"{COLA} 1 ")
    with pytest.raises(NoWayBack, match=r"roberta-cola has no champion before version 1 to go back to. .* 1, 2, 3"):
        rollback(root, COLA)
    assert aliases(root)["champion"] == "1"
    assert promote_by_hand(root, COLA, "3").startswith(f"{COLA} 3 promoted: by hand")
    assert "rolled_back" not in tags_of(root, "3")
    assert [each["how"] for each in read_log(root, COLA)] == ["hand"] * 3 + ["rollback"] * 2 + ["hand"]
    for act in (rollback, lambda root, name: promote_by_hand(root, name, "1")):
        with pytest.raises(
            NotRegistered, match=r"No model is registered as roberta-kola\. Registered are: roberta-cola"
        ):
            act(root, "roberta-kola")
    with pytest.raises(NotRegistered, match=r"roberta-cola has no version 9\. Its aliases are: "):
        promote_by_hand(root, COLA, "9")


def test_the_way_back_passes_over_what_is_gone_and_ends():
    known = {"1": {"champion_before": ""}, "3": {"champion_before": "2"}, "4": {"champion_before": "3"}}
    log = [{"version": "2", "before": "1", "how": "hand"}]
    assert earlier("4", known, log) == "3"
    assert earlier("3", known, log) == "1", "version 2 was deleted; the log knows whom it followed"
    known["3"]["rolled_back"] = "by somebody"
    assert earlier("4", known, log) == "1"
    circle = {"1": {"champion_before": "2", "rolled_back": "x"}, "2": {"champion_before": "1"}}
    assert earlier("2", circle, []) is None


class GoesAway:
    """A client whose store is gone from the n-th change on."""

    def __init__(self, client, after: int):
        self.client, self.left = client, after

    def __getattr__(self, name):
        real = getattr(self.client, name)
        if not name.startswith(("set_", "delete_", "create_")):
            return real

        def call(*arguments, **named):
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("connection refused")
            return real(*arguments, **named)

        return call


def test_a_registry_that_goes_away_in_the_middle_leaves_the_old_champion(project, monkeypatch):
    root, params = project
    promote_by_hand(root, COLA, "1")
    real = open_client(root)
    stopped = 0
    for after in range(30):
        monkeypatch.setattr(promotion, "open_store", lambda _, after=after: GoesAway(real, after))
        try:
            promote_by_hand(root, COLA, "2")
            break
        except StoreAway as error:
            stopped += 1
            assert "The registry went away while roberta-cola" in str(error) and "(connection refused)" in str(error)
            assert error.exit_code == 75
        finally:
            monkeypatch.undo()
        assert aliases(root)["champion"] == "1"
        assert [each["version"] for each in read_log(root, COLA)] == ["1"]
        for left in real.search_registered_models(f"name LIKE '{promotion.CLAIM}%'"):
            real.delete_registered_model(left.name)  # clearing it has a test of its own
    assert stopped >= 6, "tags, previous and champion are changes of their own"
    assert aliases(root) == {"champion": "2", "previous": "1"}
    assert promote_all(params, root)  # and life goes on


def test_two_that_promote_at_once_cannot_both_win(project, monkeypatch):
    """Both saw version 1 as champion; the second one decides anew, against the first one's choice."""
    root, params = project
    promote_by_hand(root, COLA, "1")
    inside, most = [], []
    real = promotion._decide_newest

    def slow(*arguments):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.5)
        answer = real(*arguments)
        inside.pop()
        return answer

    monkeypatch.setattr(promotion, "_decide_newest", slow)
    only = params.model_copy(update={"glue": params.glue.model_copy(update={"tasks": ["CoLA"]})})
    said: list[list[str]] = []
    names = {"": "roberta-none", "CoLA": COLA}
    monkeypatch.setattr(promotion, "model_names", lambda _: names)
    threads = [threading.Thread(target=lambda: said.append(promote_all(only, root))) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(said) == 3 and max(most) == 1 and len(most) >= 1
    assert sum(len(lines) for lines in said) == 1
    assert [each["version"] for each in read_log(root, COLA)] == ["1", "3"]
    assert not open_client(root).search_registered_models(f"name='{promotion.CLAIM + COLA}'")


def test_a_claim_of_a_dead_process_is_taken_over_and_of_a_living_one_is_not(project, monkeypatch):
    root, _ = project
    client = open_client(root)
    monkeypatch.setattr(promotion, "CLAIM_WAIT_S", 2.0)
    import socket
    import subprocess

    dead = subprocess.Popen(["true"])
    dead.wait()
    holders = {"machine": socket.gethostname(), "since": repr(time.time()), "token": "another"}
    client.create_registered_model(promotion.CLAIM + COLA, tags=holders | {"process": str(dead.pid)})
    with claimed(client, COLA):
        pass
    client.create_registered_model(promotion.CLAIM + COLA, tags=holders | {"process": str(os.getppid())})
    with pytest.raises(TryAgain, match=f"roberta-cola is being promoted by process {os.getppid()} on"):
        promote_by_hand(root, COLA, "1")
    client.delete_registered_model(promotion.CLAIM + COLA)
    away = holders | {"machine": "elsewhere", "process": "1"}
    client.create_registered_model(promotion.CLAIM + COLA, tags=away)
    with pytest.raises(TryAgain, match="on elsewhere"):
        promote_by_hand(root, COLA, "1")
    client.set_registered_model_tag(promotion.CLAIM + COLA, "since", repr(time.time() - 10_000))
    assert promote_by_hand(root, COLA, "1").startswith(f"{COLA} 1 promoted")


def test_status_notices_a_deleted_champion_and_files_that_are_gone_and_says_the_way_back(project, monkeypatch):
    root, params = project
    only = params.model_copy(update={"glue": params.glue.model_copy(update={"tasks": ["CoLA"]})})
    client = open_client(root)
    promote_by_hand(root, "roberta-encoder", "1")
    for version in "12":
        promote_by_hand(root, COLA, version)
    assert troubles(only, root) == []
    # the champion's files: a copy of the store's folder for this version alone would cost more than moving it away
    with mlflow_on(root) as mlflow:
        folder = mlflow.artifacts.download_artifacts(f"models:/{COLA}/2/artifacts/CoLA")
    weights = os.path.join(folder, "model.safetensors")
    os.rename(weights, weights + ".away")
    try:
        (trouble,) = troubles(only, root)
        assert str(trouble) == (
            "roberta-cola: the champion, version 2, cannot be used: The files of roberta-cola 2 are gone from the store. "
            "`roberta rollback roberta-cola` makes version 1 champion."
        )
        with pytest.raises(FilesGone, match="The files of roberta-cola 2 are gone"):
            open_registered(COLA, root)
        with open(weights, "wb") as handle:
            handle.write(b"cut short")
        (trouble,) = troubles(only, root)
        assert "model.safetensors has 9 bytes instead of" in trouble.what
    finally:
        os.replace(weights + ".away", weights)
    assert troubles(only, root) == []
    client.delete_model_version(COLA, "2")
    (trouble,) = troubles(only, root)
    assert trouble.what == "there is no champion; version 2, which was, is gone."
    assert trouble.mend == "`roberta rollback roberta-cola` makes version 1 champion."
    assert rollback(root, COLA).startswith(f"{COLA} 1 promoted: rolled back to it")
    assert troubles(only, root) == []
    client.delete_registered_model(COLA)
    (trouble,) = troubles(only, root)
    assert "the registry has no model of this name any more" in trouble.what


def test_versions_and_a_comparison_for_people(project):
    root, params = project
    promote_by_hand(root, COLA, "2")
    rows = list_versions(params, root, COLA)
    assert [(row["version"], row["alias"], row["score"]) for row in rows] == [
        ("3", "challenger", "mcc 0.7200"),
        ("2", "champion", "mcc 0.7000"),
        ("1", "", "mcc 0.4000"),
    ]
    assert {row["model"] for row in list_versions(params, root)} == {"roberta-encoder", COLA}
    told = compare_versions(params, root, COLA, "champion", "1")
    assert "version 1 as the candidate, version 2 as the champion" in told
    assert "failed: gain in the mean above 0: -0.3000" in told and "It would be not promoted" in told
    assert aliases(root)["champion"] == "2" and "mcc" in told.splitlines()[2]
    client = open_client(root)
    client.set_model_version_tag(COLA, "1", "yardstick", json.dumps({"dev_md5": "another"}))
    with pytest.raises(CannotCompare, match=r"cannot be compared \(measured on"):
        compare_versions(params, root, COLA, "2", "1")


def test_a_pickle_in_the_registry_is_refused_and_never_opened(project, tmp_path):
    """A version whose weights would run code when they are loaded: under its own name, and under a good one."""
    import pickle

    import mlflow

    root, _ = project
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (os.system, (f"touch {ran}",))

    bad = tmp_path / "bad"
    shutil.copytree(root / "models" / "glue" / "CoLA", bad)
    (bad / "model.safetensors").write_bytes(pickle.dumps(Bomb(), protocol=4))
    client = open_client(root)
    from tasks.candidates import Candidate
    from tasks.registry import _log

    def register(folder) -> str:
        model_id = _log(client, root, Candidate(COLA, folder, {}, []), None)
        client.finalize_logged_model(model_id, "READY")
        with mlflow_on(root):
            return str(client.create_model_version(COLA, f"models:/{model_id}", model_id=model_id).version)

    number = register(bad)
    with pytest.raises(
        HoldsPickle, match=f"model.safetensors of roberta-cola {number} is a pickle under another name"
    ):
        open_registered(f"models:/{COLA}/{number}", root)
    (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
    number = register(bad)
    with pytest.raises(HoldsPickle, match=r"holds a pickle \(artifacts/bad/pytorch_model.bin\)"):
        open_registered(f"models:/{COLA}/{number}", root)
    # MLflow's own kind of model, which its loader would unpickle
    with mlflow_on(root):
        model_id = client.create_logged_model(client.get_experiment_by_name("roberta").experiment_id, COLA).model_id
        (tmp_path / "python_model.pkl").write_bytes(pickle.dumps(Bomb(), protocol=4))
        client.log_model_artifacts(
            model_id, str(tmp_path / "python_model.pkl").rpartition("/")[0] + "/bad", "artifacts/x"
        )
        client.log_model_artifact(model_id, str(tmp_path / "python_model.pkl"))
        client.finalize_logged_model(model_id, "READY")
        number = str(client.create_model_version(COLA, f"models:/{model_id}", model_id=model_id).version)
    with pytest.raises(HoldsPickle, match=r"holds a pickle \(.*(python_model\.pkl|pytorch_model\.bin)"):
        open_registered(f"models:/{COLA}/{number}", root)
    assert mlflow and not ran.exists()


def test_the_log_is_only_appended_to(project):
    root, _ = project
    promote_by_hand(root, COLA, "1")
    before = (root / LOG).read_bytes()
    with open(root / LOG, "a") as handle:
        handle.write("a line that a merge left behind\n")
    promote_by_hand(root, COLA, "2")
    after = (root / LOG).read_bytes()
    assert after.startswith(before) and len(read_log(root)) == 2
