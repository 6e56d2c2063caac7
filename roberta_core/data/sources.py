"""Where text comes from: files and folders (anything fsspec opens), a Hugging Face dataset; `fetch` has http addresses.

Each reader gives documents and counts what it cannot use. Files fan out: they are grouped in the order of their names
until a group fills a part, each group is read and written by one worker, and the parts are numbered in the order of
the groups, so the bytes do not depend on the number of workers. A single file is read by one worker.
"""

import fnmatch
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from roberta_core.data.documents import Document, doc_id, write_shards
from roberta_core.data.formats import read_file
from roberta_core.data.funnel import Funnel
from roberta_core.data.lines import pick_meta
from roberta_core.errors import BadInput, TryAgain, UserError
from roberta_core.executor import map_shards
from roberta_core.progress import Progress

PART_MB = 16
"""Text a raw part, in MB. Parts are what `clean` fans out over; small ones keep the memory of many workers small."""


@dataclass(frozen=True)
class Files:
    """What to read: `root` a file or folder as fsspec names it, `pattern` a glob of names under it ("" takes all)."""

    root: str
    format: str = "auto"
    text_field: str = "text"
    pattern: str = ""
    encoding: str = "auto"


CLIENTS = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "huggingface_hub", "requests", "httpx", "urllib3")
"""Packages that storages of fsspec speak through; their errors are no OSErrors."""


def storage_error(error: Exception, where: str, key: str) -> UserError | None:
    """What went wrong between here and a storage, as the user's error; None for anything else.

    Args:
        where: the path or address that was asked for.
        key: of the source in params.
    """
    name, package = type(error).__name__, type(error).__module__.split(".")[0]
    foreign = package in CLIENTS
    if isinstance(error, PermissionError) or (
        foreign and ("Credentials" in name or "Gated" in name or "Token" in name)
    ):
        return BadInput(
            f"{where} is not open to you ({error or name}).",
            "Give the credentials as that storage's own tools take them (environment, configuration file), never in params.yaml.",
        )
    if isinstance(error, ConnectionError | TimeoutError) or (foreign and not isinstance(error, FileNotFoundError)):
        return TryAgain(
            f"{where} cannot be reached ({' '.join(str(error).split())[:300] or name}).", "Try again when it can."
        )
    if isinstance(error, ImportError):
        return BadInput(
            f"{where} needs a package that is not installed: {error}.", f"Install it, or set {key} to another place."
        )
    return None


def to_document(text: str, source: str, meta: dict) -> Document:
    """A document with its stable name and its metadata as JSON."""
    return Document(text, source, doc_id(source, text), json.dumps(meta, ensure_ascii=True, sort_keys=True))


def list_files(files: Files, key: str) -> list[tuple[str, int]]:
    """Names relative to the root (just the file's name for a single file) and sizes in bytes, in name order.

    Hidden files and folders (names that begin with a dot) are left out. `key` names the params key in errors.

    Raises:
        BadInput: there is no such path, or nothing in it matches.
        TryAgain: the storage cannot be reached.
    """
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(files.root)
        if system.isfile(root):
            return [(root.rsplit("/", 1)[-1], system.size(root) or 0)]
        found = system.find(root, detail=True) or {}
        # a pipe would wait for ever; a link that leads nowhere is of the type "other" too, and is told of when it is read
        found = {name: info for name, info in found.items() if info.get("type") != "other" or info.get("islink")}
    except FileNotFoundError:
        found = {}
    except Exception as error:  # each storage has errors of its own
        if told := storage_error(error, files.root, key):
            raise told from None
        if not isinstance(error, ValueError):
            raise
        raise BadInput(
            f"{key} reads {files.root}, which fsspec cannot open: {error}.", "Mend the path or url."
        ) from None
    base = root.rstrip("/") + "/"
    names = sorted((name.removeprefix(base), info.get("size") or 0) for name, info in found.items())
    names = [(name, size) for name, size in names if not any(part.startswith(".") for part in name.split("/"))]
    if not names:
        setting = f"{key}.url" if "://" in files.root else f"{key}.path"
        if system.isdir(root):
            raise BadInput(f"The folder {files.root} holds no file.", f"Put text there, or set {setting} to another.")
        raise BadInput(f"There is no file or folder {files.root}.", f"Set {setting} to one that exists.")
    if files.pattern:
        names = [(name, size) for name, size in names if fnmatch.fnmatchcase(name, files.pattern)]
        if not names:
            raise BadInput(
                f"No file under {files.root} matches {files.pattern}.", f"Mend {key}.pattern or {key}.path."
            )
    return names


def first(documents: Iterator[Document], count: int) -> Iterator[Document]:
    """The first `count` documents; all where it is 0."""
    return islice(documents, count) if count else documents


def read_files(files: Files, names: list[str], source: str, funnel: Funnel) -> Iterator[Document]:
    """The documents of the named files, in order; counts those that go on and those that do not."""
    import fsspec

    system, root = fsspec.core.url_to_fs(files.root)
    single = system.isfile(root)
    for name in names:
        key = f"corpus.sources.{source}"
        try:
            handle = system.open(root if single else f"{root.rstrip('/')}/{name}", "rb")
        except Exception as error:
            told = storage_error(error, name, key) if "://" in files.root else None
            if told or not isinstance(error, OSError):
                raise (told or error) from None
            funnel.drop("unreadable_file", f"{name}: {error.strerror or error}")
            continue
        with handle:
            try:
                for text, meta in read_file(handle, name, files.format, files.text_field, funnel, files.encoding):
                    funnel.keep(text)
                    yield to_document(text, source, meta | {"file": name})
            except UserError:
                raise
            except Exception as error:
                if told := storage_error(error, f"{name}, half-way,", key):
                    raise told from None
                raise


def _read_group(
    group: tuple[int, list[str]], files: Files, source: str, folder: Path, part_mb: float
) -> tuple[int, list[Path], dict]:
    """Writes one group of files to its own folder. Returns the number of files, the parts, and the funnel."""
    number, names = group
    funnel = Funnel()
    parts = write_shards(read_files(files, names, source, funnel), folder / f"group-{number:06d}", part_mb)
    return len(names), parts, funnel.to_dict()


def fetch_files(
    files: Files,
    source: str,
    folder: Path,
    max_docs: int,
    workers: int,
    key: str,
    part_mb: float = PART_MB,
    found: list[tuple[str, int]] | None = None,
) -> Funnel:
    """Reads files into document parts in `folder`. `max_docs` above 0 stops after so many, read in one process.

    `found` names files under the root, with their sizes, in the order to read them in; by default `list_files` does.

    Raises:
        BadInput, TryAgain: as `list_files`.
    """
    found = list_files(files, key) if found is None else found
    if max_docs:
        funnel = Funnel()
        write_shards(first(read_files(files, [name for name, _ in found], source, funnel), max_docs), folder, part_mb)
        return funnel
    groups: list[tuple[int, list[str]]] = []
    room = 0
    for name, size in found:
        if room <= 0:
            groups.append((len(groups), []))
            room = part_mb * 1e6
        groups[-1][1].append(name)
        room -= size
    funnel, count = Funnel(), 0
    progress = Progress(f"reading {source}", len(found), "files")
    for read, parts, counted in map_shards(
        partial(_read_group, files=files, source=source, folder=folder, part_mb=part_mb), groups, workers
    ):
        for part in parts:
            os.replace(part, folder / f"part-{count:05d}.arrow")
            count += 1
        funnel.merge(Funnel.from_dict(counted))
        progress.advance(read, f"{funnel.kept} documents")
    for leftover in folder.glob("group-*"):
        shutil.rmtree(leftover)
    progress.finish(f"{funnel.kept} documents")
    return funnel


def read_hub(
    name: str, config: str, split: str, revision: str, streaming: bool, text_field: str, source: str, funnel: Funnel
) -> Iterator[Document]:
    """The rows of a Hugging Face dataset (or of a local folder that `datasets` opens) as documents.

    Raises:
        BadInput: no such dataset, configuration or split, or no column `text_field`.
        TryAgain: the hub cannot be reached.
    """
    import datasets

    datasets.disable_progress_bars()
    told = f"The dataset {name}" + (f" ({config})" if config else "")
    try:
        rows = datasets.load_dataset(name, config or None, split=split, revision=revision, streaming=streaming)
    except (ConnectionError, TimeoutError) as error:
        raise TryAgain(f"{told} cannot be reached: {error}.", "Check the network and try again.") from None
    except (FileNotFoundError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        script = "scripts are no longer supported" in str(error)
        if isinstance(error, RuntimeError) and not script:
            raise
        raise BadInput(
            f"{told} cannot be opened: {' '.join(str(error).split())[:300]}.",
            "Its Parquet files may be read all the same: kind: files, url: hf://datasets/owner/name@revision/folder."
            if script
            else "Mend the source's name, config, split or revision.",
        ) from None
    columns = list(rows.features or {})
    if columns and text_field not in columns:
        raise BadInput(
            f"{told} has no column {text_field}; it has: {', '.join(columns)}.",
            "Set the source's text_field to one of them.",
        )
    progress = Progress(f"reading {source}", 0 if streaming else len(rows), "rows")
    try:
        for row in rows:
            progress.advance()
            text = row.get(text_field)
            reason = "" if isinstance(text, str) else "missing_text_field" if text is None else "text_not_a_string"
            if not reason:
                reason = "" if text and not text.isspace() else "empty"
            if reason:
                funnel.drop(reason, str(row)[:200])
                continue
            funnel.keep(text)
            yield to_document(text, source, pick_meta(row, text_field))
    except (ConnectionError, TimeoutError) as error:
        raise TryAgain(f"The connection broke while reading {name}: {error}.", "Try again.") from None
    progress.finish(f"{funnel.kept} documents")
