"""One folder with everything that goes wrong in text, through the data stages: each thing counted, nothing lost or altered."""

import gzip
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from roberta_core.atomic import read_json
from roberta_core.data.documents import read_shards
from roberta_core.errors import BadInput
from tasks import clean, dedup, download, shard
from tasks.params import Params
from tests.tasks.stage_processes import BASE, ROOT, article

HEBREW = "בראשית ברא אלוהים את השמים ואת הארץ והארץ היתה תהו ובהו וחושך על פני תהום " * 5
ARABIC = "في البدء خلق الله السماوات والأرض وكانت الأرض خربة وخالية وعلى وجه الغمر ظلمة " * 5
EMOJI = "The family \U0001f468‍\U0001f469‍\U0001f467 waved ❤️ at us \U0001f1f3\U0001f1f4, and so on it went. " * 6
FRENCH = "L'été, la forêt était pleine d'oiseaux; où allaient-ils? Ça, personne ne le savait vraiment. " * 5


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    return tmp_path


def params_of(**source) -> Params:
    sources = {"s": {"kind": "files", "path": "in", **source}}
    return Params.model_validate({**BASE, "corpus": {"sources": sources}, "runtime": {"workers": 2}})


def test_everything_at_once(here):
    rows = [{"text": HEBREW}, {"text": ARABIC}, {"text": EMOJI}, {"text": ""}, {"text": " \n\t "}, {"text": None}]
    lines = [json.dumps(row) for row in rows] + ['{"text": "lone \\ud800 one"}', "{broken", '{"text": "nul\\u0000"}']
    Path("in/a.jsonl").write_text("\n".join(lines))
    Path("in/b.txt").write_bytes(FRENCH.encode("utf-16"))
    Path("in/c.txt").write_bytes(FRENCH.encode("latin-1"))
    Path("in/d.txt").write_bytes(b"\0\0\0" * 100)
    Path("in/e.txt").write_bytes(b"")
    Path("in/f.jsonl").write_text("".join(json.dumps({"text": article(number)}) + "\n" for number in range(50)))
    params = params_of(max_bad_share=0.2)
    told = download.run(params, "s")
    assert told == {
        "seen": 63,
        "kept": 55,  # f's fifty, three of right-to-left and emoji, b, and the one with NUL written out
        "chars": told["chars"],
        "dropped_broken_json": 1,
        "dropped_empty": 3,
        "dropped_invalid_utf8": 1,
        "dropped_lone_surrogate": 1,
        "dropped_missing_text_field": 1,
        "dropped_nul_bytes": 1,
    }
    assert told["seen"] == told["kept"] + sum(count for name, count in told.items() if name.startswith("dropped_"))
    for stage in (lambda: clean.run(params, "s"), lambda: dedup.run(params), lambda: shard.run(params)):
        told = stage()
        assert told["seen"] == told["kept"] + sum(count for name, count in told.items() if name.startswith("dropped_"))
    texts = {
        text
        for split in ("train", "validation")
        for batch in read_shards(Path("data/shards") / split, ["text"])
        for text in batch.column("text").to_pylist()
    }
    for text in (HEBREW, ARABIC, EMOJI, FRENCH):
        assert text.strip() in texts
    assert read_json(Path("data/clean/s/funnel.json"))["dropped"] == {"too_short": 1}  # "nul" alone
    # named, the encoding is taken
    Path("in/c.txt").rename("c.txt")
    latin = Params.model_validate(
        {**BASE, "corpus": {"sources": {"s": {"kind": "files", "path": "c.txt", "encoding": "latin-1"}}}}
    )
    assert download.run(latin, "s")["kept"] == 1
    (batch,) = read_shards(Path("data/raw/s"), ["text"])
    assert batch.column("text").to_pylist() == [FRENCH]


def packed(kind: str) -> tuple[str, bytes]:
    """A whole file of many documents, of a kind that can be cut."""
    rows = "".join(json.dumps({"text": article(number)}) + "\n" for number in range(300)).encode()
    if kind == "gz":
        return "x.jsonl.gz", gzip.compress(rows)
    if kind == "zst":
        return "x.jsonl.zst", pa.compress(rows, codec="zstd", asbytes=True)
    if kind == "zip":
        with zipfile.ZipFile("whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.jsonl", rows)
        return "x.zip", Path("whole.zip").read_bytes()
    pq.write_table(pa.table({"text": [article(number) for number in range(300)]}), "whole.parquet")
    return "x.parquet", Path("whole.parquet").read_bytes()


@pytest.mark.parametrize("kind", ["gz", "zst", "zip", "parquet"])
def test_a_file_that_is_cut_stops_its_source_by_name(here, kind):
    Path("in/good.jsonl").write_text(json.dumps({"text": article(1)}))
    name, raw = packed(kind)
    for cut in (len(raw) - 6, len(raw) // 2):
        (Path("in") / name).write_bytes(raw[:cut])
        with pytest.raises(BadInput, match=rf"has a file that cannot be read: {name}"):
            download.run(params_of(max_bad_share=1), "s")
        assert not Path("data/raw/s").exists()
    (Path("in") / name).write_bytes(raw)
    assert download.run(params_of(), "s")["kept"] == 301


@pytest.mark.slow
def test_a_line_of_200_mb_costs_no_memory_and_no_neighbour(here):
    with open("in/long.jsonl", "wb") as out:
        out.write(json.dumps({"text": article(1)}).encode() + b"\n" + b'{"text": "')
        for _ in range(200):
            out.write(b"x" * 1_000_000)
        out.write(b'"}\n' + json.dumps({"text": article(2)}).encode() + b"\n")
    with open("in/words.txt", "wb") as out:
        for number in range(200):
            out.write((article(number) + " ").encode() * 1000)
    params = {
        **BASE,
        "corpus": {"sources": {"s": {"kind": "files", "path": "in", "max_bad_share": 0.5}}},
        "runtime": {"workers": 1},
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for stage in (["tasks.download", "s"], ["tasks.clean", "s"]):
        done = subprocess.run([sys.executable, "-m", *stage], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    told = read_json(Path("metrics/download-s.json"))
    assert told["dropped_line_too_long"] == 1
    written = Path("in/words.txt").stat().st_size
    assert abs(told["chars"] - written) < 3000, "the long line of words came in pieces, and whole"
    for name in ("download-s", "clean-s"):
        assert read_json(Path(f"logs/{name}.timing.json"))["peak_mb"] < 1000
