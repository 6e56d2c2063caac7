"""Packing: every token of every document once and in order, and boundaries that are right."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.atomic import write_json
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import BOS, EOS, PAD, write_packed
from roberta_core.errors import BadInput

VOCAB = 1000
documents = st.lists(st.lists(st.integers(4, VOCAB - 2), max_size=60), max_size=25)


def pack(tmp_path, docs, mode, length, batch=4):
    arrays = [np.array(doc, np.uint16) for doc in docs]
    counts = write_packed(
        iter([arrays[at : at + batch] for at in range(0, len(arrays), batch)]),
        tmp_path / "part-00000.arrow",
        mode,
        length,
        VOCAB,
    )
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "part-00000.arrow"))).read_all()
    return counts, table.column("input_ids").to_pylist(), table.column("doc_starts").to_pylist()


def unpack(rows, starts):
    """The documents that the rows hold, by the boundaries alone."""
    found = []
    for row, begins in zip(rows, starts):
        assert row[0] == BOS
        body = [token for token in row[1:] if token != PAD]
        assert body[-1] == EOS and PAD not in row[: len(body) + 1]
        for place, token in enumerate(body[:-1], 1):
            if place in begins:
                found.append([])
            if token != EOS:
                found[-1].append(token)
    return found


@settings(max_examples=80, deadline=None)
@given(docs=documents, length=st.integers(16, 24), mode=st.sampled_from(["full-sentences", "doc-sentences"]))
def test_every_token_once_in_order(tmp_path_factory, docs, length, mode):
    counts, rows, starts = pack(tmp_path_factory.mktemp("p"), docs, mode, length)
    kept = [doc for doc in docs if doc]
    assert unpack(rows, starts) == kept
    assert counts == {
        "documents": len(kept),
        "tokens": sum(map(len, kept)),
        "rows": len(rows),
        "padding": sum(row.count(PAD) for row in rows),
    }
    assert all(len(row) == length for row in rows)
    if mode == "full-sentences":
        assert all(PAD not in row for row in rows[:-1])  # only the last row of a shard is padded
    else:
        assert all(len(begins) <= 1 for begins in starts) and all(EOS not in row[:-1] or PAD in row for row in rows)


def test_documents_are_joined_by_one_separator(tmp_path):
    _, rows, starts = pack(tmp_path, [[10, 11], [12]], "full-sentences", 16)
    assert rows == [[BOS, 10, 11, EOS, 12, EOS] + [PAD] * 10] and starts == [[1, 4]]


def test_batches_do_not_change_the_rows(tmp_path):
    docs = [list(range(4, 4 + n)) for n in (3, 50, 1, 0, 17, 29)]
    one, many = (pack(tmp_path, docs, "full-sentences", 16, batch) for batch in (1, 6))
    assert one == many


def test_opens_in_datasets(tmp_path):
    from datasets import Dataset

    _, rows, _ = pack(tmp_path, [[10, 11, 12]], "full-sentences", 16)
    table = pa.ipc.open_file(str(tmp_path / "part-00000.arrow")).read_all()
    assert Dataset(table)[0]["input_ids"] == rows[0]


def test_reader_gives_rows_by_number_across_files(tmp_path):
    rng = np.random.default_rng(1)
    expected = []
    for part in range(3):
        docs = [rng.integers(4, VOCAB - 1, 40).astype(np.uint16) for _ in range(5 + part)]
        write_packed(iter([docs]), tmp_path / f"part-{part:05d}.arrow", "doc-sentences", 16, VOCAB)
        expected += (
            pa.ipc.open_file(str(tmp_path / f"part-{part:05d}.arrow")).read_all().column("input_ids").to_pylist()
        )
    write_json(tmp_path / "manifest.json", {})
    rows = PackedRows(tmp_path)
    order = rng.permutation(len(expected))
    assert rows.rows(order).tolist() == [expected[number] for number in order]


def test_large_vocabulary_takes_uint32(tmp_path):
    write_packed(iter([[np.array([70000, 5], np.uint32)]]), tmp_path / "part-00000.arrow", "full-sentences", 16, 70005)
    write_json(tmp_path / "manifest.json", {})
    assert PackedRows(tmp_path).rows(np.array([0]))[0, 1] == 70000


def test_missing_and_damaged_rows_get_one_line(tmp_path):
    with pytest.raises(BadInput, match="no packed rows"):
        PackedRows(tmp_path)
    (tmp_path / "part-00000.arrow").write_bytes(b"ARROW1 and no more")
    write_json(tmp_path / "manifest.json", {})
    with pytest.raises(BadInput, match="damaged"):
        PackedRows(tmp_path)
