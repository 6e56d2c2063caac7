"""Sources on object storage: an S3-speaking server on this machine, read by the download stage as a process."""

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from roberta_core.atomic import digest_of, read_json
from tests.tasks.stage_processes import BASE, ROOT, article, finish, start

boto3 = pytest.importorskip("boto3", reason="S3 is an extra: pip install -e '.[s3]'")
pytest.importorskip("s3fs", reason="S3 is an extra: pip install -e '.[s3]'")
pytest.importorskip("moto", reason="the S3 server for tests is moto")

KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture
def bucket(monkeypatch):
    """A bucket `corpus` with jsonl files, plain and packed, and one that is damaged; its address is in the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    try:
        until = time.monotonic() + 30
        while True:
            try:
                client.create_bucket(Bucket="corpus")
                break
            except Exception:
                assert server.poll() is None and time.monotonic() < until, "the S3 server did not come up"
                time.sleep(0.1)
        for part in range(4):
            rows = "".join(json.dumps({"text": article(number)}) + "\n" for number in range(part * 9, part * 9 + 9))
            client.put_object(
                Bucket="corpus", Key=f"texts/{part}.jsonl.gz", Body=gzip.compress(rows.encode(), mtime=0)
            )
        client.put_object(Bucket="corpus", Key="texts/notes/readme.txt", Body=b"not asked for")
        client.put_object(Bucket="corpus", Key="damaged/a.jsonl.gz", Body=gzip.compress(rows.encode())[:-30])
        yield client
    finally:
        server.kill()
        server.wait()


def write_params(folder: Path, **source) -> None:
    sources = {"texts": {"kind": "files", "path": "watched.txt", **source}}
    (folder / "watched.txt").write_text("2026-11")
    params = {**BASE, "corpus": {"sources": sources}, "runtime": {"workers": 2}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf8")


@pytest.mark.slow
def test_a_folder_on_s3(bucket, tmp_path, monkeypatch):
    write_params(tmp_path, url="s3://corpus/texts", pattern="*.jsonl.gz")
    code, said = finish(start(tmp_path, "download texts"))
    assert (code, said) == (0, "")
    assert read_json(tmp_path / "metrics/download-texts.json")["kept"] == 36
    from_s3 = digest_of(tmp_path / "data/raw/texts")
    # the same files here give the same bytes
    for part in range(4):
        (tmp_path / "in").mkdir(exist_ok=True)
        body = bucket.get_object(Bucket="corpus", Key=f"texts/{part}.jsonl.gz")["Body"].read()
        (tmp_path / "in" / f"{part}.jsonl.gz").write_bytes(body)
    write_params(tmp_path, path="in")
    assert finish(start(tmp_path, "download texts"))[0] == 0
    assert digest_of(tmp_path / "data/raw/texts") == from_s3

    # what is not there, what is damaged, and a storage that does not answer: one line each, and nothing left
    for source, code, words in (
        (
            {"url": "s3://corpus/nosuch"},
            1,
            "There is no file or folder s3://corpus/nosuch. Set corpus.sources.texts.url",
        ),
        ({"url": "s3://corpus/damaged"}, 1, "a.jsonl.gz"),
    ):
        write_params(tmp_path, **source)
        got, said = finish(start(tmp_path, "download texts"))
        assert got == code and words in said and len(said.splitlines()) == 1, said
    write_params(tmp_path, url="s3://corpus/texts")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    got, said = finish(start(tmp_path, "download texts"))
    assert got == 75 and "s3://corpus/texts cannot be reached" in said and len(said.splitlines()) == 1, said
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    got, said = finish(start(tmp_path, "download texts"))
    assert got == 1 and "is not open to you" in said and "never in params.yaml" in said, said
    assert digest_of(tmp_path / "data/raw/texts") == from_s3, "what was there stays"


def test_an_address_with_a_key_or_a_glob_is_refused(tmp_path):
    for source, words in (
        ({"url": "s3://key:secret@bucket/x"}, "url holds a password"),
        ({"path": "s3://key:secret@bucket/x"}, "path holds a password"),
        ({"url": "s3://bucket/*.txt"}, "put the glob under pattern"),
    ):
        write_params(tmp_path, **source)
        done = subprocess.run(
            [sys.executable, "-m", "tasks.download", "texts"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and words in done.stderr
