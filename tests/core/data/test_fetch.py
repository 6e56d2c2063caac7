"""Files from a real http server on this machine that answers, hangs, cuts off, lies and recovers."""

import hashlib
import http.server
import threading
import time
from collections import Counter
from typing import ClassVar

import pytest

from roberta_core.data import fetch
from roberta_core.data.fetch import fetch_list, fetch_url, read_list
from roberta_core.errors import BadInput, TryAgain

BODY = bytes(range(256)) * 4000
RIGHT = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """`/good` serves BODY, with ranges. `/cut` breaks off half-way of what is asked for; `/cut-whole` too, and knows no
    ranges; `/cut-once` the first time only. `/busy` is 503, `/broken` 500, `/busy-twice` 503 for two times;
    `/slow-down` asks to wait. `/hang` never ends; `/liar` sends another range than was asked for. The rest is 404."""

    asked: ClassVar[Counter] = Counter()
    ranges: ClassVar[list] = []
    now = most = 0
    lock = threading.Lock()

    def do_GET(self):
        with self.lock:
            self.asked[self.path] += 1
        self.serve(self.path.split("?")[0].split("+")[0], self.asked[self.path])

    def wait(self) -> None:
        """A while in which the requests under way are counted."""
        cls = type(self)
        with cls.lock:
            cls.now += 1
            cls.most = max(cls.most, cls.now)
        time.sleep(0.1)
        with cls.lock:
            cls.now -= 1

    def serve(self, path: str, times: int) -> None:
        if "wait" in self.path:
            self.wait()  # before the answer begins: the client must still be waiting for it
        asked = self.headers.get("Range")
        type(self).ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and path != "/cut-whole" else 0
        status = 206 if start else 200
        if path in ("/busy", "/broken") or (path in ("/busy-twice", "/slow-down") and times < 3):
            status = {"/slow-down": 429, "/broken": 500}.get(path, 503)
        elif path not in ("/good", "/cut", "/cut-whole", "/cut-once", "/busy-twice", "/slow-down", "/hang", "/liar"):
            status = 404
        elif start >= len(BODY):
            status = 416
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        body = BODY[start:] if status in (200, 206) else b""
        if status == 206:
            at = start + 1 if path == "/liar" else start
            self.send_header("Content-Range", f"bytes {at}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if path in ("/cut", "/cut-whole", "/liar") or (path == "/cut-once" and times == 1):
            body = body[: (len(body) + 1) // 2]
        if path == "/hang":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(3)
            return
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "WAITS_S", (0.01, 0.02, 0.03))
    Handler.asked, Handler.ranges, Handler.most = Counter(), [], 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_file_is_fetched_once_and_checked(server, tmp_path):
    path = fetch_url(f"{server}/good", RIGHT.upper(), tmp_path / "cache")
    assert path.read_bytes() == BODY and path.name == f"{RIGHT[:16]}-good"
    assert fetch_url(f"{server}/good", RIGHT, tmp_path / "cache") == path
    assert Handler.asked == {"/good": 1} and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("path, tries", [("/cut-once", 2), ("/busy-twice", 3)])
def test_a_passing_trouble_is_tried_again(server, tmp_path, path, tries):
    assert fetch_url(server + path, RIGHT, tmp_path).read_bytes() == BODY
    assert Handler.asked[path] == tries
    assert Handler.ranges[-1] == (f"bytes={len(BODY) // 2}-" if path == "/cut-once" else None)


def test_a_server_that_asks_to_wait_is_given_the_time(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "WAITS_S", (0.01, 0.2))
    started = time.monotonic()
    fetch_url(f"{server}/slow-down", RIGHT, tmp_path)
    assert time.monotonic() - started >= 0.8, "twice Retry-After, bounded by twice the last wait"


def test_what_came_is_gone_on_with_by_the_next_run(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "WAITS_S", ())
    with pytest.raises(TryAgain, match=r"broke off: 512000 of 1024000 bytes came \(1 tries\)"):
        fetch_url(f"{server}/cut", RIGHT, tmp_path)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".") and left.stat().st_size == len(BODY) // 2
    left.rename(left.with_name(left.name.replace("-cut", "-good")))
    assert fetch_url(f"{server}/good", RIGHT, tmp_path).read_bytes() == BODY
    assert Handler.ranges == [None, f"bytes={len(BODY) // 2}-"]


def test_half_and_half_again_comes_to_the_whole_where_ranges_are_known(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "WAITS_S", (0,) * 30)
    assert fetch_url(f"{server}/cut", RIGHT, tmp_path).read_bytes() == BODY
    monkeypatch.setattr(fetch, "WAITS_S", (0,) * 5)
    with pytest.raises(TryAgain, match="broke off"):
        fetch_url(f"{server}/cut-whole", RIGHT, tmp_path)


def test_a_file_that_only_lacks_its_name_is_not_fetched_again(server, tmp_path):
    (tmp_path / f".{RIGHT[:16]}-good.tmp").write_bytes(BODY)
    assert fetch_url(f"{server}/good", RIGHT, tmp_path).read_bytes() == BODY
    assert Handler.ranges == [f"bytes={len(BODY)}-"] and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("stale", [b"wrong beginning", BODY + b"too long", b"x" * len(BODY)])
def test_a_wrong_beginning_is_thrown_away(server, tmp_path, stale):
    (tmp_path / f".{RIGHT[:16]}-good.tmp").write_bytes(stale)
    assert fetch_url(f"{server}/good", RIGHT, tmp_path).read_bytes() == BODY
    assert Handler.asked["/good"] == 2


@pytest.mark.parametrize(
    "path, sha256, error, told",
    [
        ("/nosuch", RIGHT, BadInput, r"answers 404"),
        ("/good", "0" * 64, BadInput, f"has the SHA-256 {RIGHT}, not 000"),
        ("/busy", RIGHT, TryAgain, r"answers 503 .*\(4 tries\)"),
        ("/broken", RIGHT, TryAgain, r"answers 500 .*\(4 tries\)"),
    ],
)
def test_failures_leave_nothing(server, tmp_path, path, sha256, error, told):
    with pytest.raises(error, match=told) as caught:
        fetch_url(server + path, sha256, tmp_path / "cache")
    assert type(caught.value) is error and list((tmp_path / "cache").iterdir()) == []


def test_a_server_that_sends_another_range_is_not_believed(server, tmp_path):
    with pytest.raises(TryAgain, match="another range"):
        fetch_url(f"{server}/liar", RIGHT, tmp_path)


def test_a_server_that_hangs_or_is_away_is_for_another_try(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "WAITS_S", (0.01,))
    with pytest.raises(TryAgain, match="timed out"):
        fetch_url(f"{server}/hang", RIGHT, tmp_path, timeout_s=0.3)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    with pytest.raises(TryAgain, match="cannot be fetched"):
        fetch_url(f"http://127.0.0.1:{port}/x", RIGHT, tmp_path, timeout_s=2)
    with pytest.raises(BadInput, match="is no address"):
        fetch_url("good.txt", RIGHT, tmp_path)


def test_a_list_comes_in_its_order_a_few_at_a_time(server, tmp_path):
    items = [(f"{server}/{'busy-twice' if n == 3 else 'good'}+wait{n}", RIGHT) for n in range(12)]
    paths = fetch_list(items, tmp_path, at_once=3)
    assert [path.name.split("-", 1)[1] for path in paths] == [url.rsplit("/", 1)[1] for url, _ in items]
    assert all(path.read_bytes() == BODY for path in paths) and 2 <= Handler.most <= 3


def test_the_first_failure_ends_a_list_at_once(server, tmp_path):
    other = hashlib.sha256(b"other").hexdigest()
    items = [(f"{server}/nosuch", RIGHT), *((f"{server}/hang?{n}", other[:-2] + f"{n:02d}") for n in range(8))]
    started = time.monotonic()
    with pytest.raises(BadInput, match="answers 404"):
        fetch_list(items, tmp_path, at_once=2, timeout_s=0.5)
    assert time.monotonic() - started < 5 and sum(Handler.asked.values()) < 9


def test_a_list_as_sha256sum_writes_it(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"# corpus\n{RIGHT}  https://a/x.gz\n\n{RIGHT.upper()} *https://a/y.gz\n{RIGHT}  https://a/x.gz\n")
    assert read_list(path, "k") == [("https://a/x.gz", RIGHT), ("https://a/y.gz", RIGHT.upper())]
    for raw, told in (
        ("numpy==2.0\n", r"line 1 is no SHA-256 and an address: 'numpy==2.0'"),
        ("# nothing\n", "is empty"),
        (f"{RIGHT}\n", "line 1 is no SHA-256"),
    ):
        path.write_text(raw)
        with pytest.raises(BadInput, match=told):
            read_list(path, "k")
    with pytest.raises(BadInput, match=r"There is no list of addresses .* give k.url"):
        read_list(tmp_path / "gone", "k")
