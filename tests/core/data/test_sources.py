"""Sources: files and folders, and a dataset that `datasets` opens here."""

import gzip
import json

import pytest

from roberta_core.atomic import digest_of
from roberta_core.data import sources
from roberta_core.data.documents import read_shards
from roberta_core.data.funnel import Funnel
from roberta_core.data.sources import Files, fetch_files, list_files, read_hub
from roberta_core.errors import BadInput

KEY = "corpus.sources.x"


def texts_in(folder) -> list[str]:
    return [text for batch in read_shards(folder, ["text"]) for text in batch.column("text").to_pylist()]


def fetch(root, folder, workers=1, max_docs=0, part_mb=sources.PART_MB, **files):
    folder.mkdir()
    return fetch_files(Files(str(root), **files), "x", folder, max_docs, workers, KEY, part_mb)


@pytest.fixture
def mixed(tmp_path):
    """A folder with a file of each kind, names with spaces and accents, and something hidden."""
    root = tmp_path / "in [1]"
    (root / "Émile Zola").mkdir(parents=True)
    (root / "Émile Zola" / "A Book.md").write_text("# Title\n\nText of the book.", encoding="utf8")
    (root / "b.txt.gz").write_bytes(gzip.compress(b"packed text"))
    (root / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (root / "wiki_00").write_text('<doc id="1" title="T">\nT\n\nBody.\n</doc>\n')
    (root / "table.dat").write_text("a,b\n")
    (root / ".hidden").write_text("not read")
    return root


def test_a_folder_of_everything(mixed, tmp_path):
    funnel = fetch(mixed, tmp_path / "out")
    assert texts_in(tmp_path / "out") == ["one", "two", "packed text", "T\n\nBody.", "Title\n\nText of the book."]
    assert (funnel.seen, funnel.kept, funnel.dropped) == (6, 5, {"unknown_format": 1})
    rows = [row for batch in read_shards(tmp_path / "out") for row in batch.to_pylist()]
    assert json.loads(rows[-1]["meta"]) == {"file": "Émile Zola/A Book.md"} and {row["source"] for row in rows} == {
        "x"
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["part-00000.arrow"]


def test_one_file_a_pattern_and_a_limit(mixed, tmp_path):
    fetch(mixed / "a.jsonl", tmp_path / "one")
    assert texts_in(tmp_path / "one") == ["one", "two"]
    fetch(mixed, tmp_path / "two", pattern="*.md")
    assert texts_in(tmp_path / "two") == ["Title\n\nText of the book."]
    assert fetch(mixed, tmp_path / "three", max_docs=3).kept == 3 and len(texts_in(tmp_path / "three")) == 3


def test_the_bytes_do_not_depend_on_the_workers(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for number in range(12):
        (root / f"{number:02d}.jsonl").write_text(
            "".join(f'{{"text": "{number} {line} {"x" * 100}"}}\n' for line in range(40))
        )
    fetch(root, tmp_path / "one", workers=1, part_mb=0.01)
    fetch(root, tmp_path / "two", workers=2, part_mb=0.01)
    assert len(list((tmp_path / "one").iterdir())) > 3
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two")
    assert texts_in(tmp_path / "one")[:2] == ["0 0 " + "x" * 100, "0 1 " + "x" * 100]


def test_what_is_not_there_is_named_with_its_key(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("x")
    for files, told in (
        (Files(str(tmp_path / "nowhere")), "There is no file or folder .*nowhere. Set corpus.sources.x.path"),
        (
            Files(str(tmp_path / "empty")),
            "The folder .*empty holds no file. Put text there, or set corpus.sources.x.path",
        ),
        (
            Files(str(tmp_path / "full"), pattern="*.md"),
            r"No file under .*full matches \*.md. Mend corpus.sources.x.pattern",
        ),
        (Files("nosuch://bucket/x"), "fsspec cannot open"),
    ):
        with pytest.raises(BadInput, match=told):
            list_files(files, KEY)


def test_unreadable_files_are_counted_by_name(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    (root / "bad.txt.gz").write_bytes(gzip.compress(b"some text that is cut" * 50)[:-20])
    (root / "gone.txt").symlink_to(root / "nowhere")
    (root / "good.txt").write_text("good")
    funnel = fetch(root, tmp_path / "out")
    assert texts_in(tmp_path / "out") == ["good"]
    assert funnel.dropped == {"unreadable_file": 2}
    assert [example.split(":")[0] for example in funnel.examples["unreadable_file"]] == ["bad.txt.gz", "gone.txt"]


def test_any_storage_that_fsspec_opens(tmp_path):
    import fsspec

    storage = fsspec.filesystem("memory")
    storage.pipe("/corpus/b/two.txt", b"second")
    storage.pipe("/corpus/a.jsonl.gz", gzip.compress(b'{"text": "first"}\n'))
    fetch("memory://corpus", tmp_path / "out")
    assert texts_in(tmp_path / "out") == ["first", "second"]
    fetch("memory://corpus/b/two.txt", tmp_path / "one")
    assert texts_in(tmp_path / "one") == ["second"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_by_name(tmp_path, streaming, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    rows = [
        {"body": "one", "title": "T"},
        {"body": None, "title": ""},
        {"body": " ", "title": ""},
        {"body": "two", "title": "U"},
    ]
    (tmp_path / "set" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name, funnel = str(tmp_path / "set"), Funnel()
    documents = list(read_hub(name, "", "train", "main", streaming, "body", "x", funnel))
    assert [(document.text, document.meta) for document in documents] == [
        ("one", '{"title": "T"}'),
        ("two", '{"title": "U"}'),
    ]
    assert funnel.dropped == {"missing_text_field": 1, "empty": 1} and funnel.seen == 4
    with pytest.raises(BadInput, match="has no column text; it has: body, title"):
        list(read_hub(name, "", "train", "main", streaming, "text", "x", Funnel()))
    with pytest.raises(BadInput, match="cannot be opened"):
        list(read_hub(name, "", "nosuch", "main", streaming, "body", "x", Funnel()))
