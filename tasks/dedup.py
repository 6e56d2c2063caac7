"""dedup: which clean documents stay, over all sources. The texts stay where they are: `keep-<source>.arrow` marks
those that stay, `paragraphs.arrow` the paragraphs that go, where that is asked for.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roberta_core.atomic import atomic_dir, read_json, write_json
from roberta_core.data.corpus import Corpus, holding, open_corpus, read_rows
from roberta_core.data.dedup import Verdict, deduplicate
from roberta_core.data.funnel import EXAMPLE_CHARS, EXAMPLES, Funnel
from roberta_core.data.paragraphs import repeated_paragraphs
from roberta_core.errors import BadInput
from tasks.leftovers import set_aside
from tasks.params import Params
from tasks.stage import main

RAW = Path("data/raw")
CLEAN = Path("data/clean")
DEDUP = Path("data/dedup")


def run(params: Params) -> dict:
    """Marks duplicates; of several, the one that comes first in the order of params.corpus.sources stays."""
    sources = list(params.corpus.sources)
    set_aside((RAW, CLEAN), sources)
    corpus = open_corpus(CLEAN, sources)
    if not corpus.size:
        raise nothing_clean(sources)
    given = params.dedup
    repeats = {}
    with atomic_dir(DEDUP) as folder:
        verdict = deduplicate(
            corpus,
            given.exact,
            given.near,
            given.threshold,
            params.clean.num_hashes,
            params.clean.shingle_words,
            params.runtime.workers,
            folder,
        )
        funnel = funnel_of(corpus, verdict)
        kept = {source: verdict.keep[corpus.rows_of(source)] for source in sources}
        for source, keep in kept.items():
            write_table(pa.table({"keep": pa.array(keep)}), folder / f"keep-{source}.arrow")
        if given.paragraphs:
            found = repeated_paragraphs(corpus, verdict.keep, given.paragraph_chars, params.runtime.workers, folder)
            write_table(
                pa.table({name: pa.array(np.ascontiguousarray(found[name])) for name in ("number", "place")}),
                folder / "paragraphs.arrow",
            )
            repeats = {"repeated_paragraphs": len(found)}
        write_table(clusters_of(corpus, verdict), folder / "clusters.arrow")
        write_json(folder / "funnel.json", funnel.to_dict())
    per_source = {f"kept_{source}": int(keep.sum()) for source, keep in kept.items()}
    pairs = {"candidate_pairs": verdict.candidates, "confirmed_pairs": verdict.confirmed}
    if verdict.left_alone:
        pairs["crowded_groups"] = verdict.left_alone
    return funnel.metrics() | pairs | repeats | per_source


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a table as an uncompressed Arrow IPC file."""
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def nothing_clean(sources: list[str]) -> BadInput:
    """The error for a corpus of which cleaning left nothing: what the documents were dropped for."""
    total = Funnel()
    for source in sources:
        total.merge(Funnel.from_dict(read_json(CLEAN / source / "funnel.json")))
    reasons = ", ".join(
        f"{reason} {count}" for reason, count in sorted(total.dropped.items(), key=lambda item: (-item[1], item[0]))
    )
    return BadInput(
        f"The corpus is empty: cleaning dropped all {total.seen} documents ({reasons}).",
        "Give more text in corpus.sources, or loosen the rules in clean.",
    )


def funnel_of(corpus: Corpus, verdict: Verdict) -> Funnel:
    """Counts of the step, with excerpts of the first documents dropped for each reason."""
    keep = verdict.keep
    dropped = {
        "exact_duplicate": np.flatnonzero(~keep & verdict.exact),
        "near_duplicate": np.flatnonzero(~keep & ~verdict.exact),
    }
    funnel = Funnel(
        seen=corpus.size,
        kept=int(keep.sum()),
        dropped={reason: len(numbers) for reason, numbers in dropped.items() if len(numbers)},
    )
    # clean has counted the characters of all: only the documents that go are read
    funnel.chars = sum(read_json(CLEAN / source / "funnel.json")["chars"] for source in dict.fromkeys(corpus.sources))
    for batch, rows, _ in holding(corpus, corpus.texts, np.flatnonzero(~keep)):
        funnel.chars -= pc.sum(pc.utf8_length(batch.column("text").take(pa.array(rows)))).as_py()
    for reason, numbers in dropped.items():
        texts = read_rows(corpus, [*numbers[:EXAMPLES], *verdict.kept_for[numbers[:EXAMPLES]]])
        for number in numbers[:EXAMPLES]:
            pair = (texts[int(number)], texts[int(verdict.kept_for[number])])
            gone, stays = (" ".join(text[:EXAMPLE_CHARS].split())[: EXAMPLE_CHARS // 2 - 10] for text in pair)
            funnel.examples.setdefault(reason, []).append(f"{gone} … like {stays} …")
    return funnel


def clusters_of(corpus: Corpus, verdict: Verdict) -> pa.Table:
    """Who was dropped in favour of whom, in the order of the corpus."""
    dropped = np.flatnonzero(~verdict.keep)
    names = read_rows(corpus, [*dropped, *verdict.kept_for[dropped]], "doc_id")
    part_of = np.searchsorted(corpus.starts, np.arange(corpus.size), side="right") - 1
    kept = verdict.kept_for[dropped]
    return pa.table(
        {
            "dropped": pa.array([names[int(number)] for number in dropped], pa.string()),
            "dropped_source": pa.array([corpus.sources[part_of[number]] for number in dropped], pa.string()),
            "dropped_number": pa.array(dropped, pa.int64()),
            "kept": pa.array([names[int(number)] for number in kept], pa.string()),
            "kept_source": pa.array([corpus.sources[part_of[number]] for number in kept], pa.string()),
            "kept_number": pa.array(kept, pa.int64()),
            "kind": pa.array(["exact" if exact else "near" for exact in verdict.exact[dropped]], pa.string()),
            "jaccard": pa.array(verdict.similarity[dropped], pa.float64()),
        }
    )


if __name__ == "__main__":
    sys.exit(main("dedup", run, arrow_alone=True))
