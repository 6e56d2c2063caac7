"""Data between machines, by DVC alone: a folder and an S3-speaking server as remotes, get, import, shared caches, gc."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import pytest

from flows.guard import end_group
from flows.pages import free_port

from .conftest import dvc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_DEFAULT_REGION": "us-east-1"}


def git(root, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def cached(root) -> int:
    return sum(1 for each in (root / ".dvc/cache/files/md5").rglob("*") if each.is_file())


@pytest.fixture
def done(project):
    """The project with all its stages run, and committed."""
    (project / "work.sh").write_text("echo $1 > $1\n")
    dvc(project, "repro", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "one")
    return project


@pytest.fixture(scope="module")
def s3():
    """The address of a moto server: a process of its own on the loopback, with one bucket."""
    pytest.importorskip("moto", reason="the S3-speaking server is not installed (extra test)")
    pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed (extra s3)")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(OSError), urllib.request.urlopen(f"{address}/moto-api/", timeout=2):
                break
            time.sleep(0.2)
        request = urllib.request.Request(f"{address}/models", method="PUT")
        # moto looks at no signature, and takes a plain PUT for the making of a bucket
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request")
        urllib.request.urlopen(request, timeout=10).close()
        yield address
    finally:
        end_group(server.pid, 5.0)
        server.wait()


def push_and_pull(done, tmp_path) -> None:
    """From one clone to the remote, and from there to another clone, which then has nothing to do."""
    dvc(done, "push", "-q")
    git(done, "add", "-A")
    git(done, "commit", "-qm", "remote")
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(done), str(other))
    assert not (other / "d").exists()
    dvc(other, "pull", "-q")
    for name in ("a-x", "a-y", "b", "c", "d"):
        assert (other / name).read_bytes() == (done / name).read_bytes()
    assert dvc(other, "status").stdout.strip() == "Data and pipelines are up to date."


def test_a_folder_as_remote(done, tmp_path):
    dvc(done, "remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    push_and_pull(done, tmp_path)
    # one output of another project: `get` copies it, `import` remembers where it came from
    user = tmp_path / "user"
    user.mkdir()
    git(user, "init", "-q")
    dvc(user, "init", "-q")
    shutil.rmtree(done / ".dvc/cache")  # it has to come from the remote
    dvc(user, "get", "-q", str(done), "d", "-o", "got")
    dvc(user, "import", "-q", str(done), "b", "-o", "b")
    assert (user / "got").read_bytes() == (done / "d").read_bytes()
    assert (user / "b").read_bytes() == (done / "b").read_bytes()
    assert str(done) in (user / "b.dvc").read_text() and not (user / "got.dvc").exists()


def test_s3_as_remote(done, tmp_path, s3, monkeypatch):
    for key, value in KEYS.items():
        monkeypatch.setenv(key, value)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    dvc(done, "remote", "add", "-d", "s3", "s3://models/roberta")
    dvc(done, "remote", "modify", "s3", "endpointurl", s3)
    push_and_pull(done, tmp_path)
    told = dvc(done, "status", "--cloud").stdout
    assert "in sync" in told
    # the keys are in the environment and nowhere in the repository
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in "".join(
        path.read_text() for path in (done / ".dvc").glob("config*") if path.is_file()
    )
    assert os.environ["AWS_SECRET_ACCESS_KEY"]


def test_a_cache_that_clones_share(done, tmp_path):
    """The second clone has everything at once, without a remote and without a second copy of the bytes."""
    dvc(done, "cache", "dir", "--local", str(done / ".dvc/cache"))
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(done), str(other))
    dvc(other, "cache", "dir", "--local", str(done / ".dvc/cache"))
    before = cached(done)
    dvc(other, "checkout", "-q")
    assert (other / "d").read_text() == (done / "d").read_text() and cached(done) == before
    assert not (other / ".dvc/cache").exists()
    # what one clone has built, the other does not build again
    for folder in (done, other):
        (folder / "params.yaml").write_text((folder / "params.yaml").read_text().replace("seed: 1907", "seed: 7"))
    (done / "work.sh").write_text('echo "$1, longer" > $1\n')
    shutil.copy(done / "work.sh", other / "work.sh")
    dvc(done, "repro", "-q")
    assert "is cached - skipping run" in dvc(other, "repro").stdout
    assert (other / "d").read_text() == (done / "d").read_text()


def test_gc_keeps_what_commits_name(done):
    """`--workspace` alone forgets the data of earlier commits; `--all-commits` keeps it."""
    first = (done / "d").read_text()
    (done / "work.sh").write_text('echo "$1, longer" > $1\n')
    dvc(done, "repro", "-q")
    git(done, "commit", "-qam", "two")
    dvc(done, "gc", "-q", "-f", "--all-commits")
    git(done, "checkout", "-q", "HEAD~1")
    dvc(done, "checkout", "-q")
    assert (done / "d").read_text() == first
    git(done, "checkout", "-q", "-")
    dvc(done, "checkout", "-q")
    dvc(done, "gc", "-q", "-f", "--workspace")
    git(done, "checkout", "-q", "HEAD~1")
    assert dvc(done, "checkout", check=False).returncode != 0
