"""Paragraphs: just those that stand earlier go, as a plain loop finds them, on any number of workers and files."""

import random

import numpy as np
import pytest

from roberta_core.data import paragraphs
from roberta_core.data.corpus import Corpus
from roberta_core.data.documents import Document, write_shards
from roberta_core.data.paragraphs import repeated_paragraphs, without_paragraphs


def corpus_of(texts: list[str], folder, shard_mb: float) -> Corpus:
    paths = write_shards((Document(text, "s", "id") for text in texts), folder, shard_mb)
    counts = [sum(batch.num_rows for batch in _batches(path)) for path in paths]
    return Corpus(paths, [], ["s"] * len(paths), np.concatenate([[0], np.cumsum(counts)]))


def _batches(path):
    from roberta_core.data.documents import open_shard

    reader = open_shard(path)
    return [reader.get_batch(index) for index in range(reader.num_record_batches)]


def plain(texts: list[str], keep: list[bool], min_chars: int) -> list[tuple[int, int]]:
    seen, found = set(), []
    for number, text in enumerate(texts):
        for place, line in enumerate(text.split("\n") if keep[number] else []):
            if len(line) >= min_chars:
                if line in seen:
                    found.append((number, place))
                seen.add(line)
    return found


@pytest.mark.parametrize("workers, partition_bytes", [(1, 1 << 30), (2, 20_000)])
def test_the_same_as_a_plain_loop(tmp_path, monkeypatch, workers, partition_bytes):
    monkeypatch.setattr(paragraphs, "PARTITION_BYTES", partition_bytes)
    rng = random.Random(4)
    lines = [f"line {n} " + "long " * rng.randrange(30) for n in range(150)] + ["", "", "short"]
    texts = ["\n".join(rng.choices(lines, k=rng.randrange(1, 12))) for _ in range(300)]
    keep = [rng.random() < 0.8 for _ in texts]
    corpus = corpus_of(texts, tmp_path / "in", 0.02)
    assert len(corpus.texts) > 5
    found = repeated_paragraphs(corpus, np.array(keep), 30, workers, tmp_path)
    assert found.tolist() == plain(texts, keep, 30) and len(found) > 300
    assert [path.name for path in tmp_path.iterdir()] == ["in"], "temporary files are gone"


def test_no_document_and_none_repeated(tmp_path):
    assert len(repeated_paragraphs(Corpus(), np.zeros(0, bool), 30, 1, tmp_path)) == 0
    corpus = corpus_of(["x" * 200, "x" * 201], tmp_path / "in", 1)
    assert len(repeated_paragraphs(corpus, np.ones(2, bool), 30, 1, tmp_path)) == 0


def test_cutting_leaves_the_normal_form():
    text = "a\n\nb\n\nc\nd\n\ne"
    assert without_paragraphs(text, np.array([2])) == "a\n\nc\nd\n\ne"
    assert without_paragraphs(text, np.array([0, 7])) == "b\n\nc\nd"
    assert without_paragraphs(text, np.array([0, 2, 4, 5, 7])) == ""
