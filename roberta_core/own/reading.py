"""Files of a user's task as rows: csv, tsv, jsonl, Parquet, packed or not, whole in memory.

What cannot be used is counted in a funnel under a named reason, with its file and line, and left out; where that is
more than `MAX_LEFT_OUT` of a file, the file is refused with the first such line. So a slip costs one row and
a wrong separator ends at once. Fine-tuning keeps all its rows in memory anyway, so the reader does too: that is simpler, and it
can name the line of a bad byte. UTF-16 and UTF-32 are read where a byte order mark says so.
"""

import csv
import difflib
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from roberta_core.data.archives import DAMAGED, Bound, stream, unpack
from roberta_core.data.formats import COMPRESSED, MARKS
from roberta_core.data.funnel import Funnel
from roberta_core.data.tables import csv_records
from roberta_core.errors import BadInput

MAX_LEFT_OUT = 0.01
"""Share of a file's rows that may be left out: slips of a hand-made table pass, a wrong separator or column does not."""

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet",
}  # fmt: skip

Row = tuple[int, dict]
"""Number of the line (of Parquet: of the row), from 1, and the values by column."""


def read_bytes(file: Path) -> bytes:
    """The content of a file, unpacked where its first bytes say that it is packed.

    Raises:
        BadInput: it is missing, a folder, or damaged.
    """
    try:
        with open(file, "rb") as handle:
            return unpack(stream(handle), Bound(lambda: file.stat().st_size)).read()
    except FileNotFoundError:
        raise BadInput(f"There is no file {file}.", "Mend the path in finetune.tasks.") from None
    except IsADirectoryError:
        raise BadInput(f"{file} is a folder.", "Name the file in it: train, dev and test under the task.") from None
    except DAMAGED as error:
        raise BadInput(f"{file} cannot be unpacked ({error}).", "Fetch or pack it again.") from None


def read_text(file: Path) -> str:
    """The text of a file: UTF-8, or what a byte order mark says.

    Raises:
        BadInput: as `read_bytes`; or the bytes are no text.
    """
    raw = read_bytes(file)
    encoding = next((name for mark, name in MARKS.items() if raw.startswith(mark)), "utf-8-sig")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadInput(
            f"{file}, line {line}: the bytes are not {encoding.removesuffix('-sig').upper()}.", "Save it as UTF-8."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise BadInput(
            f"{file}, line {line}: a NUL byte: no text file, or UTF-16 without its mark.", "Save it as UTF-8."
        )
    # spreadsheets of old Macs end lines by a carriage return alone
    return text if "\n" in text else text.replace("\r", "\n")


def format_of(file: Path) -> str:
    """`csv`, `tsv`, `jsonl` or `parquet`, by the name.

    Raises:
        BadInput: the name says none of them.
    """
    name = file.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    found = FORMATS.get(Path(name).suffix)
    if found is None:
        raise BadInput(
            f"{file}: its name does not say what it is.",
            f"Name it with one of {', '.join(FORMATS)} (and .gz, .zst, …).",
        )
    return found


def check_columns(file: Path, found: Sequence[str], wanted: Sequence[str], key: str) -> None:
    """Raises BadInput where a column that the task names is not there, or is there twice."""
    if not found:
        raise BadInput(f"{file} is empty: it names no column.", "Give a first line of names, and rows below it.")
    for name in wanted:
        if found.count(name) > 1:
            raise BadInput(f"{file}: {found.count(name)} columns are called {name}.", "Rename or take out one.")
        if name not in found:
            near = difflib.get_close_matches(name, list(map(str, found)), 1)
            # quotes show the blank of "text, label"
            shown = [each if each == each.strip() else repr(each) for each in near]
            hint = f"did you mean {shown[0]}?" if near else "take one of them."
            raise BadInput(
                f"{file}: there is no column {name} (found: {', '.join(map(str, found)) or 'nothing'}).",
                f"Mend {key}: {hint}",
            )


def _csv(text: str, wanted: Sequence[str], file: Path, funnel: Funnel) -> Iterator[Row | list[str]]:
    """The header, then the rows."""
    first = text.lstrip("\r\n").split("\n", 1)[0].replace("\r", "")
    header: list[str] | None = None
    # strict: a quote that is never closed would swallow the rest of the file without a word
    for line, ends, fields in csv_records(io.StringIO(text, newline=""), first, wanted, strict=True):
        if isinstance(fields, csv.Error):
            # an open quote takes what follows with it: every line of it counts, so that half a file is not one slip
            lost = max(1, ends - line + 1)
            funnel.drop("unreadable_row", f"{file}, line {line}: {fields} (to line {ends})", lost)
        elif fields and header is None:
            header = fields
            yield header
        elif fields:
            yield from _fields(header, fields, file, line, funnel)


def _tsv(text: str, file: Path, funnel: Funnel) -> Iterator[Row | list[str]]:
    """The header, then the rows. Quotes are characters like any other (IANA text/tab-separated-values)."""
    header: list[str] | None = None
    for line, raw in enumerate(text.split("\n"), 1):
        fields = raw.removesuffix("\r").split("\t")
        if fields == [""]:
            continue
        if header is None:
            header = fields
            yield header
        else:
            yield from _fields(header, fields, file, line, funnel)


def _fields(header: list[str], fields: list[str], file: Path, line: int, funnel: Funnel) -> Iterator[Row]:
    if len(fields) == len(header):
        yield line, dict(zip(header, fields))
    else:
        shown = " | ".join(fields)[:80]
        funnel.drop("unreadable_row", f"{file}, line {line}: {len(fields)} fields under {len(header)} names: {shown}")


def _jsonl(text: str, file: Path, funnel: Funnel) -> Iterator[Row]:
    if text.lstrip().startswith("[") and text.rstrip().endswith("]"):
        raise BadInput(
            f"{file} is one JSON list, and no object a line.", f"Make it so: jq -c '.[]' {file} > rows.jsonl"
        )
    for line, raw in enumerate(text.split("\n"), 1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except (ValueError, RecursionError) as error:
            funnel.drop("unreadable_row", f"{file}, line {line}: no JSON ({error}): {raw[:60]}")
            continue
        if isinstance(row, dict):
            yield line, row
        else:
            funnel.drop("unreadable_row", f"{file}, line {line}: a {type(row).__name__}, not an object")


def _parquet(file: Path, wanted: Sequence[str], key: str) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(read_bytes(file)))
        check_columns(file, table.schema_arrow.names, wanted, key)
        rows = table.read(columns=list(wanted)).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read ({str(error).splitlines()[0]}).", "Write it again.") from None
    return list(enumerate(rows, 1))


def read_table(file: Path, wanted: Sequence[str], funnel: Funnel, key: str = "text and label") -> list[Row]:
    """The rows of a table that can be read, with the columns `wanted` among their values.

    Args:
        funnel: counts what cannot be read.
        key: what a missing column is called in the params file.

    Raises:
        BadInput: no such file, no text, no table, or a column is missing.
    """
    kind = format_of(file)
    if kind == "parquet":
        return _parquet(file, wanted, key)
    text = read_text(file)
    if kind == "jsonl":
        rows = list(_jsonl(text, file, funnel))
        if rows:
            # an object may leave a key out; a key that none has is a wrong name
            check_columns(file, sorted(set().union(*(row for _, row in rows))), wanted, key)
        return [(line, dict.fromkeys(wanted) | row) for line, row in rows]
    found = _csv(text, wanted, file, funnel) if kind == "csv" else _tsv(text, file, funnel)
    check_columns(file, next(found, []), wanted, key)
    return list(found)


def unwritable(text: str) -> bool:
    """Whether a text holds half a character (a lone surrogate, as JSON may), which no UTF-8 file can."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def text_fault(value: object) -> str:
    """Why a value cannot be a text of a row, as a reason of the funnel; empty where it can."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "no_text"
    if not isinstance(value, str):
        return "text_not_a_string"
    if not value.strip():
        return "empty_text"
    if "\0" in value or unwritable(value):
        return "broken_text"
    return ""


def refuse_if_bad(file: Path, funnel: Funnel, kept: int) -> list[str]:
    """One line a reason for what was left out of a file.

    Raises:
        BadInput: nothing is left, or more than `MAX_LEFT_OUT` was left out.
    """
    lost = sum(funnel.dropped.values())
    if not kept and not lost:
        raise BadInput(f"{file} has no rows.", "Give the whole file.")
    first = next((f"{each[0]} ({reason.replace('_', ' ')})" for reason, each in funnel.examples.items()), "")
    if not kept or lost > max(1, MAX_LEFT_OUT * (kept + lost)):
        raise BadInput(
            f"{lost:,} of {kept + lost:,} rows cannot be used: {first}.",
            f"Mend the file, or the task's settings; up to {MAX_LEFT_OUT:.0%} of the rows may be left out.",
        )
    return [
        f"{count:,} {'row' if count == 1 else 'rows'} left out ({reason.replace('_', ' ')}): {funnel.examples[reason][0]}"
        for reason, count in sorted(funnel.dropped.items())
    ]
