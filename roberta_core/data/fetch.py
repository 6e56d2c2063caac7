"""Files from http addresses: checked by SHA-256, tried again, taken up where they broke off, a few at a time.

A file lies under its hash and its own name once it is whole and right; until then under a hidden name beside it. What a
lost connection left there is asked for from its end on (a range request) by the next try, in this run or a later one;
a server that knows no ranges sends the whole again. What comes out is checked against the hash, so a wrong join can
never pass. Two processes that want the same file take turns.
"""

import fcntl
import hashlib
import http.client
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from roberta_core.errors import BadInput, Preempted, TryAgain
from roberta_core.progress import Progress

TIMEOUT_S = 60
"""Seconds without an answer after which a connection counts as lost."""

WAITS_S = (1.0, 3.0, 9.0, 27.0)
"""Seconds before each further try; a server's Retry-After may ask for more, up to the last of them doubled."""

BLOCK = 1 << 20

_LINE = re.compile(r"\s*([0-9A-Fa-f]{64})\s+\*?(\S+)\s*")


class _Again(Exception):
    """A trouble that may pass; `wait_s` is what the server asks for."""

    def __init__(self, told: str, wait_s: float = 0.0):
        super().__init__(told)
        self.wait_s = wait_s


def read_list(path: Path, key: str) -> list[tuple[str, str]]:
    """Addresses and their SHA-256 from a file of lines `sha256  url`, as sha256sum writes them; # begins a comment.

    Raises:
        BadInput: there is no such file, a line is something else, or there is none.
    """
    try:
        lines = Path(path).read_text(encoding="utf8").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(
            f"There is no list of addresses {path}.", f"Set {key}.path to one, or give {key}.url."
        ) from None
    except UnicodeDecodeError:
        raise BadInput(f"The list of addresses {path} is not UTF-8.", "Save it as UTF-8.") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise BadInput(
                f"{path}, line {number} is no SHA-256 and an address: {line.strip()[:80]!r}.",
                f"Give lines such as: 9f86d0…0a08  https://…; or, for a single file, {key}.url and {key}.sha256.",
            )
        found.setdefault(match[2], match[1])
    if not found:
        raise BadInput(f"The list of addresses {path} is empty.", "Give lines such as: 9f86d0…0a08  https://…")
    return list(found.items())


def _size_at(answer, start: int) -> tuple[int, int]:
    """Where the answer begins in the file, and how long the file is in all (0: not told)."""
    told = int(answer.headers.get("Content-Length") or 0)
    if start and getattr(answer, "status", None) == 206:
        match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
        if match and int(match[1]) == start:
            return start, start + told if told else 0
        raise _Again("the server sends another range than was asked for")
    return 0, told


def _digest(file) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _take(
    url: str, sha256: str, out, timeout_s: float, moved: Callable[[int, int], None], stopped: Callable[[], bool]
) -> None:
    """One try: appends to the open file `out` what is missing, and checks the whole.

    Raises:
        _Again: a passing trouble; what came stays in `out` if it can be gone on with.
        BadInput: a trouble that stays.
    """
    start = out.seek(0, os.SEEK_END)
    headers = {"User-Agent": "roberta-pipeline", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s) as answer:
            begin, size = _size_at(answer, start)
            out.seek(begin)
            out.truncate()
            at = begin
            while block := answer.read(BLOCK):
                out.write(block)
                at += len(block)
                moved(at, size)
                if stopped():
                    raise Preempted("The download was stopped.", "Run again to go on.")
            if at < size:
                raise _Again(f"{at} of {size} bytes came")
    except urllib.error.HTTPError as error:
        told = f"answers {error.code} {error.reason}"
        if error.code == 416 and start:
            if _digest(out) == sha256.lower():
                return  # stopped after the last byte, before the file got its name
            out.truncate(0)
            raise _Again(told) from None
        if error.code >= 500 or error.code in (408, 425, 429):
            wait = error.headers.get("Retry-After") or ""
            raise _Again(told, float(wait) if wait.isdigit() else 0.0) from None
        raise BadInput(f"{url} {told}.", "Set the source's url to one that exists and is open to you.") from None
    except (ValueError, http.client.InvalidURL) as error:
        if isinstance(error, BadInput | Preempted):
            raise
        raise BadInput(
            f"{url} is no address: {error}.", "Set the source's url to one that begins with https://"
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Again(f"cannot be fetched: {getattr(error, 'reason', error)}") from None
    found = _digest(out)
    if found != sha256.lower():
        out.truncate(0)
        if begin:
            raise _Again("was put together from two tries and is not right")
        raise BadInput(
            f"{url} has the SHA-256 {found}, not {sha256}.", "Check the file, then set its SHA-256 to its own."
        )


def fetch_url(
    url: str,
    sha256: str,
    folder: Path,
    timeout_s: float = TIMEOUT_S,
    moved: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Path:
    """Brings the file at `url` into `folder` (named by its hash and its own name), unless it is there already.

    Args:
        moved: called with the bytes that are there and those of the whole (0: not known); by default a progress line.
        stopped: asked after each block; true ends the download, which the next one goes on with.

    Raises:
        BadInput: the address answers with an error that will stay (404, 403, …), or the checksum is another.
        TryAgain: no connection, a timeout, a connection cut off, or a server's passing trouble (5xx, 429), again and again.
    """
    name = os.path.basename(urllib.request.url2pathname(urllib.request.urlparse(url).path)) or "download"
    final = Path(folder) / f"{sha256[:16].lower()}-{name}"
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    if moved is None:
        moved = _shown(name)
    partial_file = final.with_name(f".{final.name}.tmp")
    with open(partial_file, "a+b") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        if final.exists():  # another process was quicker
            return final
        try:
            for number, wait in enumerate((*WAITS_S, None)):
                try:
                    _take(url, sha256, out, timeout_s, moved, stopped)
                    break
                except _Again as error:
                    if wait is None:
                        told = f"{url} {error}" if "bytes came" not in str(error) else f"{url} broke off: {error}"
                        raise TryAgain(f"{told} ({number + 1} tries).", "Check the network and try again.") from None
                    _sleep(max(wait, min(error.wait_s, 2 * WAITS_S[-1])), stopped)
                if stopped():
                    raise Preempted("The download was stopped.", "Run again to go on.")
            out.flush()
            os.fsync(out.fileno())
            os.replace(partial_file, final)
        finally:
            if partial_file.exists() and not partial_file.stat().st_size:
                partial_file.unlink()
    return final


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stopped():
        time.sleep(min(left, 0.2))


def _shown(name: str) -> Callable[[int, int], None]:
    """A progress line for one file."""
    lines: list[Progress] = []

    def moved(at: int, size: int) -> None:
        if not lines:
            lines.append(Progress(f"fetching {name}", round(size / 1e6), "MB"))
        lines[0].advance(at // 1_000_000 - lines[0].done)

    return moved


def fetch_list(items: list[tuple[str, str]], folder: Path, at_once: int, timeout_s: float = TIMEOUT_S) -> list[Path]:
    """Brings files by address and SHA-256 into `folder`, at most `at_once` at a time. Returns them in the order of the list.

    The first file that cannot be had ends the others; what came of them stays for the next run.

    Raises:
        BadInput, TryAgain: as `fetch_url`.
    """
    stop = threading.Event()
    progress = Progress("fetching", len(items), "files")
    fetch = partial(fetch_url, folder=folder, timeout_s=timeout_s, moved=lambda at, size: None, stopped=stop.is_set)
    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(fetch, url, sha256) for url, sha256 in items]
        try:
            paths = []
            for each in waiting:
                paths.append(each.result())
                progress.advance()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    progress.finish()
    return paths
