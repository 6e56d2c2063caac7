"""Tables into documents: one row, one document. csv, tsv, Parquet and Arrow, a batch of rows at a time.

The column `text_field` is the text; those of `META_KEYS` that stand beside it go along. A row that does not have as
many fields as the header is counted and left out, because which field is the text is then a guess.
"""

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

import pyarrow as pa

from roberta_core.data import lines
from roberta_core.data.funnel import Funnel
from roberta_core.data.lines import Texts, decode, lines_of, pick_meta, usable

DELIMITERS = ",;\t|"
"""Of csv: the first with which the header has the text's column."""

BATCH_ROWS = 256


def _row(header: list[str], fields: list[str], text_field: str, place: str, funnel: Funnel) -> Texts:
    if len(fields) != len(header):
        funnel.drop(
            "broken_row", f"{place}: {len(fields)} fields under {len(header)} names: {' | '.join(fields)[:100]}"
        )
        return
    row = dict(zip(header, fields))
    if not usable(row, text_field, place, funnel):
        return
    raw = row[text_field].encode("utf8", "surrogateescape")
    text = decode(raw, funnel, place)
    if text is not None:
        yield text, pick_meta({key: value for key, value in row.items() if value and value.isprintable()}, text_field)


def csv_records(
    raw: Iterable[str], first: str, wanted: Iterable[str], strict: bool = False
) -> Iterator[tuple[int, int, list[str] | csv.Error]]:
    """Comma-separated values with double quotes (RFC 4180); `;`, tab and `|` are known by the header. Of each record its
    first line, its last one, and its fields, or what is wrong with it.

    Args:
        raw: the lines, with their ends.
        first: the first of them.
        wanted: columns that stand in the header where it is parted in the right way.
        strict: a quote that is never closed, or that text follows, is wrong.
    """
    csv.field_size_limit(lines.MAX_DOCUMENT_BYTES)
    named = set(wanted)
    delimiter = next((mark for mark in DELIMITERS if named <= set(next(csv.reader([first], delimiter=mark), []))), ",")
    reader = csv.reader(raw, delimiter=delimiter, strict=strict)
    while True:
        begins = reader.line_num + 1
        try:
            found: list[str] | csv.Error = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found = error
        yield begins, reader.line_num, found


def read_csv(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "text") -> Texts:
    """Comma-separated values with a header, as `csv_records` reads them."""
    # bytes that are no UTF-8 pass the parser as lone surrogates, so that they are counted with their own row
    raw = (line.decode("utf8", "surrogateescape") for line in lines_of(handle))
    first = next(raw, "")
    header: list[str] | None = None
    for begins, ends, fields in csv_records(chain([first], raw), first, (text_field,)):
        if isinstance(fields, csv.Error):
            funnel.drop("broken_row", f"{where}:{begins}: {fields} (to line {ends})")
        elif header is None:
            header = fields
        elif fields:
            yield from _row(header, fields, text_field, f"{where}:{begins}", funnel)


def read_tsv(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "text") -> Texts:
    """Tab-separated values with a header. Quotes are characters like any other (IANA text/tab-separated-values)."""
    header: list[str] | None = None
    for number, line in enumerate(lines_of(handle), 1):
        fields = line.decode("utf8", "surrogateescape").rstrip("\r\n").split("\t")
        if header is None:
            header = fields
        elif fields != [""]:
            yield from _row(header, fields, text_field, f"{where}:{number}", funnel)


def _values(column: pa.Array) -> list:
    """A column's values; bytes where a string column holds something else than UTF-8."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        found = []
        for raw in column.cast(
            pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        ).to_pylist():
            try:
                found.append(raw if raw is None else raw.decode("utf8"))
            except UnicodeDecodeError:
                found.append(raw)
        return found


def _batches(batches: Iterator[pa.RecordBatch], where: str, funnel: Funnel, text_field: str) -> Texts:
    number = 0
    for batch in batches:
        columns = {name: _values(batch.column(name)) for name in batch.schema.names}
        for values in zip(*columns.values()):
            number += 1
            place, row = f"{where}:{number}", dict(zip(columns, values))
            if isinstance(row.get(text_field), bytes):
                text = decode(row[text_field], funnel, place)
                if text is None:
                    continue
                row[text_field] = text
            if usable(row, text_field, place, funnel):
                yield row[text_field], pick_meta(row, text_field)


def _wanted(names: list[str], text_field: str) -> list[str]:
    return [name for name in names if name == text_field or name in lines.META_KEYS]


def read_parquet(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "text") -> Texts:
    """The rows of a Parquet file, of which only the text's and the metadata's columns are read."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(handle, pre_buffer=False)
    names = _wanted(file.schema_arrow.names, text_field)
    if text_field not in names:
        told = f"{where}: no {text_field!r} in: {', '.join(file.schema_arrow.names)}"
        funnel.drop("missing_text_field", told, file.metadata.num_rows)
        return
    yield from _batches(file.iter_batches(BATCH_ROWS, columns=names, use_threads=False), where, funnel, text_field)


def read_arrow(handle: BinaryIO, where: str, funnel: Funnel, text_field: str = "text") -> Texts:
    """The rows of an Arrow IPC file (Feather too) or stream."""
    is_file = handle.read(6) == b"ARROW1"
    handle.seek(0)
    reader = pa.ipc.open_file(handle) if is_file else pa.ipc.open_stream(handle)
    names = _wanted(reader.schema.names, text_field)
    batches = (reader.get_batch(index) for index in range(reader.num_record_batches)) if is_file else iter(reader)
    if text_field not in names:
        told = f"{where}: no {text_field!r} in: {', '.join(reader.schema.names)}"
        funnel.drop("missing_text_field", told, sum(batch.num_rows for batch in batches))
        return
    yield from _batches((batch.select(names) for batch in batches), where, funnel, text_field)
