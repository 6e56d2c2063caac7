"""New data costs what is new: a source that is added gives the bytes of a full rebuild, and old shards are not packed again."""

import json
import random
import shutil
from pathlib import Path

import pytest
import yaml

from roberta_core.atomic import digest_of
from tasks import clean, dedup, download, pack, shard, tokenizer
from tasks.params import Params

ROOT = Path(__file__).parents[2]
BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf8"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for name, start, stop in (("old", 0, 400), ("new", 380, 440)):
        rows = [
            " ".join(f"word{drawn}" for drawn in random.Random(number).choices(range(5000), k=100))
            for number in range(start, stop)
        ]
        Path(f"in/{name}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return tmp_path


def params_of(*sources: str) -> Params:
    return Params.model_validate(
        {
            **BASE,
            "corpus": {"sources": {name: {"kind": "files", "path": f"in/{name}.jsonl"} for name in sources}},
            "shard": {"shard_mb": 0.05, "validation_share": 0.1},
            "tokenizer": {"vocab_size": 400},
            "runtime": {"workers": 1},
        }
    )


def per_source(params: Params, *sources: str) -> None:
    for source in sources:
        download.run(params, source)
        clean.run(params, source)


def joins(params: Params) -> dict:
    dedup.run(params)
    shard.run(params)
    return pack.run(params)


def test_the_outcome_is_that_of_a_full_rebuild(here, capsys):
    before, after = params_of("old"), params_of("old", "new")
    per_source(before, "old")
    dedup.run(before)
    shard.run(before)
    tokenizer.run(before)
    pack.run(before)
    packed = {file: digest_of(file) for file in Path("data/packed").glob("*/*.arrow")}
    capsys.readouterr()

    per_source(after, "new")
    told = joins(after)
    said = capsys.readouterr().out
    grown = digest_of(Path("data"))
    same = sum(digest_of(file) == digest for file, digest in packed.items())
    assert f"pack: {same} shards as they were" in said
    assert len(packed) - 2 <= same and len(packed) > 5, "all but the last of each split, which goes on with new text"

    shutil.rmtree("data")
    shutil.rmtree(".work")
    per_source(after, "old", "new")
    assert joins(after) == told and digest_of(Path("data")) == grown
    assert "as they were" not in capsys.readouterr().out


def test_what_is_packed_again_the_same_way_is_linked(here):
    given = params_of("old")
    per_source(given, "old")
    dedup.run(given)
    shard.run(given)
    tokenizer.run(given)
    pack.run(given)
    first = next(Path("data/packed/train").glob("*.arrow"))
    before, number = digest_of(Path("data/packed")), first.stat().st_ino
    shutil.rmtree("data/packed")  # as DVC does before it runs a stage
    pack.run(given)
    assert digest_of(Path("data/packed")) == before and first.stat().st_ino == number
    longer = Params.model_validate({**given.model_dump(), "pack": {"max_length": 64}})
    pack.run(longer)
    assert digest_of(Path("data/packed")) != before and first.stat().st_ino != number
