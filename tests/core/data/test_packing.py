"""Packing: every token of every document once and in order, and boundaries that are right."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.atomic import write_json
from roberta_core.data.best_fit import fit
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import BOS, EOS, PAD, WORD_START, Packer, write_packed
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


@settings(max_examples=40, deadline=None)
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


def reader(tmp_path, docs, mode, length, words=False):
    """`docs` (arrays) in two files, one document in the second, opened for reading."""
    cut = max(len(docs) - 1, 1)
    for part, some in enumerate((docs[:cut], docs[cut:])):
        write_packed(iter([some[:3], some[3:]]), tmp_path / f"part-{part:05d}.arrow", mode, length, VOCAB, words)
    write_json(tmp_path / "manifest.json", {"mode": mode})
    return PackedRows(tmp_path)


def pieces_of(docs, length):
    return [doc[at : at + length - 2] for doc in docs for at in range(0, len(doc), length - 2)]


@settings(max_examples=40, deadline=None)
@given(docs=documents.filter(lambda docs: sum(map(len, docs))), length=st.integers(16, 24))
def test_best_fit_holds_every_piece_once_and_whole(tmp_path_factory, docs, length):
    rows = reader(tmp_path_factory.mktemp("p"), [np.array(doc, np.uint16) for doc in docs], "best-fit", length)
    numbers = np.arange(len(rows))
    ids, documents = rows.rows(numbers), rows.documents(numbers)
    found = []
    for row, own in zip(ids, documents):
        assert ((own == -1) == (row == PAD)).all()
        for document in range(own.max() + 1):
            places = np.flatnonzero(own == document)
            assert (np.diff(places) == 1).all() and row[places[0]] == BOS and row[places[-1]] == EOS
            found.append(row[places[1:-1]].tolist())
    assert sorted(found) == sorted(pieces_of(docs, length))


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(3, 20), max_size=60))
def test_fit_is_best_fit_decreasing(lengths):
    """Against the textbook: sort, then for each piece look at every row."""
    row, offset = fit(np.array(lengths, np.int64), 20)
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(20 - length)
    assert sorted(20 - np.bincount(row, lengths)) == sorted(rooms)
    for number in range(len(rooms)):
        mine = np.flatnonzero(row == number)
        assert offset[mine].tolist() == np.cumsum([0, *np.array(lengths)[mine]])[:-1].tolist()
    assert [int(np.flatnonzero(row == number)[0]) for number in range(len(rooms))] == sorted(
        {int(np.flatnonzero(row == number)[0]) for number in range(len(rooms))}
    )


def test_best_fit_of_a_natural_spread_is_full():
    rng = np.random.default_rng(5)
    lengths = np.minimum(rng.lognormal(5, 1, 5000).astype(np.int64) + 3, 512)
    row, _ = fit(lengths, 512)
    assert lengths.sum() / ((row.max() + 1) * 512) > 0.99


def test_windows_bound_best_fit_and_batches_do_not_change_it():
    rng = np.random.default_rng(6)
    docs = [rng.integers(4, VOCAB - 1, size).astype(np.uint16) for size in rng.integers(1, 90, 200)]
    told = []
    for batch in (1, 7, 200):
        packer = Packer("best-fit", 32, np.dtype(np.uint16), window=500)
        parts = [packer.add(docs[at : at + batch]) for at in range(0, 200, batch)]
        assert packer._held_tokens < 500
        parts.append(packer.finish())
        told.append(np.concatenate([part.ids for part in parts]).tolist())
        assert packer.counts()["padding"] == sum(row.count(PAD) for row in told[-1])
    assert told[0] == told[1] == told[2]


def test_documents_of_rows_that_cross_documents(tmp_path):
    docs = [np.arange(4, 4 + size, dtype=np.uint16) for size in (3, 14, 1, 2, 5)]
    rows = reader(tmp_path, docs, "full-sentences", 16)
    assert rows.documents(np.array([1, 0, 2])).tolist() == [
        [0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, -1, -1, -1, -1, -1],
        [0] * 5 + [1] * 11,
        [0] * 7 + [-1] * 9,
    ]
    assert not rows.isolated
    alone = tmp_path / "alone"
    alone.mkdir()
    rows = reader(alone, docs, "doc-sentences", 16)
    numbers = np.arange(len(rows))
    assert (rows.documents(numbers) == np.where(rows.rows(numbers) == PAD, -1, 0)).all()


@settings(max_examples=30, deadline=None)
@given(
    docs=st.lists(
        st.lists(st.tuples(st.integers(4, 900), st.booleans()), min_size=1, max_size=60), min_size=1, max_size=9
    ),
    length=st.integers(16, 24),
    mode=st.sampled_from(["full-sentences", "doc-sentences", "best-fit"]),
)
def test_word_starts_go_with_their_tokens(tmp_path_factory, docs, length, mode):
    arrays = [
        np.array([token for token, _ in doc], np.uint32) + np.array([first for _, first in doc]) * WORD_START
        for doc in docs
    ]
    rows = reader(tmp_path_factory.mktemp("p"), arrays, mode, length, words=True)
    numbers = np.random.default_rng(1).permutation(len(rows))
    ids, starts, own = rows.rows(numbers), rows.word_starts(numbers), rows.documents(numbers)
    special = ids <= EOS
    after = np.zeros_like(special)
    after[:, 1:] = special[:, :-1]
    assert starts[special].all() and starts[after].all() and starts.dtype == bool
    plain = ~special & ~after
    given_flags = {}
    for doc in docs:
        for token, first in doc:
            given_flags.setdefault(token, set()).add(first)
    for token, first in zip(ids[plain].tolist(), starts[plain].tolist()):
        assert first in given_flags[token]
    whole = [doc for doc in docs if len(doc) <= length - 2]
    if mode != "full-sentences":  # every document that was not cut has exactly its flags
        held = []
        for row, first, document in zip(ids, starts, own):
            for number in range(document.max() + 1):
                places = np.flatnonzero(document == number)[1:-1]
                held.append(list(zip(row[places].tolist(), first[places].tolist())))
        for doc in whole:
            assert [(doc[0][0], True), *doc[1:]] in held


def test_no_words_stored_and_the_reader_says_so(tmp_path):
    assert reader(tmp_path, [np.array([5, 6], np.uint16)], "best-fit", 16).word_starts(np.array([0])) is None
