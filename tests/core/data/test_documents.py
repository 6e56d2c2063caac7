"""Document shards: what is written comes back, parts are cut by bytes of text alone, a broken file is named."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from roberta_core.data.documents import (
    BATCH_DOCS,
    SCHEMA,
    Document,
    ShardWriter,
    doc_id,
    read_shards,
    shard_paths,
    text_bytes,
    to_batch,
    write_shards,
)
from roberta_core.errors import BadInput


def some(count: int, size: int = 40) -> list[Document]:
    return [
        Document(f"{number:06d} " + "é" * size, "s", doc_id("s", str(number)), '{"n": 1}') for number in range(count)
    ]


def digests(paths) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_round_trip(tmp_path):
    documents = some(BATCH_DOCS + 10)
    paths = write_shards(iter(documents), tmp_path, shard_mb=64)
    assert [path.name for path in paths] == ["part-00000.arrow"] and shard_paths(tmp_path) == paths
    read = [Document(**row) for batch in read_shards(tmp_path) for row in batch.to_pylist()]
    assert read == documents
    assert next(read_shards(tmp_path)).schema == SCHEMA
    assert next(read_shards(tmp_path, ["doc_id"])).schema.names == ["doc_id"]


def test_parts_hold_at_most_their_budget_and_lose_nothing(tmp_path):
    documents = some(300)
    paths = write_shards(iter(documents), tmp_path, shard_mb=0.002)
    sizes = [
        sum(len(text.encode()) for text in pa.ipc.open_file(path).read_all().column("text").to_pylist())
        for path in paths
    ]
    assert max(sizes) <= 2000 and min(sizes[:-1]) > 2000 - 87
    assert [row["text"] for batch in read_shards(tmp_path) for row in batch.to_pylist()] == [d.text for d in documents]


def test_a_document_larger_than_a_part_has_its_own(tmp_path):
    documents = [Document("a" * 50, "s", "1"), Document("b" * 5000, "s", "2"), Document("c" * 50, "s", "3")]
    assert len(write_shards(iter(documents), tmp_path, shard_mb=0.001)) == 3
    assert [row["doc_id"] for batch in read_shards(tmp_path) for row in batch.to_pylist()] == ["1", "2", "3"]


def test_parts_do_not_depend_on_the_batches_they_came_in_but_for_batch_bounds(tmp_path):
    documents = some(100)
    with ShardWriter(tmp_path / "one", 0.001) as writer:
        writer.write(to_batch(documents))
    with ShardWriter(tmp_path / "two", 0.001) as writer:
        writer.write(to_batch(documents))
    assert digests(shard_paths(tmp_path / "one")) == digests(shard_paths(tmp_path / "two"))


def test_text_bytes_of_a_slice():
    column = pa.array(["a", "éé", "", "xyz"], pa.string())
    np.testing.assert_array_equal(text_bytes(column.slice(1, 3)), [4, 0, 3])


def test_doc_id_hangs_on_source_and_text():
    assert doc_id("a", "x") == doc_id("a", "x") != doc_id("b", "x") != doc_id("b", "y")
    assert len(doc_id("a", "x")) == 32


def test_a_broken_or_missing_folder_is_named(tmp_path):
    with pytest.raises(BadInput, match="nowhere"):
        shard_paths(tmp_path / "nowhere")
    (tmp_path / "part-00000.arrow").write_bytes(b"ARROW1\0\0 cut off")
    with pytest.raises(BadInput, match=r"part-00000\.arrow is not a whole Arrow file"):
        list(read_shards(tmp_path))
