"""HTML pages and MediaWiki dumps into plain text, by libraries that know the markup.

A page of HTML is a document: its main text, without menus, footers and comments, by trafilatura. A dump is read as a
stream of pages, each parsed by mwparserfromhell: words of links and formatting stay; templates, tables, references,
pictures and categories go, because what they stand for is not in the dump or is no prose. Price: on one core about
1 MB/s of HTML and 1 to 2 MB/s of wikitext.
"""

import re
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from roberta_core.data import lines
from roberta_core.data.funnel import Funnel
from roberta_core.data.lines import Texts, decode

# -- HTML ---------------------------------------------------------------------------------------------------------------

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.I | re.S)


def _decode_page(raw: bytes, where: str, funnel: Funnel) -> str | None:
    """A page in UTF-8, or else in the encoding that it names in its head; None, and a count, where it is in neither."""
    declared = _CHARSET.search(raw[:4096])
    if declared and b"\0" not in raw:
        try:
            raw.decode("utf8")
        except UnicodeDecodeError:
            try:
                return raw.decode(declared.group(1).decode("ascii"))
            except (LookupError, ValueError):
                pass
    return decode(raw, funnel, where)


def read_html(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "") -> Texts:
    """One document a page. Pages without a main text are counted as `no_main_text`."""
    import html

    import trafilatura

    raw = handle.read(lines.MAX_DOCUMENT_BYTES + 1).removeprefix(b"\xef\xbb\xbf")
    if len(raw) > lines.MAX_DOCUMENT_BYTES:
        funnel.drop("page_too_long", f"{where}: more than {lines.MAX_DOCUMENT_BYTES >> 20} MB of HTML")
        return
    page = _decode_page(raw, where, funnel)
    if page is None:
        return
    title = _TITLE.search(page[:100_000])
    text = trafilatura.extract(page, include_comments=False, include_tables=False) if page.strip() else None
    if not text:
        funnel.drop("no_main_text", f"{where}: {page[:100]}")
        return
    meta = {"title": " ".join(html.unescape(title.group(1)).split())[:300]} if title else {}
    yield text, meta


# -- MediaWiki ----------------------------------------------------------------------------------------------------------

MEDIA = frozenset({"file", "image", "media", "category"})
"""Prefixes of links that show no words, in every wiki; a dump's head names those of its own language."""

MEDIA_KEYS = ("-2", "6", "14")
"""Numbers of these namespaces: Media, File, Category."""

# fmt: off
_UNSEEN = frozenset({
    "ref", "references", "table", "gallery", "math", "chem", "timeline", "score", "syntaxhighlight", "source", "code", "pre",
    "graph", "mapframe", "maplink", "templatestyles", "style", "imagemap", "hiero", "inputbox", "categorytree", "section",
    "noinclude", "includeonly",
})
# fmt: on
_BREAKS = frozenset({"br", "hr", "li", "dd", "dt", "p", "div", "blockquote", "poem"})
_HEADING = "\x01"
_QUOTES = re.compile("'{2,5}")
_SWITCH = re.compile(r"__[A-ZÀ-ÞА-Я]{3,}__")
_EMPTY_BRACKETS = re.compile(r"[ ]?[(（][\s,;:、，；]*[)）]")
_BRACKET_START = re.compile(r"([(（])[\s,;:、，；]+")


def _render(code, media: frozenset[str], out: list[str]) -> None:
    """Appends the words of parsed wikitext to `out`; a heading is a line that begins with its level in `_HEADING`s."""
    from mwparserfromhell import nodes

    for node in code.nodes:
        if isinstance(node, nodes.Text):
            out.append(node.value)
        elif isinstance(node, nodes.Wikilink):
            title = str(node.title).strip()
            prefix = title.partition(":")[0].strip().lower() if ":" in title else ""
            if prefix in media:
                continue
            if node.text is None:
                out.append(title.lstrip(":"))
            else:
                _render(node.text, media, out)
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                _render(node.title, media, out)
        elif isinstance(node, nodes.Tag):
            name = str(node.tag).strip().lower()
            if name in _UNSEEN:
                continue
            if name in _BREAKS and not (out and out[-1].endswith("\n")):
                out.append("\n")
            if node.contents is not None:
                _render(node.contents, media, out)
        elif isinstance(node, nodes.Heading):
            out.append("\n\n" + _HEADING * node.level)
            _render(node.title, media, out)
            out.append("\n\n")
        elif isinstance(node, nodes.HTMLEntity):
            out.append(node.normalize())


def plain_wikitext(wikitext: str, media: frozenset[str] = MEDIA) -> str:
    """The prose of a page of wikitext. Headings under which nothing is left go too."""
    import mwparserfromhell

    out: list[str] = []
    _render(mwparserfromhell.parse(wikitext, skip_style_tags=True), media, out)
    # what a template said in brackets is gone: "(; born 1900)", "()"
    text = _EMPTY_BRACKETS.sub("", _SWITCH.sub("", _QUOTES.sub("", "".join(out))))
    text = _BRACKET_START.sub(r"\1", text)
    kept: list[str] = []
    below = (
        0  # level of the heading that stands next, from the end; 0: prose; 1 at the end: any heading is empty there
    )
    ended = True
    for line in reversed([line.strip() for line in text.split("\n")]):
        level = len(line) - len(line.lstrip(_HEADING))
        if level and (ended or 0 < below <= level):
            continue
        kept.append(line[level:].strip())
        if line:
            below, ended = level, False
    return re.sub(r"\n{3,}", "\n\n", "\n".join(reversed(kept))).strip()


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _child(element: Element, name: str) -> str:
    return next((each.text or "" for each in element if _name(each) == name), "")


def _page(page: Element, media: frozenset[str], where: str, funnel: Funnel) -> Texts:
    title = _child(page, "title")
    if _child(page, "ns") not in ("", "0"):
        funnel.drop("not_an_article", title)
        return
    if any(_name(each) == "redirect" for each in page):
        funnel.drop("redirect", title)
        return
    revisions = [each for each in page if _name(each) == "revision"]
    if not revisions or _child(revisions[-1], "format") not in ("", "text/x-wiki"):
        funnel.drop("not_wikitext", title)
        return
    body = plain_wikitext(_child(revisions[-1], "text"), media)
    if not body:
        funnel.drop("title_only", title)
        return
    yield f"{title}\n\n{body}", {"id": _child(page, "id"), "title": title[:300]}


def read_mediawiki(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "") -> Texts:
    """One document an article of an XML dump (pages-articles): the title, a blank line, the prose.

    Talk and other namespaces, redirects and pages without prose are counted (`not_an_article`, `redirect`, `title_only`).

    Raises:
        OSError: the XML is broken, breaks off, declares entities, or has a page of more than `MAX_LINE_BYTES`.
    """
    parser = XMLPullParser(("start", "end"))
    media, root, size = MEDIA, None, 0
    try:
        while True:
            block = handle.read(1 << 16)
            if b"<!DOCTYPE" in block and root is None:
                raise OSError("the XML declares a document type, which no dump does")
            size += len(block)
            if block:
                parser.feed(block)
            else:
                parser.close()
            for event, element in parser.read_events():
                if root is None:
                    root = element
                if event == "start":
                    continue
                if _name(element) == "namespace" and element.get("key") in MEDIA_KEYS and element.text:
                    media |= {element.text.strip().lower()}
                elif _name(element) == "page":
                    yield from _page(element, media, where, funnel)
                    root.clear()
                    size = 0
            if size > lines.MAX_LINE_BYTES:
                raise OSError(f"a page of more than {lines.MAX_LINE_BYTES >> 20} MB")
            if not block:
                return
    except ParseError as error:
        raise OSError(f"broken XML: {error}") from None
