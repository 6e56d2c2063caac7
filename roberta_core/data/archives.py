"""Compressed files and archives as plain streams, read in pieces, with a bound on what they may unpack to.

gzip, bzip2, xz and zstd are known by their first bytes, whatever the file is called; tar and zip by theirs. Nothing is
ever written to the disk under a name from an archive, so a name that climbs out of its folder could do no harm here;
it is refused and counted all the same, as are links, because whoever put it there meant ill. A file that breaks off is
an error, never a shorter file: zstd streams must end at a frame, tar archives at their end mark.

What comes out of a file is bounded by `MAX_UNPACKED` and, past `RATIO_FROM`, by `MAX_RATIO` times what went in. Price:
one count for each block that is read.
"""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa

from roberta_core.data.funnel import Funnel

MAX_UNPACKED = 1 << 40
"""Bytes that one file may unpack to."""

RATIO_FROM = 1 << 30
MAX_RATIO = 300
"""Unpacked bytes a packed byte, asked only once `RATIO_FROM` bytes came out: text packs 3 to 10 times, a log of one
line repeated some hundreds; a bomb has 1000 and more."""

SPOOL_BYTES = 64 << 20
"""What needs to be read from its end (zip, parquet) inside a stream that cannot go back is kept in memory up to this."""

BLOCK = 1 << 18

DAMAGED = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,
    pa.ArrowInvalid,
)
"""What a broken file raises (gzip.BadGzipFile and pyarrow's errors of a codec are OSErrors; an unknown way of packing
inside a zip is a NotImplementedError)."""

TAR_MAGIC = slice(257, 262)
HEAD_BYTES = 1024
"""First bytes that tell a format: a tar archive shows itself at byte 257."""


class Bound:
    """Counts the bytes that come out of one file, all layers and members together."""

    def __init__(self, packed: Callable[[], int]):
        self.packed, self.out = packed, 0

    def count(self, size: int) -> None:
        """Adds `size` unpacked bytes.

        Raises:
            OSError: it is more than a file may unpack to.
        """
        self.out += size
        if self.out > MAX_UNPACKED:
            raise OSError(f"it unpacks to more than {MAX_UNPACKED >> 30} GiB")
        if self.out > RATIO_FROM and self.out > MAX_RATIO * max(self.packed(), 1):
            raise OSError(f"it unpacks to more than {MAX_RATIO} times its size: a decompression bomb")


class _Stream(io.RawIOBase):
    """What `inner.read` gives, as a stream that cannot go back; counted against a bound where there is one."""

    def __init__(self, inner, bound: Bound | None = None):
        self.inner, self.bound = inner, bound

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        size = 0
        while size < len(buffer) and (block := self.inner.read(len(buffer) - size)):
            buffer[size : size + len(block)] = block
            size += len(block)
            if self.bound:
                self.bound.count(len(block))
        return size


def stream(inner, bound: Bound | None = None) -> io.BufferedReader:
    """Anything with `read` as a buffered stream whose buffer is full until the end, so that it can be peeked into."""
    return io.BufferedReader(_Stream(inner, bound), BLOCK)


def peek(handle: BinaryIO) -> bytes:
    """The next `HEAD_BYTES` bytes (fewer at the end), not taken: of a `stream`, or of a file that stands at its beginning."""
    if isinstance(handle, io.BufferedReader):
        return handle.peek(HEAD_BYTES)[:HEAD_BYTES]
    head = handle.read(HEAD_BYTES)
    handle.seek(0)
    return head


def _opener(head: bytes) -> Callable | None:
    if head.startswith(b"\x1f\x8b"):
        return lambda handle: gzip.GzipFile(fileobj=handle)
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return bz2.BZ2File
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        # pyarrow's stream says so when a frame breaks off; the usual zstandard reader takes it for the end
        return lambda handle: pa.CompressedInputStream(pa.PythonFile(handle, "r"), "zstd")
    return None


def unpack(handle: BinaryIO, bound: Bound) -> BinaryIO:
    """`handle`, or its content unpacked where its first bytes say that it is compressed."""
    opener = _opener(peek(handle))
    return stream(opener(handle), bound) if opener else handle


def seekable(handle: BinaryIO) -> BinaryIO:
    """`handle`, or a copy of what is left of it (in memory up to `SPOOL_BYTES`, then in a temporary file) that can go back."""
    if handle.seekable():
        return handle
    copy = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 (it lives as long as the reader)
    while block := handle.read(BLOCK):
        copy.write(block)
    copy.seek(0)
    return copy


def archive_kind(head: bytes) -> str:
    """`tar`, `zip`, or "" for what is no archive."""
    if head[TAR_MAGIC] == b"ustar":
        return "tar"
    return "zip" if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) else ""


def _refused(name: str, is_link: bool) -> str:
    """Why a member of an archive is not read: a reason of the funnel, or ""."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or parts[0].endswith(":"):
        return "path_escape"
    return "link_in_archive" if is_link else ""


def _hidden(name: str) -> bool:
    parts = [part for part in name.split("/") if part not in (".", "")]
    return not parts or parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)


def members(
    handle: BinaryIO, kind: str, where: str, funnel: Funnel, bound: Bound
) -> Iterator[tuple[str, io.BufferedReader]]:
    """The files inside an archive, in its order, each as a stream that must be read before the next one is asked for.

    Links and names that climb out (`link_in_archive`, `path_escape`) are counted in the funnel; folders, devices and
    hidden files are passed over.

    Raises:
        One of `DAMAGED`: the archive is broken, or ends before its end mark.
    """
    yield from (_tar if kind == "tar" else _zip)(handle, where, funnel, bound)


def _tar(handle: BinaryIO, where: str, funnel: Funnel, _bound: Bound) -> Iterator[tuple[str, io.BufferedReader]]:
    with tarfile.open(fileobj=handle, mode="r|", bufsize=tarfile.BLOCKSIZE, errorlevel=2) as archive:
        for member in archive:
            if reason := _refused(member.name, member.issym() or member.islnk()):
                funnel.drop(reason, f"{where}/{member.name}")
            elif member.isreg() and not _hidden(member.name):
                yield member.name, stream(archive.extractfile(member))
    # tarfile takes a cut archive, or a header that is broken, for the end: the end mark is two blocks of zeros, of
    # which it reads the first, and nothing but zeros may follow
    rest = handle.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise EOFError("the tar archive ends before its end mark")
    while rest:
        if rest.strip(b"\0"):
            raise OSError("the tar archive is broken, or has another one behind it")
        rest = handle.read(BLOCK)


def _zip(handle: BinaryIO, where: str, funnel: Funnel, bound: Bound) -> Iterator[tuple[str, io.BufferedReader]]:
    with zipfile.ZipFile(seekable(handle)) as archive:
        for member in archive.infolist():
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            if reason := _refused(member.filename, is_link):
                funnel.drop(reason, f"{where}/{member.filename}")
            elif not member.is_dir() and not _hidden(member.filename):
                if member.flag_bits & 1:
                    raise OSError(f"{member.filename} in it is encrypted")
                with archive.open(member) as content:
                    yield member.filename, stream(content, bound)
