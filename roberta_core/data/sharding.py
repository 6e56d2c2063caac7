"""Training shards from the clean parts: first every part says how long its texts are, then every shard is written by itself.

Where one shard ends and the next begins follows from the lengths of the kept texts alone. So the first pass goes over the
clean parts, cuts out what has to go (repeated paragraphs, evaluation text), and gives the lengths back; with them the
stage lays out the shards (`lay_out`), and the second pass writes them, on as many processes as there are, with the bytes that one
would have written in a row. The texts that were altered wait in a file, the others are read where they lie.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roberta_core.atomic import sync
from roberta_core.data.decontamination import PartFinds, Search, search_part
from roberta_core.data.documents import SCHEMA, Cutter, open_shard, text_bytes
from roberta_core.data.funnel import Funnel
from roberta_core.data.paragraphs import Repeats, without_paragraphs


@dataclass(frozen=True)
class Part:
    """A clean part, ready to be cut into shards.

    Attributes:
        path: of the clean part.
        keep: bool [rows]; without the documents of which nothing is left.
        sizes: int32 [rows], UTF-8 bytes of each text as it will be written.
        firsts: int64 [batches + 1], the first row of each record batch, and at the end the rows.
        altered: a file of the texts that differ from those in `path` (`row`, `text`; rows ascending); None where none does.
        funnel: what was altered and dropped.
        counts: as `PartFinds.counts`.
    """

    path: Path
    keep: np.ndarray
    sizes: np.ndarray
    firsts: np.ndarray
    altered: Path | None
    funnel: dict
    counts: list[tuple[np.ndarray, int]]


Piece = tuple[Path, Path | None, int, int, np.ndarray, slice]
"""Some documents of one record batch: the clean part, its altered texts, the batch's number and first row, the rows of it that
are wanted, and which of these go into this shard."""


def prepare_part(work: tuple[int, Path, np.ndarray, Repeats], search: Search | None, folder: Path) -> Part:
    """Cuts out of one clean part what has to go, and measures what stays.

    Args:
        work: number and path of the part; which of its documents are kept (bool [rows]); its repeated paragraphs, by row.
        search: the evaluation text to look for.
        folder: where the altered texts may lie.
    """
    number, path, keep, repeats = work
    keep, funnel = keep.copy(), Funnel()
    found = search_part((path, keep, repeats), search) if search else PartFinds({}, [])
    reader, sizes, firsts = open_shard(path), [np.zeros(0, np.int64)], [0]
    altered: dict[int, str] = {}
    touched = np.array(sorted(repeats.keys() | found.documents.keys()), np.int64)
    for index in range(reader.num_record_batches):
        texts = reader.get_batch(index).column("text")
        sizes.append(text_bytes(texts))
        first, stop = firsts[-1], firsts[-1] + len(texts)
        firsts.append(stop)
        mine = touched[np.searchsorted(touched, first) : np.searchsorted(touched, stop)].tolist()
        changed = {row: texts[row - first].as_py() for row in mine}
        _without_repeats(changed, repeats, keep, funnel)
        _without_evaluation(changed, found.documents, keep, funnel)
        for row, text in changed.items():
            sizes[-1][row - first] = len(text.encode("utf8"))
        altered |= changed
    kept_in = None
    if altered:
        kept_in = folder / f"altered-{number:06d}.arrow"
        table = pa.table(
            {"row": pa.array(altered.keys(), pa.int64()), "text": pa.array(altered.values(), pa.string())}
        )
        with pa.ipc.new_file(kept_in, table.schema) as writer:
            writer.write_table(table)
    sizes = np.concatenate(sizes).astype(np.int32)
    return Part(path, keep, sizes, np.array(firsts), kept_in, funnel.to_dict(), found.counts)


def _without_repeats(texts: dict[int, str], repeats: Repeats, keep: np.ndarray, funnel: Funnel) -> None:
    """Takes the paragraphs that stand earlier in the corpus out of `texts`; an empty document goes out of `keep`."""
    for row in sorted(texts.keys() & repeats.keys()):
        excerpt = texts[row].split("\n")[repeats[row][0]]
        texts[row] = without_paragraphs(texts[row], repeats[row])
        if texts[row]:
            funnel.change("repeated_paragraphs_removed", excerpt)
        else:
            funnel.drop("repeated_paragraphs_only", excerpt)
            keep[row] = False


def _without_evaluation(
    texts: dict[int, str], found: dict[int, tuple[str, str | None]], keep: np.ndarray, funnel: Funnel
) -> None:
    """Counts evaluation text, and cuts it out of `texts` where that was asked for; `found` as `PartFinds.documents`."""
    for row in sorted(texts.keys() & found.keys()):
        excerpt, left = found[row]
        if left is None:
            funnel.change("evaluation_text_found", excerpt)
            continue
        texts[row] = left
        if left:
            funnel.change("evaluation_text_removed", excerpt)
        else:
            funnel.drop("evaluation_text_only", excerpt)
            keep[row] = False


def lay_out(parts: Iterable[tuple[Part, np.ndarray]], shard_mb: float) -> Iterator[list[Piece]]:
    """What each shard holds.

    Args:
        parts: clean parts, in order, each with the documents of it that are wanted: bool [rows].
        shard_mb: MB of text a shard, at most; one document at least.
    """
    cutter, shard, pieces = Cutter(shard_mb), 0, []
    for part, wanted in parts:
        for index, (first, stop) in enumerate(zip(part.firsts.tolist(), part.firsts[1:].tolist())):
            rows = np.flatnonzero(wanted[first:stop])
            for number, start, end in cutter.cut(part.sizes[first:stop][rows]):
                if number != shard:
                    yield pieces
                    shard, pieces = number, []
                pieces.append((part.path, part.altered, index, first, rows.astype(np.int32), slice(start, end)))
    if pieces:
        yield pieces


def write_shard(job: tuple[Path, list[Piece]]) -> tuple[int, int]:
    """Writes one shard. Returns its documents and characters. Memory: one record batch."""
    file, pieces = job
    documents = chars = 0
    with pa.ipc.new_file(file, SCHEMA) as writer:
        for path, altered, index, first, rows, mine in pieces:
            batch = open_shard(path).get_batch(index)
            if altered:
                batch = _with_altered(batch, first, open_shard(altered).read_all())
            # all wanted rows, and then a slice: Arrow fills a slice up with what follows it, and that shows in the bytes
            batch = batch.take(pa.array(rows))[mine]
            writer.write_batch(batch)
            documents += len(batch)
            chars += pc.sum(pc.utf8_length(batch.column("text"))).as_py()
    sync(file)
    return documents, chars


def _with_altered(batch: pa.RecordBatch, first: int, table: pa.Table) -> pa.RecordBatch:
    """The batch, whose first row is `first` of its part, with the texts of `table` (`row`, `text`) in their places."""
    rows = table.column("row").to_numpy()
    low, high = np.searchsorted(rows, [first, first + len(batch)]).tolist()
    if low == high:
        return batch
    texts = batch.column("text").to_pylist()
    for row, text in zip((rows[low:high] - first).tolist(), table.column("text").slice(low, high - low).to_pylist()):
        texts[row] = text
    return pa.record_batch([pa.array(texts, pa.string()), *batch.columns[1:]], schema=batch.schema)
