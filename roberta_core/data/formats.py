"""Text files into documents: txt, md, jsonl and WikiExtractor, gzip of each, one line at a time.

Every reader takes an open binary file and yields texts with their metadata; what it cannot use it counts in the funnel
under a named reason and goes on. Bytes are decoded strictly, a document at a time: a replacement character would put
noise into the corpus that no later step can see. Nothing but the document under way is held in memory.
"""

import gzip
import html
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from roberta_core.data.funnel import Funnel

MAX_DOCUMENT_BYTES = 8 << 20
"""A txt or md file longer than this is cut at the next blank line: the longest novels stay whole, a dump does not fill
the memory."""

MAX_LINE_BYTES = 64 << 20
"""A longer line is not text but a file without line ends."""

FORMATS = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "md",
    ".markdown": "md",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
META_KEYS = ("id", "url", "title", "author", "date", "lang", "language")
"""Fields of a jsonl line that are kept beside the text, where they are short strings or numbers."""

Texts = Iterator[tuple[str, dict]]

BROKEN_FILE = (OSError, EOFError, zlib.error)
"""What a damaged gzip or an unreadable file raises (gzip.BadGzipFile is an OSError)."""


def unzip(handle: BinaryIO) -> BinaryIO:
    """`handle`, or its content unpacked where its first two bytes are gzip's, whatever the file is called."""
    magic = handle.read(2)
    handle.seek(0)
    return gzip.GzipFile(fileobj=handle) if magic == b"\x1f\x8b" else handle


def detect(name: str, head: bytes) -> str:
    """The format of a file called `name` that begins (unpacked) with `head`; "" when it is none that is known.

    WikiExtractor gives its files no suffix (`wiki_00`) and jsonl files are often called .json: first bytes go first.
    """
    name = name.rsplit("/", 1)[-1].lower().removesuffix(".gz")
    suffix = name[name.rindex(".") :] if "." in name else ""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"<doc "):
        return "wikiextractor"
    if not suffix:
        return "jsonl" if head.startswith(b"{") else "txt"
    if suffix == ".json" and head.startswith(b"["):
        return ""
    return FORMATS.get(suffix, "")


def _lines(handle: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends; a line longer than `MAX_LINE_BYTES` comes in pieces. A byte order mark is left out."""
    line = handle.readline(MAX_LINE_BYTES).removeprefix(b"\xef\xbb\xbf")
    while line:
        yield line
        line = handle.readline(MAX_LINE_BYTES)


def decode(raw: bytes, funnel: Funnel, where: str) -> str | None:
    """Text of strict UTF-8 without NUL; None, and a count in the funnel, where it is neither."""
    if b"\0" in raw:
        funnel.drop("nul_bytes", f"{where}: not a text file, or UTF-16")
        return None
    try:
        return raw.decode("utf8")
    except UnicodeDecodeError as error:
        bad = raw[max(error.start - 20, 0) : error.start + 20]
        funnel.drop("invalid_utf8", f"{where}: byte {error.start}: {bad.decode('utf8', 'backslashreplace')}")
        return None


def read_txt(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "") -> Texts:
    """One document a file (cut at blank lines past `MAX_DOCUMENT_BYTES`, then meta has the number of the piece)."""
    held: list[bytes] = []
    size = piece = 0
    for line in _lines(handle):
        held.append(line)
        size += len(line)
        if size >= MAX_DOCUMENT_BYTES and (not line.strip() or size >= 2 * MAX_DOCUMENT_BYTES):
            text = decode(b"".join(held), funnel, where)
            held, size, piece = [], 0, piece + 1
            if text is not None:
                yield text, {"piece": piece}
    if not held and piece:
        return
    text = decode(b"".join(held), funnel, where)
    if text is not None:
        yield text, {"piece": piece + 1} if piece else {}


_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
_MARKDOWN = [
    (re.compile(r"<!--.*?-->", re.S), ""),
    (re.compile(r"^(```|~~~).*?^\1[`~]*[ \t]*$", re.S | re.M), ""),
    (re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(.*?)[ \t#]*$", re.M), r"\1"),
    (re.compile(r"^[ \t]*([-*_=])(?:[ \t]*\1){2,}[ \t]*$", re.M), ""),
    (re.compile(r"^[ \t]{0,3}>[ \t]?", re.M), ""),
    (re.compile(r"!\[[^\]\n]*\]\([^)\n]*\)"), ""),
    (re.compile(r"\[([^\]\n]+)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"(?<![\w*])(\*\*|__)(?=\S)([^\n]+?)(?<=\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"(?<![\w*])([*_])(?=\S)([^\n]+?)(?<=\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"`([^`\n]+)`"), r"\1"),
]


def plain(markdown: str) -> str:
    """The prose of a markdown text: front matter, code blocks, rules, images and marks out, the words of links kept."""
    text = _FRONT_MATTER.sub("", markdown.replace("\r\n", "\n"))
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return text


def read_md(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "") -> Texts:
    """As `read_txt`, with markdown's marks taken out."""
    for text, meta in read_txt(handle, where, funnel):
        yield plain(text), meta


def read_jsonl(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "text") -> Texts:
    """One document a line: the field `text_field` of a JSON object. Blank lines are no documents."""
    whole = True
    for number, raw in enumerate(_lines(handle), 1):
        place = f"{where}:{number}"
        ended, whole = whole, raw.endswith(b"\n") or len(raw) < MAX_LINE_BYTES
        if not (ended and whole):
            if ended:
                funnel.drop("line_too_long", place)
            continue
        if not raw.strip():
            continue
        line = decode(raw, funnel, place)
        if line is None:
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            funnel.drop("broken_json", f"{place}: {error}: {line[:80]}")
            continue
        if not isinstance(value, dict) or value.get(text_field) is None:
            found = ", ".join(sorted(map(str, value))) if isinstance(value, dict) else f"a {type(value).__name__}"
            funnel.drop("missing_text_field", f"{place}: no {text_field!r} in: {found}")
            continue
        text = value[text_field]
        if not isinstance(text, str):
            funnel.drop("text_not_a_string", f"{place}: {text_field} is a {type(text).__name__}")
            continue
        meta = {
            key: value[key]
            for key in META_KEYS
            if key != text_field and isinstance(value.get(key), str | int) and len(str(value[key])) <= 300
        }
        yield text, meta


_ATTRIBUTE = re.compile(r'(id|url|title)="(.*?)"(?=\s+\w+=|\s*>)')


def read_wikiextractor(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "") -> Texts:
    """One document per `<doc …> … </doc>`: the title, a blank line, the body; HTML entities are put back.

    A document whose body is empty (a redirect) is dropped as `title_only`.
    """
    held: list[bytes] | None = None
    stray, size = False, 0
    for line in _lines(handle):
        size += len(line)
        if line.startswith(b"<doc "):
            size = len(line)
            if held is not None:
                funnel.drop("unclosed_doc", f"{where}: {held[0][:120].decode('utf8', 'backslashreplace')}")
            held = [line]
        elif line.rstrip() == b"</doc>" and held is not None:
            raw, held = b"".join(held), None
            text = decode(raw, funnel, where)
            if text is None:
                continue
            header, _, content = text.partition("\n")
            meta = {key: html.unescape(found) for key, found in _ATTRIBUTE.findall(header)}
            lines = html.unescape(content).strip().split("\n")
            body = "\n".join(lines[1:]).strip()
            if not body:
                funnel.drop("title_only", meta.get("title", header))
                continue
            yield f"{lines[0]}\n\n{body}", meta
        elif held is not None and size > MAX_LINE_BYTES:
            funnel.drop("unclosed_doc", f"{where}: {held[0][:120].decode('utf8', 'backslashreplace')}")
            held, stray = None, True
        elif held is not None:
            held.append(line)
        elif line.strip() and not stray:
            stray = True
            funnel.drop("text_outside_doc", f"{where}: {line[:120].decode('utf8', 'backslashreplace')}")
    if held is not None:
        funnel.drop("unclosed_doc", f"{where}: {held[0][:120].decode('utf8', 'backslashreplace')}")


READERS: dict[str, Callable[[BinaryIO, str, Funnel, str], Texts]] = {
    "txt": read_txt,
    "md": read_md,
    "jsonl": read_jsonl,
    "wikiextractor": read_wikiextractor,
}


def read_file(handle: BinaryIO, where: str, format_name: str, text_field: str, funnel: Funnel) -> Texts:
    """The texts of one open binary file, by format name or "auto", with what was dropped counted in the funnel.

    What was read before a gzip breaks off is kept; the file is counted as `unreadable_file` all the same.
    """
    count = 0
    try:
        content = unzip(handle)
        if format_name == "auto":
            head = content.read(512)
            content.seek(0)
            format_name = detect(where, head)
            if not format_name:
                funnel.drop("unknown_format", f"{where}: set the source's format to read it all the same")
                return
        for text, meta in READERS[format_name](content, where, funnel, text_field):
            if not text or text.isspace():
                funnel.drop("empty", where)
                continue
            try:
                text.encode("utf8")
            except UnicodeEncodeError:
                funnel.drop("lone_surrogate", f"{where}: {text[:80]}")
                continue
            count += 1
            yield text, meta
    except (ConnectionError, TimeoutError):
        raise
    except BROKEN_FILE as error:
        funnel.drop("unreadable_file", f"{where}: {error or type(error).__name__} (after {count} documents)")
