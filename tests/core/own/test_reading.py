"""Tables of a user's task: every format gives the same rows, and every fault one clear line with its file and line."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roberta_core.errors import BadInput
from roberta_core.own.split import contradictory, hold_out, shared
from roberta_core.own.texts import Columns, TextRows, label_names, read_texts, unseen_labels

ONE = Columns(("text",), ("label",))
ROWS = [("good, really", "yes"), ('a "quoted" word', "no"), ("北京 is far", "yes"), ("two\nlines", "no")]


def write(tmp_path, name: str):
    """The same four rows (a tsv holds no line break) in the format that the name asks for."""
    file = tmp_path / name
    plain = name.removesuffix(".gz")
    if plain.endswith((".csv", "semi.csv")):
        mark = ";" if "semi" in plain else ","
        lines = ["label" + mark + "text"]
        lines += ['"{}"{}"{}"'.format(label, mark, text.replace('"', '""')) for text, label in ROWS]
        raw = ("\n".join(lines) + "\n").encode("utf-16" if "utf16" in plain else "utf-8-sig")
    elif plain.endswith(".tsv"):
        raw = (
            ("text\tlabel\r\n" + "".join(f"{text}\t{label}\r\n" for text, label in ROWS))
            .replace("two\nlines", "two lines")
            .encode()
        )
    elif plain.endswith(".parquet"):
        texts, labels = zip(*ROWS)
        pq.write_table(pa.table({"text": texts, "label": labels, "more": [1, 2, 3, 4]}), file)
        raw = file.read_bytes()
    else:
        raw = "".join(json.dumps({"text": text, "label": label, "x": 1}) + "\n" for text, label in ROWS).encode()
    file.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return file


@pytest.mark.parametrize(
    "name", ["a.csv", "a.semi.csv", "a.utf16.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.jsonl.gz", "a.parquet", "a.json"]
)
def test_every_format_gives_the_same_rows(tmp_path, name):
    rows = read_texts(write(tmp_path, name), "classification", ONE)
    expected = [(text.replace("\n", " ") if name.endswith(".tsv") else text,) for text, _ in ROWS]
    assert rows.texts == expected and rows.labels == [label for _, label in ROWS] and rows.notes == []
    assert len(rows.lines) == 4 and rows.lines[0] == (1 if "json" in name or "parquet" in name else 2)
    assert label_names(rows, "classification", tmp_path) == ["no", "yes"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"t\.csv is empty"),
        (b"text,text,label\na,b,c\n", r"t\.csv: 2 columns are called text"),
        (
            b'text,label\na,b\n"c,d\n' + b"e,f\n" * 9,
            r"10 of 11 rows.*t\.csv, line 3: unexpected end of data \(to line 12\)",
        ),
        (b"text,label\n", r"t\.csv has no rows"),
        (b"texts,label\na,b\n", r"no column text \(found: texts, label\).*did you mean texts"),
        (b"text, label\na,b\n", r"Mend text and label: did you mean ' label'\?"),
        (b"text,label\na,b\nc,d,e\nf,g\nh,i,j\n", r"2 of 4 rows.*t\.csv, line 3: 3 fields under 2 names: c \| d \| e"),
        (b'text,label\n"a,b\nc,d\ne,f\n', r"t\.csv, line 2: unexpected end of data"),
        (b"text,label\na\xff,b\n", r"t\.csv, line 2: the bytes are not UTF-8\."),
        ("text,label\na,b\n".encode("utf-16-le"), r"t\.csv, line 1: a NUL byte.*UTF-16 without its mark"),
        (b"text,label\n ,b\n,c\n", r"2 of 2 rows.*t\.csv, line 2, column text \(empty text\)"),
        (b"text,label\na,\nb,\nc,d\n", r"2 of 3 rows cannot be used: .*t\.csv, line 2, column label"),
    ],
)
def test_faults_of_a_table_get_one_line(tmp_path, content, told):
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=told) as raised:
        read_texts(file, "classification", ONE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "mark"), [("old.csv", ","), ("old.tsv", "\t"), ("old.jsonl", "")])
def test_lines_that_end_by_a_carriage_return_and_blank_ones_before_the_names(tmp_path, name, mark):
    file = tmp_path / name
    lines = [json.dumps({"text": text, "label": text}) for text in "ab"]
    file.write_bytes("\r".join(["", f"text{mark}label", f"a{mark}a", f"b{mark}b"] if mark else lines).encode())
    rows = read_texts(file, "classification", ONE)
    assert rows.texts == [("a",), ("b",)] and rows.labels == ["a", "b"] and rows.lines[0] == (3 if mark else 1)


def test_files_that_are_none(tmp_path):
    with pytest.raises(BadInput, match="There is no file"):
        read_texts(tmp_path / "absent.csv", "classification", ONE)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        read_texts(tmp_path / "folder.csv", "classification", ONE)
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(BadInput, match="does not say what it is"):
        read_texts(tmp_path / "a.xlsx", "classification", ONE)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"text,label\n" * 500)[:40])
    with pytest.raises(BadInput, match="cannot be unpacked"):
        read_texts(tmp_path / "cut.csv.gz", "classification", ONE)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BadInput, match="cannot be read"):
        read_texts(tmp_path / "a.parquet", "classification", ONE)


def test_a_list_of_rows_is_told_apart_from_rows(tmp_path):
    file = tmp_path / "t.json"
    file.write_text(json.dumps([{"text": "a", "label": 1}], indent=1))
    with pytest.raises(BadInput, match=r"t\.json is one JSON list"):
        read_texts(file, "classification", ONE)
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps({"text": "t", "label": each}) + "\n" for each in (["a"], [["b"]])))
    assert "[['b']], no list of names" in read_texts(file, "multi-label", ONE).notes[0]


def test_labels_that_are_none(tmp_path):
    file = tmp_path / "t.jsonl"
    for label, told in ((" ", "no label"), ("lone \ud800", "cannot be written")):
        file.write_text("".join(json.dumps({"text": "t", "label": each}) + "\n" for each in ("a", "b", label)))
        for kind in ("classification", "multi-label"):
            if kind == "multi-label" and label == " ":
                continue  # which is none of the labels
            assert told in read_texts(file, kind, ONE).notes[0]


def test_a_slip_costs_one_row_and_is_told(tmp_path):
    file = tmp_path / "t.jsonl"
    lines = [json.dumps({"text": f"text {n}", "label": n % 2}) for n in range(300)]
    lines[7] = "{broken"
    lines[9] = json.dumps({"text": "lone \ud800", "label": 1})
    file.write_text("\n".join(lines))
    rows = read_texts(file, "classification", ONE)
    assert len(rows) == 298 and set(rows.labels) == {"0", "1"}
    assert len(rows.notes) == 2 and "line 8: no JSON" in rows.notes[1] and "line 10, column text" in rows.notes[0]


def test_labels_are_the_same_however_they_are_typed(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps({"text": "t", "label": each}) + "\n" for each in (1, 1.0, "1", True, 10, 2)))
    rows = read_texts(file, "classification", ONE)
    assert rows.labels == ["1", "1", "1", "true", "10", "2"]
    assert label_names(TextRows(rows.texts, ["10", "2", "1"]), "classification", file) == ["1", "2", "10"]
    # as numbers only where all are some; "--" is none, nor is one with more digits than Python reads
    for odd in ("--1", "9" * 5000):
        assert label_names(TextRows([("t",)] * 6, [odd, "1", "2"] * 2), "classification", file)[0] in ("--1", "1")


def test_several_labels_in_a_list_or_in_columns(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text('text,tags\none,"a, b"\nnone,\nlist,"[""b"", ""c""]"\n')
    rows = read_texts(file, "multi-label", Columns(("text",), ("tags",)))
    assert rows.labels == [("a", "b"), (), ("b", "c")] and label_names(rows, "multi-label", file) == ["a", "b", "c"]
    file.write_text("text,toxic,spam\none,1,0\nnone,0,\nboth,true,1\n")
    rows = read_texts(file, "multi-label", Columns(("text",), ("toxic", "spam")))
    assert rows.labels == [("toxic",), (), ("spam", "toxic")]
    file.write_text("text,toxic,spam\none,1,maybe\ntwo,1,0\n")
    rows = read_texts(file, "multi-label", Columns(("text",), ("toxic", "spam")))
    assert len(rows) == 1 and "spam is 'maybe', neither 0 nor 1" in rows.notes[0]


def test_numbers(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("text,label\na,1.5\nb,-2e3\nc,nan\n")
    rows = read_texts(file, "regression", ONE)
    assert rows.labels == [1.5, -2000.0] and "no finite number" in rows.notes[0]
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": 1' + "0" * 400 + "}\n")
    assert "no finite number" in read_texts(file, "regression", ONE).notes[0]
    file.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": -1e31}\n')
    assert "-1e+31, no finite number up to 1e+30" in read_texts(file, "regression", ONE).notes[0]
    with pytest.raises(BadInput, match="every row has the label 3"):
        label_names(TextRows([("a",)] * 3, [3.0] * 3), "regression", file)


def test_a_test_set_may_hide_its_labels(tmp_path):
    for name, content in (("no.csv", "text\na\nb\n"), ("empty.csv", "text,label\na,\nb,\n")):
        (tmp_path / name).write_text(content)
        rows = read_texts(tmp_path / name, "classification", ONE, may_hide=True)
        assert len(rows) == 2 and rows.labels == [] and "hides its labels" in rows.notes[0]
    with pytest.raises(BadInput, match="no column label"):
        read_texts(tmp_path / "no.csv", "classification", ONE)
    with pytest.raises(BadInput, match="no column text"):
        (tmp_path / "other.csv").write_text("words\na\n")
        read_texts(tmp_path / "other.csv", "classification", ONE, may_hide=True)


def test_classes_that_cannot_be_told_apart(tmp_path):
    rows = TextRows([("a",)] * 4, ["x"] * 4, [2, 3, 4, 5])
    with pytest.raises(BadInput, match="every row has the label 'x'"):
        label_names(rows, "classification", tmp_path / "t.csv")
    with pytest.raises(BadInput, match=r"4 different labels in 4 rows.*kind: regression"):
        label_names(TextRows([("a",)] * 4, ["1", "2", "3", "4"]), "classification", tmp_path / "t.csv")
    told = unseen_labels(TextRows([("a",)] * 3, ["x", "z", "z"], [2, 3, 4]), ["x", "y"], tmp_path / "t.csv")
    assert len(told) == 1 and "'z' never occurs in training: 2 rows count as wrong" in told[0] and "line 3" in told[0]
    with pytest.raises(BadInput, match="line 2: the label 'x', like all others"):
        unseen_labels(rows, ["1", "0"], tmp_path / "t.csv")


def test_a_row_stays_on_its_side_when_others_come(tmp_path):
    keys = [f"text {number}" for number in range(3000)]
    first = hold_out(keys, 0.1, "dev", tmp_path)
    assert 220 < sum(first) < 380
    more = hold_out(["new", *keys, "other"], 0.1, "dev", tmp_path)
    assert more[1:-1] == first
    assert hold_out(keys, 0.1, "test", tmp_path) != first
    doubled = hold_out(keys + keys, 0.1, "dev", tmp_path)
    assert doubled[:3000] == doubled[3000:]
    assert sum(hold_out(keys, 1e-9, "dev", tmp_path)) == 1
    assert shared(["a", "b"], ["b", "b", "c"]) == 2


def test_equal_texts_with_different_labels_are_counted_by_rows():
    rows = [("a", "x"), ("b", "x"), ("a", "x"), ("b", "y"), ("c", "z"), ("b", "x")]
    assert contradictory(rows) == (3, "b") and contradictory(rows[:3]) == contradictory([]) == (0, None)


def test_few_groups_come_near_to_the_share(tmp_path):
    keys = [f"article {number // 25}" for number in range(1000)]
    for share, groups in ((0.1, 4), (0.25, 10), (0.001, 1)):
        held = hold_out(keys, share, "dev", tmp_path)
        assert sum(held) == 25 * groups
        assert (
            len({key for key, each in zip(keys, held) if each} & {key for key, each in zip(keys, held) if not each})
            == 0
        )
    assert 0 < sum(hold_out(["a", "b"], 0.99, "dev", tmp_path)) < 2
    with pytest.raises(BadInput, match="cannot be divided"):
        hold_out(["a", "a"], 0.5, "dev", tmp_path)
