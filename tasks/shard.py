"""shard: the documents that dedup keeps, as training shards and a held-out validation split.

A document is held out when the hash of its text, read as a number from 0 to 1, is below `shard.validation_share`: the
choice hangs on the text alone, so that a document keeps its side when sources are added. Text of evaluation sets is
looked for in what is kept (params.decontaminate), a clean part a unit of work; what is found comes back while the parts
before are written. Memory: 8 bytes a document, one record batch, and the contaminated documents of the parts under way.
"""

import sys
from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roberta_core.atomic import atomic_dir, write_json
from roberta_core.data.corpus import Corpus, content_hashes, open_corpus
from roberta_core.data.decontamination import Decontaminator, PartFinds, Search, open_search, search_part
from roberta_core.data.documents import ShardWriter, open_shard
from roberta_core.data.funnel import Funnel
from roberta_core.data.paragraphs import Repeats, repeats_of, without_paragraphs
from roberta_core.errors import BadInput
from roberta_core.executor import map_shards
from roberta_core.progress import Progress
from tasks.params import Params
from tasks.stage import main

CLEAN = Path("data/clean")
DEDUP = Path("data/dedup")
SHARDS = Path("data/shards")
SPLITS = ("train", "validation")
EVALUATION = ("evaluation_text_found", "evaluation_text_removed", "evaluation_text_only")
"""Reasons of the funnel that speak of evaluation text."""

Value = TypeVar("Value")


def run(params: Params) -> dict:
    """Writes data/shards/{train,validation}. Returns counts of documents, characters and parts a split."""
    corpus = open_corpus(CLEAN, list(params.corpus.sources))
    keep = read_keep(corpus, list(params.corpus.sources))
    held_out = choose_validation(content_hashes(corpus)[:, 0], keep, params.shard.validation_share)
    counts = {split: Funnel() for split in SPLITS}
    search, repeats, funnel = search_of(params), read_repeats(corpus), Funnel()
    evaluation, counted = open_evaluation(search), []
    progress = Progress("writing shards", corpus.size, "documents")
    with atomic_dir(SHARDS) as folder:
        writers = {split: ShardWriter(folder / split, params.shard.shard_mb) for split in SPLITS}
        with writers["train"], writers["validation"]:
            for part, found in enumerate(look_through(corpus, keep, repeats, search, params.runtime.workers)):
                counted.append(found.counts)
                for start, batch, gone, contaminated in batches_of(corpus, part, repeats[part], found.documents):
                    rows = slice(start, start + len(batch))
                    batch = without_repeats(batch, keep[rows], gone, funnel)
                    batch = without_evaluation(batch, keep[rows], contaminated, funnel)
                    for split, chosen in (
                        ("train", keep[rows] & ~held_out[rows]),
                        ("validation", keep[rows] & held_out[rows]),
                    ):
                        chosen_rows = batch.filter(pa.array(chosen))
                        counts[split].kept += len(chosen_rows)
                        counts[split].chars += pc.sum(pc.utf8_length(chosen_rows.column("text"))).as_py() or 0
                        if len(chosen_rows):
                            writers[split].write(chosen_rows)
                    progress.advance(len(batch))
        parts = {f"{split}_parts": len(writers[split].paths) for split in SPLITS}
        total = sum(count.kept for count in counts.values())
        funnel.seen, funnel.kept = funnel.seen + total, total
        funnel.chars = sum(count.chars for count in counts.values())
        for split in SPLITS:
            if not counts[split].kept:
                raise BadInput(
                    f"Nothing is left for {split} once repeated paragraphs and evaluation text are cut out.",
                    "Give more text in corpus.sources, set decontaminate.mode to report, or dedup.paragraphs to false.",
                )
        write_json(folder / "funnel.json", funnel.to_dict())
        if evaluation:
            evaluation.take_counts()  # with one worker, the search was in this process
            for each in counted:
                evaluation.add_counts(each)
            table = {each.name: each.row() for each in evaluation.sets}
            write_json(folder / "decontamination.json", {"mode": params.decontaminate.mode, "sets": table})
    progress.finish(f"{counts['train'].kept} for training, {counts['validation'].kept} held out")
    flat = {
        f"{split}_{name}": getattr(counts[split], field)
        for split in SPLITS
        for name, field in (("documents", "kept"), ("chars", "chars"))
    }
    found = (
        {
            "evaluation_texts": sum(each.texts for each in evaluation.sets),
            "evaluation_texts_found": sum(int(each.found.sum()) for each in evaluation.sets),
            "contaminated_documents": sum(
                counts.get(reason, 0) for counts in (funnel.changed, funnel.dropped) for reason in EVALUATION
            ),
        }
        if evaluation
        else {}
    )
    return funnel.metrics() | flat | parts | found


def search_of(params: Params) -> Search | None:
    """What is looked for; None where the mode is off."""
    given = params.decontaminate
    if given.mode == "off":
        return None
    return Search(Path(given.path), tuple(given.sets), given.words, given.min_words, given.mode == "remove")


def open_evaluation(search: Search | None) -> Decontaminator | None:
    """The evaluation sets, in which is counted what is found.

    Raises:
        BadInput: a set is not there, cannot be read, or has no text that is long enough.
    """
    if search is None:
        return None
    evaluation = open_search(search)
    print(
        f"looking for {sum(each.texts for each in evaluation.sets)} texts of {len(evaluation.sets)} evaluation sets",
        flush=True,
    )
    return evaluation


def read_repeats(corpus: Corpus) -> list[Repeats]:
    """dedup's repeated paragraphs, part by part of the corpus; empty where it made none."""
    path = DEDUP / "paragraphs.arrow"
    if not path.exists():
        return [{} for _ in corpus.texts]
    table = open_shard(path).read_all()
    numbers, places = table.column("number").to_numpy(), table.column("place").to_numpy()
    return [
        repeats_of(numbers, places, int(start), int(stop)) for start, stop in zip(corpus.starts, corpus.starts[1:])
    ]


def without_repeats(batch: pa.RecordBatch, keep: np.ndarray, repeats: Repeats, funnel: Funnel) -> pa.RecordBatch:
    """The batch without the paragraphs that stand earlier in the corpus.

    A document of which nothing is left is counted as dropped, and taken out of `keep` (bool [rows], changed in place).
    """
    if not repeats:
        return batch
    texts = batch.column("text").to_pylist()
    for row, gone in repeats.items():
        excerpt = texts[row].split("\n")[gone[0]]
        texts[row] = without_paragraphs(texts[row], gone)
        if texts[row]:
            funnel.change("repeated_paragraphs_removed", excerpt)
        else:
            funnel.drop("repeated_paragraphs_only", excerpt)
            keep[row] = False
    return pa.record_batch([pa.array(texts, pa.string()), *batch.columns[1:]], schema=batch.schema)


def without_evaluation(
    batch: pa.RecordBatch, keep: np.ndarray, found: dict[int, tuple[str, str | None]], funnel: Funnel
) -> pa.RecordBatch:
    """The batch with evaluation text counted in the funnel, and cut out where that was asked for.

    A document of which nothing is left is counted as dropped, and taken out of `keep` (bool [rows], changed in place).

    Args:
        found: as `PartFinds.documents`, by row of the batch.
    """
    texts: list[str] | None = None
    for row, (excerpt, left) in found.items():
        if left is None:
            funnel.change("evaluation_text_found", excerpt)
            continue
        texts = texts or batch.column("text").to_pylist()
        texts[row] = left
        if left:
            funnel.change("evaluation_text_removed", excerpt)
        else:
            funnel.drop("evaluation_text_only", excerpt)
            keep[row] = False
    if texts is None:
        return batch
    return pa.record_batch([pa.array(texts, pa.string()), *batch.columns[1:]], schema=batch.schema)


def read_keep(corpus: Corpus, sources: list[str]) -> np.ndarray:
    """dedup's marks for all documents of the corpus: bool [documents]."""
    columns = [open_shard(DEDUP / f"keep-{source}.arrow").read_all().column("keep").to_numpy() for source in sources]
    keep = np.concatenate(columns).astype(bool)
    if len(keep) != corpus.size:
        raise BadInput(
            f"{DEDUP} marks {len(keep)} documents, {CLEAN} has {corpus.size}.", "Run dedup again: dvc repro dedup"
        )
    return keep


def choose_validation(hashes: np.ndarray, keep: np.ndarray, share: float) -> np.ndarray:
    """Who is held out: bool [documents]; at least one text, and at least one text left for training.

    `hashes` is the first half of the content hash: uint64 [documents]. Equal texts go to the same side.

    Raises:
        BadInput: fewer than two different texts.
    """
    present = np.unique(hashes[keep])
    if len(present) < 2:
        many = "is empty" if not len(present) else "has only one document"
        raise BadInput(
            f"The corpus {many} after dedup; training and validation need one each.",
            "Give more text in corpus.sources, or loosen the rules in clean.",
        )
    bound = np.uint64(share * 2.0**64)
    bound = min(max(bound, present[0] + np.uint64(1)), present[-1])
    return hashes < bound


def look_through(
    corpus: Corpus, keep: np.ndarray, repeats: list[Repeats], search: Search | None, workers: int
) -> Iterator[PartFinds]:
    """The evaluation text in each part of the corpus, in order; nothing where nothing is looked for."""
    if search is None:
        return repeat(PartFinds({}, []), len(corpus.texts))
    work = [
        (path, keep[start:stop].copy(), gone)  # a copy: the marks change while the parts are written
        for path, start, stop, gone in zip(corpus.texts, corpus.starts, corpus.starts[1:], repeats)
    ]
    return map_shards(partial(search_part, search=search), work, workers)


def batches_of(
    corpus: Corpus, part: int, *by_row: dict[int, Value]
) -> Iterator[tuple[int, pa.RecordBatch, *tuple[dict[int, Value], ...]]]:
    """Record batches of a part.

    Yields:
        The number of the batch's first document, the batch, and what `by_row` has for its rows, by row of the batch.
    """
    path = corpus.texts[part]
    bounds = corpus.batch_rows[path].tolist()
    split = [[{} for _ in bounds] for _ in by_row]
    for each, mine in zip(by_row, split):
        for row, value in each.items():
            batch = bisect_right(bounds, row) - 1
            mine[batch][row - bounds[batch]] = value
    reader = open_shard(path)
    for index in range(reader.num_record_batches):
        yield int(corpus.starts[part]) + bounds[index], reader.get_batch(index), *(mine[index] for mine in split)


if __name__ == "__main__":
    sys.exit(main("shard", run, arrow_alone=True))
