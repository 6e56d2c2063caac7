"""Text files into documents: txt, md, jsonl, WikiExtractor here, tables and markup beside it, compressed or in archives.

Every reader takes an open binary file and yields texts with their metadata; what it cannot use it counts in the funnel
under a named reason and goes on. Bytes are decoded strictly, a document at a time: a replacement character would put
noise into the corpus that no later step can see. Files in UTF-16 or UTF-32 say so by their byte order mark; any other
encoding must be named, because bytes alone do not tell Latin-1 from its neighbours. Nothing but the document under way
is held in memory.
"""

import codecs
import html
import json
import os
import re
from collections.abc import Callable
from typing import BinaryIO

from roberta_core.data import lines
from roberta_core.data.archives import DAMAGED, Bound, archive_kind, members, peek, seekable, stream, unpack
from roberta_core.data.funnel import Funnel
from roberta_core.data.lines import Texts, decode, end_of_word, lines_of, pick_meta, usable
from roberta_core.data.markup import read_html, read_mediawiki
from roberta_core.data.tables import read_arrow, read_csv, read_parquet, read_tsv

FORMATS = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "md",
    ".markdown": "md",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zstd")
ARCHIVES = {".tar": "tar", ".tgz": "tar", ".tbz2": "tar", ".txz": "tar", ".zip": "zip"}
NOT_ARCHIVES = (".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".jar", ".whl", ".apk", ".npz")
"""Zip files that are one document or a program, not a folder of files."""

BINARY = ("parquet", "arrow")
"""Formats that are no text: no byte order mark, no encoding, and they are read from the end."""

MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks; UTF-32's first, because the little one begins as UTF-16's."""


FIRST_BYTES = {
    b"<doc ": "wikiextractor",
    b"<mediawiki": "mediawiki",
    b"<!doctype html": "html",
    b"<html": "html",
    b"par1": "parquet",
    b"arrow1": "arrow",
}
"""First bytes, in lower case, that say more than a name."""


def _suffix(name: str) -> str:
    """`AA/wiki.jsonl.GZ` -> `.jsonl`: the last suffix in lower case, without that of a compression."""
    name = name.rsplit("/", 1)[-1].lower()
    for packed in COMPRESSED:
        name = name.removesuffix(packed)
    return name[name.rindex(".") :] if "." in name else ""


def detect(name: str, head: bytes) -> str:
    """The format of a file called `name` that begins (unpacked) with `head`; "" when it is none that is known.

    WikiExtractor gives its files no suffix (`wiki_00`) and jsonl files are often called .json: first bytes go first.
    """
    suffix = _suffix(name)
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for first, format_name in FIRST_BYTES.items():
        if head[:40].lower().startswith(first):
            return format_name
    if not suffix:
        return "jsonl" if head.startswith(b"{") else "txt"
    if suffix == ".xml":
        return "mediawiki" if b"<mediawiki" in head else ""
    if suffix == ".json" and head.startswith(b"["):
        return ""
    return FORMATS.get(suffix, "")


def read_txt(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "") -> Texts:
    """One document a file (cut at blank lines past `MAX_DOCUMENT_BYTES`, then meta has the number of the piece)."""
    held: list[bytes] = []
    size = piece = 0
    for line in lines_of(handle, 2 * lines.MAX_DOCUMENT_BYTES):
        held.append(line)
        size += len(line)
        if size >= lines.MAX_DOCUMENT_BYTES and (not line.strip() or size >= 2 * lines.MAX_DOCUMENT_BYTES):
            raw = b"".join(held)
            cut = len(raw) if line.endswith(b"\n") else end_of_word(raw)
            held, size, piece = [raw[cut:]] if cut < len(raw) else [], len(raw) - cut, piece + 1
            text = decode(raw[:cut], funnel, where)
            if text is not None:
                yield text, {"piece": piece}
    if not held and piece:
        return
    text = decode(b"".join(held), funnel, where)
    if text is not None:
        yield text, {"piece": piece + 1} if piece else {}


_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_FENCE = re.compile(r"^(```|~~~).*?^\1[`~]*[ \t]*$", re.S | re.M)
_BLOCK_MARKS = [
    (re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(.*?)[ \t#]*$"), r"\1"),
    (re.compile(r"^[ \t]*([-*_=])(?:[ \t]*\1){2,}[ \t]*$"), ""),
    (re.compile(r"^[ \t]{0,3}>[ \t]?"), ""),
]
_INLINE_MARKS = [
    (re.compile(r"!\[[^\]\n]*\]\([^)\n]*\)"), ""),
    (re.compile(r"\[([^\]\n]+)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"(?<![\w*])(\*\*|__)(?=\S)([^\n]+?)(?<=\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"(?<![\w*])([*_])(?=\S)([^\n]+?)(?<=\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"`([^`\n]+)`"), r"\1"),
]
_INLINE = re.compile(r"[*_`\[]")


def _plain_line(line: str) -> str:
    """One line without its marks. The tests before the patterns are for speed: most lines have no mark."""
    first = line.lstrip(" \t")[:1]
    if first and first in "#>-*_=":
        for pattern, replacement in _BLOCK_MARKS:
            line = pattern.sub(replacement, line)
    if _INLINE.search(line):
        for pattern, replacement in _INLINE_MARKS:
            line = pattern.sub(replacement, line)
    return line


def plain(markdown: str) -> str:
    """The prose of a markdown text: front matter, code blocks, rules, images and marks out, the words of links kept."""
    text = _FRONT_MATTER.sub("", markdown.replace("\r\n", "\n"))
    if "<!--" in text:
        text = _COMMENT.sub("", text)
    if "```" in text or "~~~" in text:
        text = _FENCE.sub("", text)
    return "\n".join(map(_plain_line, text.split("\n")))


def read_md(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "") -> Texts:
    """As `read_txt`, with markdown's marks taken out."""
    for text, meta in read_txt(handle, where, funnel):
        yield plain(text), meta


def read_jsonl(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "text") -> Texts:
    """One document a line: the field `text_field` of a JSON object. Blank lines are no documents."""
    whole = True
    for number, raw in enumerate(lines_of(handle), 1):
        place = f"{where}:{number}"
        ended, whole = whole, raw.endswith(b"\n") or len(raw) < lines.MAX_LINE_BYTES
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
        if not isinstance(value, dict):
            funnel.drop("missing_text_field", f"{place}: no {text_field!r} in: a {type(value).__name__}")
            continue
        if usable(value, text_field, place, funnel):
            yield value[text_field], pick_meta(value, text_field)


_ATTRIBUTE = re.compile(r'(id|url|title)="(.*?)"(?=\s+\w+=|\s*>)')


def read_wikiextractor(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "") -> Texts:
    """One document per `<doc …> … </doc>`: the title, a blank line, the body; HTML entities are put back.

    A document whose body is empty (a redirect) is dropped as `title_only`.
    """
    held: list[bytes] | None = None
    stray, size = False, 0
    for line in lines_of(handle):
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
            inside = html.unescape(content).strip().split("\n")
            body = "\n".join(inside[1:]).strip()
            if not body:
                funnel.drop("title_only", meta.get("title", header))
                continue
            yield f"{inside[0]}\n\n{body}", meta
        elif held is not None and size > lines.MAX_LINE_BYTES:
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
    "html": read_html,
    "mediawiki": read_mediawiki,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
    "arrow": read_arrow,
}


class _Recoded:
    """Text in another encoding, read as UTF-8."""

    def __init__(self, inner: BinaryIO, encoding: str):
        self.inner, self.decoder, self.left = inner, codecs.getincrementaldecoder(encoding)(), b""

    def read(self, size: int) -> bytes:
        while not self.left:
            block = self.inner.read(size)
            self.left = self.decoder.decode(block, final=not block).encode("utf8")
            if not block:
                break
        block, self.left = self.left[:size], self.left[size:]
        return block


def _read(
    content: BinaryIO, where: str, format_name: str, text_field: str, encoding: str, funnel: Funnel, bound: Bound
) -> Texts:
    """The texts of an unpacked file that is no archive."""
    head = peek(content)
    if format_name == "auto":
        marked = next((name for mark, name in MARKS.items() if head.startswith(mark)), "")
        format_name = detect(where, head.decode(marked, "ignore").encode() if marked else head)
        if not format_name:
            funnel.drop("unknown_format", f"{where}: set the source's format to read it all the same")
            return
    if format_name in BINARY:
        for text, meta in READERS[format_name](seekable(content), where, funnel, text_field):
            bound.count(len(text))
            yield text, meta
        return
    if encoding == "auto":
        encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8")
    if codecs.lookup(encoding).name != "utf-8":
        content = stream(_Recoded(content, encoding))
    yield from READERS[format_name](content, where, funnel, text_field)


def _read_all(
    handle: BinaryIO, where: str, format_name: str, text_field: str, encoding: str, funnel: Funnel, bound: Bound
) -> Texts:
    """The texts of a file, unpacked, and of an archive's files one after the other."""
    if where.lower().endswith(COMPRESSED) and len(peek(handle)) < 6:
        raise EOFError("it is cut off in its first bytes")
    content = unpack(handle, bound)
    kind = archive_kind(peek(content)) or ARCHIVES.get(_suffix(where), "")
    if not kind or (kind == "zip" and _suffix(where) in NOT_ARCHIVES):
        yield from _read(content, where, format_name, text_field, encoding, funnel, bound)
        return
    for name, member in members(content, kind, where, funnel, bound):
        place = f"{where}/{name}"
        inner = unpack(member, bound)
        if archive_kind(peek(inner)) and _suffix(name) not in NOT_ARCHIVES:
            funnel.drop("nested_archive", f"{place}: an archive inside an archive")
            continue
        for text, meta in _read(inner, place, format_name, text_field, encoding, funnel, bound):
            yield text, meta | {"member": name}


def read_file(
    handle: BinaryIO, where: str, format_name: str, text_field: str, funnel: Funnel, encoding: str = "auto"
) -> Texts:
    """The texts of one open binary file, by format name or "auto", with what was dropped counted in the funnel.

    Compressed files are unpacked and archives (tar, zip) opened; documents of an archive have its `member` in their meta.
    `encoding` "auto" is UTF-8, or UTF-16 or UTF-32 where a byte order mark says so; else a name that Python knows.
    What was read before a file breaks off is kept; the file is counted as `unreadable_file` all the same.
    """
    count = 0
    try:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(0)
        for text, meta in _read_all(handle, where, format_name, text_field, encoding, funnel, Bound(lambda: size)):
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
    except (*DAMAGED, UnicodeDecodeError) as error:
        funnel.drop("unreadable_file", f"{where}: {error or type(error).__name__} (after {count} documents)")
