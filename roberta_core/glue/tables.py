"""Tasks as tables, the hub's way, brought to rows: columns by name, labels as ids, hidden labels of test as -1.

`nyu-mll/glue` on the hub keeps each task as `<config>/<split>-00000-of-00001.parquet`. A folder of such files, fetched by
whatever means, is read here with pyarrow alone; a table that came through `datasets` is read by the same rules.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from roberta_core.errors import BadInput
from roberta_core.glue.layout import Split
from roberta_core.glue.tasks import Task


def table_rows(columns: Mapping[str, Sequence], task: Task, split: str, name: str, key: str) -> Split:
    """One split of a table as rows; the labels of test are hidden (-1) there, and left out here.

    Args:
        columns: the table's columns by name.
        name: of the table, for messages.
        key: the parameter that a user would mend.

    Raises:
        BadInput: a column is missing, a text is no text, a label is unknown, or there are no rows.
    """
    needed = (*task.hub_texts, "label")
    for column in needed:
        if column not in columns:
            raise BadInput(
                f"{name}: the column {column} is missing (found: {', '.join(columns)}).",
                f"Set {key} to a dataset with the columns of nyu-mll/glue ({', '.join(needed)}).",
            )
    for column in task.hub_texts:
        for row, text in enumerate(columns[column]):
            if not isinstance(text, str):
                raise BadInput(f"{name}, row {row}, column {column}: {text!r} is no text.", "Mend the row.")
    texts = list(zip(*(columns[column] for column in task.hub_texts)))
    if not texts:
        raise BadInput(f"{name} has no rows.", "Give the whole table.")
    labels = list(columns["label"]) if split != "test" else []
    allowed = range(len(task.values)) if task.values else None
    for row, label in enumerate(labels):
        if label is None or (allowed is not None and label not in allowed):
            raise BadInput(
                f"{name}, row {row}, column label: unknown label {label!r}.",
                f"{task.name} takes 0 to {len(task.values) - 1}." if task.values else f"{task.name} takes numbers.",
            )
    return Split(texts, labels, list(range(len(texts))))


def parquet_files(folder: Path, config: str, split: str) -> list[Path]:
    """The files of one split, in the order of their parts: `<config>/<split>-*.parquet`, or `<config>/<split>.parquet`."""
    return sorted((folder / config).glob(f"{split}-*.parquet")) or sorted((folder / config).glob(f"{split}.parquet"))


def read_parquet(folder: Path, task: Task, split: str) -> dict[str, Split]:
    """Reads one split of a task in a folder of parquet files: by the official file's name, as `layout.read_split` gives it.

    Raises:
        BadInput: as `table_rows`; a file is missing or damaged. A test split that is wholly absent gives nothing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = {name: parquet_files(folder, task.hub, name) for name in task.hub_splits(split)}
    if split == "test" and not any(found.values()):
        return {}
    result = {}
    for target, (name, files) in zip(task.files(split), found.items()):
        where = folder / task.hub
        if not files:
            raise BadInput(
                f"There is no {where / name}-*.parquet.",
                "Give a folder with the hub's files, <config>/<split>-*.parquet, or take the task out of glue.tasks.",
            )
        columns: dict[str, list] = {}
        for file in files:
            try:
                table = pq.read_table(file)
            except (pa.ArrowException, OSError) as error:
                raise BadInput(f"{file} is damaged ({_first(error)}).", "Fetch it again.") from None
            for column in table.column_names:
                columns.setdefault(column, []).extend(table[column].to_pylist())
        result[target] = table_rows(columns, task, split, f"{where}, {name}", "glue.path")
    return result


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
