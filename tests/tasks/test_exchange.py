"""Import and export at the command line: equal logits in transformers, a card with nothing invented, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from roberta_core.errors import BadInput, TryAgain
from roberta_core.exchange.importing import fetch_from_hub
from roberta_core.inference import load_model
from roberta_core.model.folder import check_sums
from tasks.card import LOSSES
from tasks.exchange import give_out, take_in
from tasks.registry import model_folder, register_all

from .tiny_models import REPO, tiny_classifier, tiny_encoder, tiny_project, write_results

TEXTS = ["the cat sat on the mat", "the dog ran", "it"]
TRAINING = {"seed": 7, "recipe": "fast", "max_steps": 40, "loss": 3.25, "accuracy": 0.25, "fingerprint": "abc"}


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tiny_encoder(tmp_path_factory.mktemp("encoder"))
    (folder / "training.json").write_text(json.dumps(TRAINING))
    return folder


def front(folder: Path) -> tuple[dict, str]:
    """The card's front matter and its text."""
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def test_an_export_gives_the_same_logits_in_transformers(encoder, tmp_path):
    transformers = pytest.importorskip("transformers")
    (said,) = give_out(tmp_path, str(encoder), tmp_path / "out")
    assert "equal predictions" in said
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(TEXTS, padding=True, return_tensors="pt")
    ours = load_model(encoder)
    real = tokens["attention_mask"].bool()
    with torch.no_grad():
        logits = ours.model(tokens["input_ids"], real)
        torch.testing.assert_close(theirs(**tokens).logits[real], logits[real], atol=1e-5, rtol=0)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json", "README.md",
        "SHA256SUMS",
    }  # fmt: skip


def test_the_card_of_an_encoder_says_what_is_known_and_no_more(encoder, tmp_path):
    give_out(tmp_path, str(encoder), tmp_path / "out")
    head, text = front(tmp_path / "out")
    assert head["pipeline_tag"] == "fill-mask" and head["library_name"] == "transformers"
    (result,) = head["model-index"][0]["results"]
    assert {each["type"]: each["value"] for each in result["metrics"]} == {"loss": 3.25, "accuracy": 0.25}
    count = load_model(encoder).model.config.parameters()
    assert f"{count:,}" in text and "| recipe | fast |" in text and LOSSES["loss"] in text
    assert LOSSES["perplexity"] not in text, "what training.json does not have is not there"
    for absent in ("Protocol", "Data", "Lineage", "None", "unknown"):
        assert absent not in text


def test_the_card_of_a_model_without_any_record(encoder, tmp_path):
    bare = shutil.copytree(encoder, tmp_path / "bare")
    (bare / "training.json").unlink()
    give_out(tmp_path, str(bare), tmp_path / "out")
    head, text = front(tmp_path / "out")
    assert "model-index" not in head
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Parameters"]


def test_the_card_of_a_classifier_has_protocol_yardsticks_and_says_that_a_sample_is_not_glue(encoder, tmp_path):
    folder = tiny_classifier(tmp_path / "models/glue/CoLA", encoder, ["unacceptable", "acceptable"])
    write_results(tmp_path, "CoLA", 0.4)
    values = json.loads((folder / "results.json").read_text())
    baselines = {"majority": {"mcc": 0.0}, "tfidf": {"mcc": 0.11}}
    (folder / "results.json").write_text(json.dumps(values | {"baselines": baselines, "metrics": {"mcc": 0.4}}))
    give_out(tmp_path, str(folder), tmp_path / "out")
    head, text = front(tmp_path / "out")
    assert head["pipeline_tag"] == "text-classification"
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "mcc", "value": 0.4}] and "not GLUE" in result["dataset"]["name"]
    assert "| mcc | 0.4 |" in text and "| epochs | 2 |" in text and "| tfidf, same rows: mcc | 0.11 |" in text
    assert load_model(tmp_path / "out").predict(TEXTS) == load_model(folder).predict(TEXTS)


def test_a_registered_version_is_exported_with_its_lineage(tmp_path):
    root = tmp_path / "project"
    params = tiny_project(root)
    register_all(params, root)
    give_out(root, "models:/roberta-cola@challenger", tmp_path / "out")
    _, text = front(tmp_path / "out")
    assert "| registered as | roberta-cola version 1 |" in text
    one, other = (load_model(folder).predict(TEXTS) for folder in (tmp_path / "out", root / "models/glue/CoLA"))
    assert [each["label"] for each in one] == [each["label"] for each in other]
    # the store is damaged behind the registry's back
    weights = model_folder(root, "roberta-cola", "1") / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(BadInput, match="not those that were registered"):
        give_out(root, "models:/roberta-cola@challenger", tmp_path / "again")


def test_out_is_never_overwritten_unasked_nor_half_written(encoder, tmp_path):
    out = tmp_path / "out"
    give_out(tmp_path, str(encoder), out)
    (out / "mine.txt").write_text("x")
    for work in (give_out, take_in):
        with pytest.raises(BadInput, match="exists already"):
            work(tmp_path, str(encoder), out)
    with pytest.raises(BadInput, match="source itself"):
        give_out(tmp_path, str(encoder), encoder, force=True)
    give_out(tmp_path, str(encoder), out, force=True)
    assert not (out / "mine.txt").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="is a file"):
        give_out(tmp_path, str(encoder), tmp_path / "file")
    with pytest.raises(BadInput, match="no readable config"):
        give_out(tmp_path, str(tmp_path), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_flipped_bit_in_an_exported_weight_is_seen(encoder, tmp_path):
    give_out(tmp_path, str(encoder), tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    for work in (load_model, check_sums, lambda folder: take_in(tmp_path, str(folder), tmp_path / "in")):
        with pytest.raises(BadInput, match="its SHA-256 is not the one in SHA256SUMS"):
            work(tmp_path / "out")
    assert not (tmp_path / "in").exists()


def run_cli(*arguments: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environ = os.environ | {"PYTHONPATH": str(REPO)} | env
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=env.get("PWD", REPO), timeout=120)


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the hub, for one public model: its list of files, and each of them."""

    def __init__(self, folder: Path, commit: str, asked: list[str], *rest):
        self.folder, self.commit, self.asked = folder, commit, asked
        super().__init__(*rest)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/team/tiny/tree/"):
            listed = [(file.name, file.stat().st_size) for file in sorted(self.folder.iterdir())]
            return self.send(
                [{"type": "file", "path": name, "size": size, "oid": name} for name, size in listed], body
            )
        if path.startswith("/api/models/team/tiny/"):
            files = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
            return self.send({"id": "team/tiny", "sha": self.commit, "siblings": files}, body)
        if path.startswith("/api/models/"):
            return self.send({"error": "Repository not found"}, body, 404, {"X-Error-Code": "RepoNotFound"})
        name = path.rsplit("/", 1)[-1]
        file = self.folder / name
        if not file.is_file():
            return self.send({"error": "Entry not found"}, body, 404, {"X-Error-Code": "EntryNotFound"})
        self.asked.append(name)
        etag = {"ETag": f'"{name}"', "X-Repo-Commit": self.commit}
        return self.send(file.read_bytes(), body, 200, etag)

    def send(self, content, body, code=200, headers=None):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(raw))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(raw)


@pytest.fixture
def hub(encoder, tmp_path):
    """A hub on loopback with one model, beside which lies a pickle."""
    folder = shutil.copytree(encoder, tmp_path / "on-hub")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02evil")
    (folder / "modeling.py").write_text("raise SystemExit")
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder, "c0ffee" + "0" * 34, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked, folder
    server.shutdown()
    server.server_close()


def test_a_name_on_the_hub_safetensors_and_json_only(hub, tmp_path):
    address, asked, folder = hub
    env = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
    done = run_cli("import", "team/tiny", str(tmp_path / "in"), **env)
    assert done.returncode == 0, done.stderr
    assert "a roberta model" in done.stdout
    assert not {"pytorch_model.bin", "modeling.py"} & set(asked) and "model.safetensors" in asked
    head, text = front(tmp_path / "in")
    assert head["base_model"] == "team/tiny" and "| revision | c0ffee" in text
    one, other = (load_model(each).predict(TEXTS) for each in (tmp_path / "in", folder))
    assert np.allclose(one, other, atol=1e-6)
    gone = run_cli("import", "team/none", str(tmp_path / "no"), **env)
    assert gone.returncode == 1 and gone.stderr.count("\n") == 1 and "none of that name on the hub" in gone.stderr


def test_a_hub_that_does_not_answer_can_be_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TryAgain, match="could not be fetched"):
        fetch_from_hub("team/never-seen-here")


def test_at_the_command_line(encoder, tmp_path):
    done = run_cli("export", str(encoder), str(tmp_path / "out"), PWD=str(tmp_path))
    assert done.returncode == 0 and "README.md" in done.stdout, done.stderr
    again = run_cli("export", str(encoder), str(tmp_path / "out"))
    assert again.returncode == 1 and again.stderr.count("\n") == 1 and "--force" in again.stderr
    missing = run_cli("import", "./nowhere", str(tmp_path / "in"))
    assert missing.returncode == 1 and missing.stderr == (
        "roberta: ./nowhere does not exist. Give a model folder, a fairseq checkpoint, or a name on the hub.\n"
    )


@pytest.fixture
def disk(tmp_path):
    """A file system of 1 MB, which can be full or read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or os.geteuid() or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", folder]).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_or_read_only_disk_is_one_line_and_nothing_is_left(encoder, disk):
    """The model has 1.9 MB."""
    for command in ("import", "export"):
        done = run_cli(command, str(encoder), str(disk / "out"))
        assert done.returncode == 1 and done.stderr.startswith("roberta: The disk is full"), done.stderr
        assert done.stderr.count("\n") == 1 and list(disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = run_cli("export", str(encoder), str(disk / "out"))
    assert done.returncode == 1 and "Read-only file system" in done.stderr and done.stderr.count("\n") == 1
