"""Tables, pages, dumps and encodings: what each reader gives, and what it counts instead of giving."""

import bz2
import io
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roberta_core.data import lines
from roberta_core.data.formats import read_file
from roberta_core.data.funnel import Funnel
from roberta_core.data.markup import plain_wikitext


def read(raw: bytes, name: str = "x", format_name: str = "auto", text_field: str = "text", encoding: str = "auto"):
    funnel = Funnel()
    return list(read_file(io.BytesIO(raw), name, format_name, text_field, funnel, encoding)), funnel


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_csv_with_quotes_lines_inside_and_any_delimiter(mark):
    raw = f'id{mark}text{mark}title\n1{mark}"one, two\nlines ""quoted"""{mark}T\n\n2{mark}Grüße{mark}\n'.encode()
    assert read(b"\xef\xbb\xbf" + raw, "a.csv")[0] == [
        ('one, two\nlines "quoted"', {"id": "1", "title": "T"}),
        ("Grüße", {"id": "2"}),
    ]


def test_bad_rows_are_counted_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr(lines, "MAX_DOCUMENT_BYTES", 200)
    rows = [
        b"id,text",
        b"1,good",
        b"2",
        b"3,a,b",
        b"4,bad \xff byte",
        b"5,nul \0 byte",
        b"6,",
        b'7,"' + b"x" * 300 + b'"',
    ]
    texts, funnel = read(b"\n".join([*rows, b"8,last"]), "a.csv")
    assert [text for text, _ in texts] == ["good", "last"]
    assert funnel.dropped == {"broken_row": 3, "invalid_utf8": 1, "nul_bytes": 1, "empty": 1}
    assert "a.csv:3: 1 fields under 2 names: 2" in funnel.examples["broken_row"]


def test_a_quote_that_is_never_closed_is_not_held(monkeypatch):
    monkeypatch.setattr(lines, "MAX_DOCUMENT_BYTES", 1000)
    texts, funnel = read(b'text\none\n"open\n' + b"line\n" * 1000 + b"last\n", "a.csv")
    assert texts[0][0] == "one" and texts[-1][0] == "last"
    assert funnel.dropped == {"broken_row": 1} and "to line" in funnel.examples["broken_row"][0]


def test_tsv_takes_quotes_as_they_are():
    raw = b'text\tid\r\nan "open quote\t1\r\nshort\r\nlast\t2'
    texts, funnel = read(raw, "a.tsv")
    assert texts == [('an "open quote', {"id": "1"}), ("last", {"id": "2"})] and funnel.dropped == {"broken_row": 1}


def test_a_table_without_the_column_counts_every_row():
    assert read(b"a,b\n1,2\n3,4\n", "a.csv")[1].dropped == {"missing_text_field": 2}
    table = pa.table({"body": ["x"] * 7})
    for raw, name in zip(tables(table), NAMES):
        funnel = read(raw, name)[1]
        assert funnel.dropped == {"missing_text_field": 7} and funnel.seen == 7
        assert "no 'text' in: body" in funnel.examples["missing_text_field"][0]


NAMES = ("a.parquet", "a.arrow", "a.arrows")


def arrow_bytes(table: pa.Table, opener) -> bytes:
    out = io.BytesIO()
    with opener(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def tables(table: pa.Table) -> list[bytes]:
    """A table as Parquet, as an Arrow file and as an Arrow stream."""
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=100)
    return [out.getvalue(), arrow_bytes(table, pa.ipc.new_file), arrow_bytes(table, pa.ipc.new_stream)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_and_arrow(kind):
    texts = [f"text {n % 50}" for n in range(1000)]
    texts[3], texts[5] = None, " "
    table = pa.table({"text": pa.array(texts, kind), "id": range(1000), "vector": [[1.0]] * 1000})
    expected = [(text, {"id": n}) for n, text in enumerate(texts) if text and text.strip()]
    for raw, name in zip(tables(table), NAMES):
        found, funnel = read(raw, name)
        assert found == expected and funnel.dropped == {"missing_text_field": 1, "empty": 1}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(name, raw)
        assert [text for text, _ in read(packed.getvalue(), "all.zip")[0]] == [text for text, _ in expected]
        assert read(raw[: len(raw) * 2 // 3], name)[1].dropped.get("unreadable_file") == 1


def test_bytes_that_are_no_text_in_a_string_column():
    offsets = pa.array([0, 4, 6, 10], pa.int32()).buffers()[1]
    bad = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"good\xff\xfelast"))
    texts, funnel = read(arrow_bytes(pa.table({"text": bad}), pa.ipc.new_file), "a.arrow")
    assert [text for text, _ in texts] == ["good", "last"] and funnel.dropped == {"invalid_utf8": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_and_32_by_their_mark(encoding):
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    text = "Grüße, 世界 😀.\n" * 5000
    assert read((mark + text).encode(encoding), "a.txt")[0] == [(text, {})]
    rows = mark + '{"text": "ü"}\n{"text": "世"}\n'
    assert [text for text, _ in read(rows.encode(encoding), "a.jsonl")[0]] == ["ü", "世"]
    table = mark + "text,id\nü,1\n"
    assert read(table.encode(encoding), "a.csv")[0] == [("ü", {"id": "1"})]
    assert read((mark + text).encode(encoding)[:-1], "a.txt")[1].dropped == {"unreadable_file": 1}


def test_other_encodings_are_counted_until_they_are_named():
    raw = "naïve café".encode("latin-1")
    assert read(raw, "a.txt")[1].dropped == {"invalid_utf8": 1}
    assert read(raw, "a.txt", encoding="latin-1")[0] == [("naïve café", {})]
    assert read("世界".encode("gb18030"), "a.txt", encoding="gb18030")[0] == [("世界", {})]
    assert "set the source's encoding" in read("text".encode("utf-16-le"), "a.txt")[1].examples["nul_bytes"][0]


PAGE = """<!DOCTYPE html><html><head><meta charset="{charset}"><title>A &amp; B – News</title><script>var x = 1;</script></head>
<body><nav><ul><li><a href="/">Home</a></li><li><a href="/a">About us</a></li></ul></nav>
<article><h1>The café of the town</h1>
<p>The old café at the corner of the market has opened its doors again after a long winter, and everybody came.</p>
<p>Its owner says that she will keep the prices as they were, and that the garden will be open until late at night.</p>
<p>Guests from the whole county, young and old, said that they had waited for this day since the end of summer.</p>
</article><footer><p>Copyright 2026. All rights reserved. Privacy policy. Terms of use.</p></footer></body></html>"""


def test_the_main_text_of_a_page():
    texts, _ = read(PAGE.format(charset="utf-8").encode(), "page.html")
    assert len(texts) == 1
    text, meta = texts[0]
    assert meta == {"title": "A & B – News"}
    assert "old café at the corner" in text and "since the end of summer" in text
    assert not any(noise in text for noise in ("Home", "var x", "rights reserved", "<p>"))
    latin = PAGE.replace("–", "-").format(charset="iso-8859-1").encode("latin-1")
    assert "old café at the corner" in read(latin, "page.htm")[0][0][0]
    assert read(latin.replace(b"iso-8859-1", b"utf-8"), "page.htm")[1].dropped == {"invalid_utf8": 1}


def test_pages_without_text_or_without_end(monkeypatch):
    assert read(b"<html><body></body></html>", "a.html")[1].dropped == {"no_main_text": 1}
    monkeypatch.setattr(lines, "MAX_DOCUMENT_BYTES", 500)
    assert read(b"<html>" + b"x" * 600, "a.html")[1].dropped == {"page_too_long": 1}


WIKITEXT = """{{Infobox person|name=Anna}}
'''Anna Bell''' ({{lang|fr|x}}; born 1900) was a [[poet]] and a [[Paris|Parisian]].<ref>Book, p. 3</ref> She &amp; he won.
[[Datei:a.jpg|thumb|200px|A picture of [[Paris]]]]<!-- hidden -->
== Life ==
* one ''thing''
* two [https://example.org things]
{| class="wikitable"
| cell
|}
== References ==
{{reflist}}
=== Notes ===
[[Category:Poets]]
__NOTOC__
"""
PROSE = "Anna Bell (born 1900) was a poet and a Parisian. She & he won.\n\nLife\n\none thing\ntwo things"


def test_plain_wikitext():
    assert plain_wikitext(WIKITEXT, frozenset({"datei", "category"})) == PROSE


def dump(*pages: str) -> bytes:
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de"><siteinfo><namespaces>'
    head += '<namespace key="6" case="first-letter">Datei</namespace><namespace key="0" /></namespaces></siteinfo>'
    return (head + "".join(pages) + "</mediawiki>").encode()


def page(title: str, text: str, ns: int = 0, more: str = "", model: str = "text/x-wiki") -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    revision = f"<revision><id>9</id><format>{model}</format><text>{text}</text></revision>"
    return f"<page><title>{title}</title><ns>{ns}</ns><id>7</id>{more}{revision}</page>"


PAGES = (
    page("Anna", WIKITEXT),
    page("Talk:Anna", "talk", ns=1),
    page("Ann", "#REDIRECT [[Anna]]", more='<redirect title="Anna" />'),
    page("Empty", "{{stub}}"),
    page("Data", "{}", model="application/json"),
    page("Last", "The last one.") + "\n",
)


@pytest.mark.parametrize("pack", [bytes, bz2.compress])
def test_a_dump(pack):
    texts, funnel = read(pack(dump(*PAGES)), "dewiki-pages-articles.xml.bz2")
    assert texts == [
        ("Anna\n\n" + PROSE, {"id": "7", "title": "Anna"}),
        ("Last\n\nThe last one.", {"id": "7", "title": "Last"}),
    ]
    assert funnel.dropped == {"not_an_article": 1, "redirect": 1, "title_only": 1, "not_wikitext": 1}


def test_a_dump_that_is_broken_or_without_end(monkeypatch):
    whole = dump(*PAGES * 30)
    texts, funnel = read(whole[:-5000], "a.xml")
    assert 0 < len(texts) < 60 and funnel.dropped["unreadable_file"] == 1
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    assert read(bomb + whole, "a.xml", "mediawiki")[1].dropped == {"unreadable_file": 1}
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1 << 18)
    assert len(read(whole, "a.xml")[0]) == 60, "the bound is for one page"
    funnel = read(dump(page("Long", "x" * (1 << 19))), "a.xml")[1]
    assert "a page of more than" in funnel.examples["unreadable_file"][0]


def test_a_dump_is_read_as_a_stream():
    """The first page is there before the rest of the file was read."""
    raw = io.BytesIO(dump(*PAGES * 3000))
    first = next(read_file(raw, "a.xml", "auto", "text", Funnel()))
    assert first[0].startswith("Anna") and raw.tell() < 1 << 19 < len(raw.getvalue())
