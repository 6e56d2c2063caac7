"""Formats: what each reader gives, and what it counts instead of giving."""

import gzip
import io
import json

import pytest

from roberta_core.data import lines
from roberta_core.data.formats import detect, plain, read_file
from roberta_core.data.funnel import Funnel


def read(raw: bytes, name: str = "x", format_name: str = "auto", text_field: str = "text"):
    funnel = Funnel()
    return list(read_file(io.BytesIO(raw), name, format_name, text_field, funnel)), funnel


@pytest.mark.parametrize(
    "name, head, expected",
    [
        ("a.txt", b"Hello", "txt"),
        ("a.md", b"# Hello", "md"),
        ("a.jsonl", b'{"text": 1}', "jsonl"),
        ("a.json", b'{"text": 1}', "jsonl"),
        ("a.json", b'[{"text": 1}]', ""),
        ("a.TXT.GZ", b"Hello", "txt"),
        ("AA/wiki_00", b'<doc id="1">', "wikiextractor"),
        ("a.txt", b'\xef\xbb\xbf\n<doc id="1">', "wikiextractor"),
        ("AA/wiki_00", b'{"id": 1}', "jsonl"),
        ("v1.2/README", b"Hello", "txt"),
        ("a.parquet", b"PAR1", "parquet"),
        ("a.csv.zst", b"text,id", "csv"),
        ("dump.xml.bz2", b"<mediawiki xmlns", "mediawiki"),
        ("page", b"<!DOCTYPE html>", "html"),
        ("a.xml", b"<rss>", ""),
        ("a.pdf", b"%PDF", ""),
    ],
)
def test_detect(name, head, expected):
    assert detect(name, head) == expected


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_format_plain_and_gzipped(pack):
    assert read(pack("Grüße\n".encode()), "a.txt")[0] == [("Grüße\n", {})]
    assert read(pack(b"\xef\xbb\xbfHello"), "a.txt")[0] == [("Hello", {})]
    assert read(pack(b"# Title\n\nSee [this](http://x), **now**."), "a.md")[0] == [("Title\n\nSee this, now.", {})]
    assert read(pack(b'{"text": "one", "title": "T", "x": [1]}\n\n{"text": "two"}'), "a.jsonl")[0] == [
        ("one", {"title": "T"}),
        ("two", {}),
    ]
    wiki = b'<doc id="7" url="?curid=7" title="A &quot;B&quot;">\nA "B"\n\nBody &lt;one&gt; &amp; two.\n\n</doc>\n'
    wiki += b'<doc id="8" title="R">\nR\n\n\n</doc>\n'
    texts, funnel = read(pack(wiki), "wiki_00")
    assert texts == [('A "B"\n\nBody <one> & two.', {"id": "7", "url": "?curid=7", "title": 'A "B"'})]
    assert funnel.dropped == {"title_only": 1} and funnel.examples == {"title_only": ["R"]}


def test_bad_jsonl_lines_are_counted_and_the_rest_goes_on():
    lines = [
        b'{"text": "good"}',
        b"{broken",
        b'{"body": "x"}',
        b'["list"]',
        b'{"text": 5}',
        b'{"text": null}',
        b'{"text": "lone \\ud800 surrogate"}',
        b'{"text": "bad \xff byte"}',
        b'{"text": ""}',
        b'{"text": "nul \\u0000 inside"}',
        b"\0\0",
        b'{"text": "last"}',
    ]
    texts, funnel = read(b"\n".join(lines), "a.jsonl")
    assert [text for text, _ in texts] == ["good", "nul \0 inside", "last"]
    assert funnel.dropped == {
        "broken_json": 1,
        "missing_text_field": 3,
        "text_not_a_string": 1,
        "lone_surrogate": 1,
        "invalid_utf8": 1,
        "empty": 1,
        "nul_bytes": 1,
    }
    assert (
        "a.jsonl:3" in funnel.examples["missing_text_field"][0] and "body" in funnel.examples["missing_text_field"][0]
    )
    json.dumps(funnel.to_dict(), ensure_ascii=False).encode("utf8")


def test_an_endless_line_is_dropped_without_being_held(monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    texts, funnel = read(b'{"text": "' + b"x" * 350 + b'"}\n{"text": "next"}\n', "a.jsonl")
    assert [text for text, _ in texts] == ["next"] and funnel.dropped == {"line_too_long": 1}


@pytest.mark.parametrize(
    "raw, reason",
    [(b"a\xff", "invalid_utf8"), ("text".encode("utf-16-le"), "nul_bytes"), (b"", "empty"), (b" \n\n", "empty")],
)
def test_a_bad_text_file_is_dropped_whole(raw, reason):
    texts, funnel = read(raw, "a.txt")
    assert texts == [] and funnel.dropped == {reason: 1} and funnel.seen == 1


def test_an_unknown_format_is_counted_unless_the_format_is_given():
    assert read(b"a,b\n1,2\n", "t.dat")[1].dropped == {"unknown_format": 1}
    assert read(b"a,b\n1,2\n", "t.dat", "txt")[0] == [("a,b\n1,2\n", {})]


def test_a_truncated_gzip_keeps_what_came_before_and_is_counted():
    raw = b"".join(b'{"text": "%d %s"}\n' % (n, bytes(str(n * 7919 % 1013), "ascii") * 20) for n in range(5000))
    texts, funnel = read(gzip.compress(raw)[:-5000], "a.jsonl.gz")
    assert 0 < len(texts) < 5000 and funnel.dropped == {"unreadable_file": 1}
    assert f"after {len(texts)} documents" in funnel.examples["unreadable_file"][0]


def test_a_corrupt_gzip_is_counted():
    packed = bytearray(gzip.compress(bytes(range(256)) * 100))
    packed[20:60] = b"\xff" * 40
    texts, funnel = read(bytes(packed), "a.txt.gz")
    assert texts == [] and funnel.dropped == {"unreadable_file": 1}


def test_a_huge_text_is_cut_at_a_blank_line(monkeypatch):
    monkeypatch.setattr(lines, "MAX_DOCUMENT_BYTES", 1000)
    whole = "\n\n".join(f"paragraph {n} " + "word " * 30 for n in range(40))
    texts, _ = read(whole.encode(), "a.txt")
    assert "".join(text for text, _ in texts) == whole
    assert len(texts) > 3 and all(text.startswith("paragraph") for text, _ in texts)
    assert [meta["piece"] for _, meta in texts] == list(range(1, len(texts) + 1))


@pytest.mark.parametrize("line", ["Grüße an alle 世界 " * 500, "世界" * 1500, "ü" * 4000 + " x" * 20])
def test_an_endless_line_of_text_is_cut_between_words_or_characters(line, monkeypatch):
    monkeypatch.setattr(lines, "MAX_DOCUMENT_BYTES", 1000)
    texts, funnel = read(line.encode(), "a.txt")
    assert "".join(text for text, _ in texts) == line and funnel.dropped == {}
    assert len(texts) > 2 and all(len(text.encode()) <= 3000 for text, _ in texts)


def test_wikiextractor_counts_what_stands_outside_and_what_is_not_closed():
    raw = b'stray\nstray\n<doc id="1" title="A">\nA\n\nnever closed\n<doc id="2" title="B">\nB\n\nbody\n</doc>\n'
    raw += b'<doc id="3" title="C">\nC'
    texts, funnel = read(raw, "wiki_00", "wikiextractor")
    assert [text for text, _ in texts] == ["B\n\nbody"] and funnel.dropped == {
        "text_outside_doc": 1,
        "unclosed_doc": 2,
    }


def test_a_doc_that_never_ends_is_not_held(monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 200)
    raw = b'<doc id="1" title="A">\nA\n' + b"line of text\n" * 100 + b'<doc id="2" title="B">\nB\n\nbody\n</doc>\n'
    texts, funnel = read(raw, "wiki_00")
    assert [text for text, _ in texts] == ["B\n\nbody"] and funnel.dropped == {"unclosed_doc": 1}


def test_plain_markdown():
    marked = "---\ntitle: x\n---\n## A *small* thing ##\n\n> quoted\n\n```py\ncode\n```\n\n---\n"
    marked += "![pic](a.png)2 * 3 * 4 and snake_case_name, `code`."
    assert " ".join(plain(marked).split()) == "A small thing quoted 2 * 3 * 4 and snake_case_name, code."
