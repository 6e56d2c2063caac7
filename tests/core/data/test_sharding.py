"""Shards written each by itself have the bytes of those that one writer writes in a row."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from roberta_core.data.documents import Cutter, Document, ShardWriter, open_shard, part_name, to_batch
from roberta_core.data.paragraphs import without_paragraphs
from roberta_core.data.sharding import lay_out, prepare_part, write_shard

SHARD_MB = 0.004


@pytest.fixture
def parts(tmp_path) -> list[Path]:
    """Three parts of several record batches; lines of a to z, some texts of several paragraphs, one larger than a shard."""
    rng, paths = np.random.default_rng(5), []
    for part in range(3):
        paths.append(tmp_path / part_name(part))
        with pa.ipc.new_file(paths[-1], to_batch([]).schema) as writer:
            for batch in range(4):
                lengths = rng.integers(1, 900, 12)
                lengths[0] = 9000 if (part, batch) == (1, 2) else lengths[0]
                texts = ["\n".join([chr(97 + row) * int(length), "é"]) for row, length in enumerate(lengths)]
                writer.write_batch(to_batch([Document(text, "some", f"{part}-{batch}", "{}") for text in texts]))
    return paths


def in_a_row(folder: Path, parts: list[Path], keep: list[np.ndarray], gone: list[dict]) -> list[bytes]:
    """What a single writer makes."""
    with ShardWriter(folder, SHARD_MB) as writer:
        for path, kept, places in zip(parts, keep, gone):
            reader, first = open_shard(path), 0
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                texts = batch.column("text").to_pylist()
                for row in range(len(texts)):
                    if first + row in places:
                        texts[row] = without_paragraphs(texts[row], places[first + row])
                mask = kept[first : first + len(batch)] & np.array([bool(text) for text in texts])
                batch = pa.record_batch([pa.array(texts, pa.string()), *batch.columns[1:]], schema=batch.schema)
                writer.write(batch.filter(pa.array(mask)))
                first += len(batch)
    return [path.read_bytes() for path in writer.paths]


def test_the_bytes_of_one_writer(parts, tmp_path):
    rng = np.random.default_rng(6)
    keep = [rng.random(48) < 0.8 for _ in parts]
    one, both = np.array([0]), np.array([0, 1])
    gone = [{row: both if row % 3 else one for row in range(0, 48, 4 + part) if keep[part][row]} for part in range(3)]
    gone[1] = {}
    (tmp_path / "altered").mkdir()
    made = [
        prepare_part((number, *each), None, tmp_path / "altered") for number, each in enumerate(zip(parts, keep, gone))
    ]
    assert [part.altered is None for part in made] == [False, True, False]
    jobs = [
        (tmp_path / f"{number}.arrow", pieces)
        for number, pieces in enumerate(lay_out([(part, part.keep) for part in made], SHARD_MB))
    ]
    told = [write_shard(job) for job in reversed(jobs)]
    expected = in_a_row(tmp_path / "one", parts, keep, gone)
    assert [file.read_bytes() for file, _ in jobs] == expected and len(expected) > 5
    lost = sum(part.funnel["dropped"].get("repeated_paragraphs_only", 0) for part in made)
    assert sum(documents for documents, _ in told) == sum(map(np.sum, keep)) - lost and lost > 3
    texts = [open_shard(file).read_all().column("text").to_pylist() for file, _ in jobs]
    assert sum(chars for _, chars in told) == sum(len(text) for each in texts for text in each)


def test_nothing_wanted_is_no_shard(parts, tmp_path):
    part = prepare_part((0, parts[0], np.zeros(48, bool), {}), None, tmp_path)
    assert list(lay_out([(part, part.keep)], SHARD_MB)) == []


def test_a_cutter_goes_on_where_it_was():
    cutter = Cutter(0.0001)
    assert list(cutter.cut(np.array([60, 30, 20]))) == [(0, 0, 2), (1, 2, 3)]
    assert list(cutter.cut(np.array([], int))) == []
    assert list(cutter.cut(np.array([80, 1, 500, 1]))) == [(1, 0, 1), (2, 1, 2), (3, 2, 3), (4, 3, 4)]
