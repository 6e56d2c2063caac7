"""Stages tokenizer and pack from document shards on: a tokenizer learned, taken, continued; every mode of packing; words."""

from pathlib import Path

import numpy as np
import pytest

from roberta_core.atomic import read_json
from roberta_core.data.documents import Document, write_shards
from roberta_core.data.packed import PackedRows
from roberta_core.data.tokenizer import load_tokenizer
from roberta_core.errors import BadInput
from tasks import pack, tokenizer
from tasks.params import Params

WORDS = [
    "model",
    "text",
    "语言",
    "模型",
    "在 北京",
    "训练",
    "data",
    "清华大学",
    "learns",
    "words,",
    "and",
    "is",
    "full",
]


def document(number: int) -> Document:
    rng = np.random.default_rng(number)
    return Document(" ".join(rng.choice(WORDS, rng.integers(1, 120))), "s", f"{number:032x}")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shards([document(number) for number in range(200)], Path("data/shards/train"), 0.02)
    write_shards([document(number) for number in range(200, 220)], Path("data/shards/validation"), 1)
    return tmp_path


def params(**sections) -> Params:
    base = {
        "corpus": {"sources": {"s": {"kind": "files", "path": "s"}}},
        "pretrain": {"max_steps": 1, "batch_size": 1},
        "glue": {"tasks": ["CoLA"]},
        "tokenizer": {"vocab_size": 310},
        "pack": {"max_length": 32},
        "runtime": {"workers": 1},
    }
    return Params.model_validate({**base, **sections})


def test_learned_taken_continued(project):
    told = tokenizer.run(params())
    assert told["vocab_size"] == 310 and told["unknown_share"] == 0 and told["bytes_per_token"] > 1
    Path("models/tokenizer").rename("models/first")
    first = (project / "models/first/tokenizer.json").read_bytes()
    taken = tokenizer.run(
        params(tokenizer={"start": "take", "init": "models/first/tokenizer.json", "vocab_size": 999})
    )
    assert (project / "models/tokenizer/tokenizer.json").read_bytes() == first
    assert taken == {name: value for name, value in told.items() if name != "sample_mb"}
    more = tokenizer.run(params(tokenizer={"start": "continue", "init": "models/first", "vocab_size": 330}))
    assert more["vocab_size"] == 330 and more["kept"] == 310 and more["bytes_per_token"] > told["bytes_per_token"]


def test_what_cannot_be_taken_is_one_line_and_nothing_is_written(project):
    Path("old").mkdir()
    with pytest.raises(BadInput, match=r"old/tokenizer\.json is missing"):
        tokenizer.run(params(tokenizer={"start": "take", "init": "old"}))
    with pytest.raises(ValueError, match="start: continue needs init"):
        params(tokenizer={"start": "continue"})
    assert not Path("models").exists()


@pytest.mark.parametrize("mode", ["full-sentences", "doc-sentences", "best-fit"])
@pytest.mark.parametrize("words", ["bpe", "jieba"])
def test_every_mode_holds_every_token(project, mode, words):
    pytest.importorskip("jieba")
    tokenizer.run(params())
    told = pack.run(params(pack={"mode": mode, "max_length": 32, "word_boundaries": words}))
    rows, numbers = PackedRows("data/packed/train"), np.arange(told["train_rows"])
    ids = rows.rows(numbers)
    learned = load_tokenizer(Path("models/tokenizer"))
    expected = [learned.encode(document(number).text, add_special_tokens=False).ids for number in range(200)]
    assert sorted(ids[ids > 2].tolist()) == sorted(token for each in expected for token in each)
    assert told["train_fill"] == round((ids != 1).mean(), 6) and rows.isolated == (mode == "best-fit")
    assert mode != "best-fit" or told["train_fill"] > 0.97
    starts = rows.word_starts(numbers)
    manifest = read_json(Path("data/packed/train/manifest.json"))
    if words == "bpe":
        assert starts is None and "word_boundaries" not in manifest
    else:
        assert manifest["word_boundaries"] == "jieba" and 0.3 < starts[ids > 2].mean() < 0.9
