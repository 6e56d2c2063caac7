"""download: one source's text, as it comes, into document parts under data/raw/<source>."""

import sys
from pathlib import Path

from roberta_core.atomic import atomic_dir, write_json
from roberta_core.data.documents import write_shards
from roberta_core.data.fetch import fetch_list, fetch_url, read_list
from roberta_core.data.funnel import Funnel
from roberta_core.data.python_docs import read_python_docs
from roberta_core.data.sources import PART_MB, Files, fetch_files, first, read_hub
from roberta_core.errors import BadInput, BadParams
from tasks.params import Params
from tasks.stage import WORK, main

RAW = Path("data/raw")
HTTP = WORK / "http"
BAD = (
    "invalid_utf8",
    "nul_bytes",
    "broken_json",
    "missing_text_field",
    "text_not_a_string",
    "line_too_long",
    "unclosed_doc",
    "lone_surrogate",
    "broken_row",
    "page_too_long",
    "path_escape",
    "link_in_archive",
)
"""Reasons for which a document cannot be read; others (an empty one, a format that is none) say nothing bad of the rest."""


def run(params: Params, source: str) -> dict:
    """Reads one source of params.corpus.sources. Returns the funnel's counts."""
    if source not in params.corpus.sources:
        raise BadParams(f"There is no source {source}.", f"corpus.sources has: {', '.join(params.corpus.sources)}.")
    given = params.corpus.sources[source]
    workers, key = params.runtime.workers, f"corpus.sources.{source}"
    funnel = Funnel()
    with atomic_dir(RAW / source) as folder:
        if given.kind == "files":
            files = Files(given.url or given.path, given.format, given.text_field, given.pattern, given.encoding)
            funnel = fetch_files(files, source, folder, given.max_docs, workers, key)
        elif given.kind == "http":
            items = [(given.url, given.sha256)] if given.url else read_list(Path(given.path), key)
            if len(items) == 1:
                paths = [fetch_url(*items[0], HTTP)]
            else:
                paths = fetch_list(items, HTTP, params.runtime.downloads)
            files = Files(str(HTTP), given.format, given.text_field, encoding=given.encoding)
            found = [(path.name, path.stat().st_size) for path in paths]
            funnel = fetch_files(files, source, folder, given.max_docs, workers, key, found=found)
        elif given.kind == "hub":
            rows = read_hub(
                given.name,
                given.config,
                given.split,
                given.revision,
                given.streaming,
                given.text_field,
                source,
                funnel,
            )
            write_shards(first(rows, given.max_docs), folder, PART_MB)
        else:
            documents = read_python_docs(given.packages, source, workers, funnel, key)
            write_shards(first(documents, given.max_docs), folder, PART_MB)
        if not funnel.kept:
            raise nothing_read(source, funnel, key)
        refuse_bad(source, funnel, given.max_bad_share, key)
        write_json(folder / "funnel.json", funnel.to_dict())
    return funnel.metrics()


def refuse_bad(source: str, funnel: Funnel, share: float, key: str) -> None:
    """Ends a source that is damaged: a file that breaks off, or more bad documents than their share.

    A file that cannot be read to its end is never passed over: what is missing may be the half of a dump.

    Raises:
        BadInput: with the first example.
    """
    if broken := funnel.dropped.get("unreadable_file", 0):
        more = f" ({broken} such files)" if broken > 1 else ""
        raise BadInput(
            f"The source {source} has a file that cannot be read: {funnel.examples['unreadable_file'][0]}{more}.",
            f"Fetch it again, or take it out of the folder (or narrow {key}.pattern).",
        )
    bad = {reason: funnel.dropped[reason] for reason in BAD if reason in funnel.dropped}
    if sum(bad.values()) > share * funnel.seen:
        told = ", ".join(
            f"{reason} {count} (for example {funnel.examples[reason][0]!r})" for reason, count in bad.items()
        )
        raise BadInput(
            f"Of {funnel.seen} documents of the source {source}, {sum(bad.values())} cannot be read: {told}.",
            f"Mend them, or raise {key}.max_bad_share (now {share:g}) to leave them out.",
        )


def nothing_read(source: str, funnel: Funnel, key: str) -> BadInput:
    """The error for a source that gave no document: why, with an example."""
    reasons = "; ".join(
        f"{reason} {count} (for example {funnel.examples[reason][0]!r})"
        for reason, count in sorted(funnel.dropped.items())
    )
    return BadInput(
        f"The source {source} gave no document: {reasons or 'it has none'}.",
        f"Mend the files, or set {key} to others.",
    )


if __name__ == "__main__":
    sys.exit(main("download", run))
