"""What is secret stays where it was given: not in params, tags, evidence, messages or the report."""

import os
import shutil

import pytest

from roberta_core.errors import BadParams
from tasks.params_file import load_params
from tasks.registry import StoreAway, overview, register_all
from tasks.report import write_report
from tasks.tracking import open_run, shown_uri

from .tiny_models import REPO, tiny_project

SECRET = "hunter2-and-more"
HTTP = """corpus:
  sources:
    web:
      kind: http
      path: constraints.txt
      sha256: abc
      url: {}
"""


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{SECRET}@example.org/a.txt",
        f"https://example.org/a.txt?X-Amz-Signature={SECRET}",
        f"https://example.org/a.txt?lang=en&access_token={SECRET}",
    ],
)
def test_an_address_with_a_secret_is_refused_without_telling_it(tmp_path, url):
    text = (REPO / "params.yaml").read_text()
    before, _, after = text.partition("corpus:")
    file = tmp_path / "params.yaml"
    file.write_text(before + HTTP.format(url) + "\nclean:" + after.partition("\nclean:")[2])
    with pytest.raises(BadParams, match=r"corpus.sources.web: url holds a password or a key") as told:
        load_params(file)
    assert SECRET not in str(told.value)
    file.write_text(file.read_text().replace(url, "https://example.org/a.txt?lang=en"))
    assert load_params(file).corpus.sources["web"].url


def test_nothing_of_the_environment_reaches_store_or_report(tmp_path, monkeypatch):
    root = tmp_path / "project"
    params = tiny_project(root)
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    with open_run("pretrain", params, {"steps": 1}) as run:
        run.finish({"loss": 1.0}, root / "models" / "encoder")
    register_all(params, root)
    shutil.rmtree(root / "models" / "glue")  # registered by now; the report wants more of a result than they have
    write_report(root, overview(params, root))
    looked = [each for each in root.rglob("*") if each.is_file()]
    assert {"mlflow.db", "index.html", "params.yaml", "machine.json"} <= {each.name for each in looked}
    assert [each for each in looked if SECRET.encode() in each.read_bytes()] == []


def test_the_tracker_s_password_is_shown_nowhere(tmp_path, monkeypatch, capfd):
    root = tmp_path / "project"
    params = tiny_project(root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9")
    assert shown_uri(root) == "http://127.0.0.1:9"
    monkeypatch.setattr("tasks.tracking.FINISH_WAIT_S", 2.0)
    with open_run("pretrain", params, {"steps": 1}) as run:
        run.finish({"loss": 1.0})
    with pytest.raises(StoreAway) as told:
        overview(params, root)
    assert SECRET not in str(told.value)
    out, err = capfd.readouterr()
    assert SECRET not in out + err and "http://127.0.0.1:9" in err
    spooled = list((root / ".work" / "spool").glob("*.json"))
    assert spooled and all(SECRET not in each.read_text() for each in spooled) and os.environ["MLFLOW_TRACKING_URI"]
