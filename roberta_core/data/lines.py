"""What the readers of text formats share: bounded lines, strict decoding, and the metadata that goes along."""

from collections.abc import Iterator
from typing import BinaryIO

from roberta_core.data.funnel import Funnel

MAX_DOCUMENT_BYTES = 8 << 20
"""A txt or md file longer than this is cut at the next blank line: the longest novels stay whole, a dump does not fill
the memory. A page or a field of a table that is longer is left out."""

MAX_LINE_BYTES = 64 << 20
"""A longer line is not text but a file without line ends."""

META_KEYS = ("id", "url", "title", "author", "date", "lang", "language")
"""Fields of a row that are kept beside the text, where they are short strings or numbers."""

Texts = Iterator[tuple[str, dict]]


def lines_of(handle: BinaryIO, limit: int = 0) -> Iterator[bytes]:
    """Lines with their ends; one longer than `limit` bytes (0: `MAX_LINE_BYTES`) comes in pieces. Without a byte order mark."""
    limit = limit or MAX_LINE_BYTES
    line = handle.readline(limit).removeprefix(b"\xef\xbb\xbf")
    while line:
        yield line
        line = handle.readline(limit)


def end_of_word(raw: bytes) -> int:
    """Where text that goes on may be cut: behind its last space, or else before its last character."""
    at = raw.rfind(b" ") + 1
    if not at:
        at = len(raw) - 1
        while at > 0 and raw[at] & 0xC0 == 0x80:  # a byte inside a character
            at -= 1
    return at


def decode(raw: bytes, funnel: Funnel, where: str) -> str | None:
    """Text of strict UTF-8 without NUL; None, and a count in the funnel, where it is neither."""
    if b"\0" in raw:
        funnel.drop("nul_bytes", f"{where}: not a text file, or UTF-16 without a mark: set the source's encoding")
        return None
    try:
        return raw.decode("utf8")
    except UnicodeDecodeError as error:
        bad = raw[max(error.start - 20, 0) : error.start + 20]
        funnel.drop("invalid_utf8", f"{where}: byte {error.start}: {bad.decode('utf8', 'backslashreplace')}")
        return None


def pick_meta(row: dict, text_field: str) -> dict:
    """Those of `META_KEYS` that a row has as short strings or numbers."""
    return {
        key: row[key]
        for key in META_KEYS
        if key != text_field and isinstance(row.get(key), str | int) and len(str(row[key])) <= 300
    }


def usable(row: dict, text_field: str, place: str, funnel: Funnel) -> bool:
    """Whether a row has a string under `text_field`; counts it in the funnel where not."""
    text = row.get(text_field)
    if text is None:
        funnel.drop("missing_text_field", f"{place}: no {text_field!r} in: {', '.join(sorted(map(str, row)))}")
    elif not isinstance(text, str):
        funnel.drop("text_not_a_string", f"{place}: {text_field} is a {type(text).__name__}")
    return isinstance(text, str)
