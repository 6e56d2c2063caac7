"""shard: the documents that dedup keeps, as training shards and a held-out validation split.

A document is held out when the hash of its text, read as a number from 0 to 1, is below `shard.validation_share`: the
choice hangs on the text alone, so that a document keeps its side when sources are added. Text of evaluation sets is
looked for on the way (params.decontaminate), in what is kept. Memory: 8 bytes a document, one record batch, and 16 bytes
an n-gram of the evaluation sets.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roberta_core.atomic import atomic_dir, write_json
from roberta_core.data.corpus import Corpus, content_hashes, open_corpus
from roberta_core.data.decontamination import Decontaminator, find_sets, read_set
from roberta_core.data.documents import ShardWriter, open_shard
from roberta_core.data.funnel import Funnel
from roberta_core.data.paragraphs import without_paragraphs
from roberta_core.errors import BadInput
from roberta_core.progress import Progress
from tasks.params import Decontaminate, Params
from tasks.stage import main

CLEAN = Path("data/clean")
DEDUP = Path("data/dedup")
SHARDS = Path("data/shards")
SPLITS = ("train", "validation")
EVALUATION = ("evaluation_text_found", "evaluation_text_removed", "evaluation_text_only")
"""Reasons of the funnel that speak of evaluation text."""


def run(params: Params) -> dict:
    """Writes data/shards/{train,validation}. Returns counts of documents, characters and parts a split."""
    corpus = open_corpus(CLEAN, list(params.corpus.sources))
    keep = read_keep(corpus, list(params.corpus.sources))
    held_out = choose_validation(content_hashes(corpus)[:, 0], keep, params.shard.validation_share)
    counts = {split: Funnel() for split in SPLITS}
    evaluation, repeats, funnel = open_evaluation(params.decontaminate), read_repeats(), Funnel()
    progress = Progress("writing shards", corpus.size, "documents")
    with atomic_dir(SHARDS) as folder:
        writers = {split: ShardWriter(folder / split, params.shard.shard_mb) for split in SPLITS}
        with writers["train"], writers["validation"]:
            for start, batch in numbered_batches(corpus):
                rows = slice(start, start + len(batch))
                if repeats is not None:
                    batch = without_repeats(batch, start, keep[rows], repeats, funnel)
                if evaluation:
                    batch = without_evaluation(batch, keep[rows], evaluation, params.decontaminate.mode, funnel)
                for split, chosen in (
                    ("train", keep[rows] & ~held_out[rows]),
                    ("validation", keep[rows] & held_out[rows]),
                ):
                    part = batch.filter(pa.array(chosen))
                    counts[split].kept += len(part)
                    counts[split].chars += pc.sum(pc.utf8_length(part.column("text"))).as_py() or 0
                    if len(part):
                        writers[split].write(part)
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


def open_evaluation(given: Decontaminate) -> Decontaminator | None:
    """The evaluation sets that the params name, ready to be looked for; None where the mode is off.

    Raises:
        BadInput: a set is not there, cannot be read, or has no text that is long enough.
    """
    if given.mode == "off":
        return None
    files = find_sets(Path(given.path), given.sets)
    sets = [read_set(name, paths, given.words, given.min_words) for name, paths in files.items()]
    print(f"looking for {sum(each.texts for each in sets)} texts of {len(sets)} evaluation sets", flush=True)
    return Decontaminator(sets, given.words, given.min_words)


def read_repeats() -> tuple[np.ndarray, np.ndarray] | None:
    """dedup's repeated paragraphs: int64 numbers of documents, ascending, and int32 places of lines; None where it made none."""
    path = DEDUP / "paragraphs.arrow"
    if not path.exists():
        return None
    table = open_shard(path).read_all()
    return table.column("number").to_numpy(), table.column("place").to_numpy()


def without_repeats(
    batch: pa.RecordBatch, start: int, keep: np.ndarray, repeats: tuple[np.ndarray, np.ndarray], funnel: Funnel
) -> pa.RecordBatch:
    """The batch (its first document has the number `start`) without the paragraphs that stand earlier in the corpus.

    A document of which nothing is left is counted as dropped, and taken out of `keep` (bool [rows], changed in place).
    """
    numbers, places = repeats
    low, high = np.searchsorted(numbers, [start, start + len(batch)])
    if low == high:
        return batch
    texts = batch.column("text").to_pylist()
    mine, firsts = np.unique(numbers[low:high], return_index=True)
    for number, gone in zip(mine, np.split(places[low:high], firsts[1:])):
        row = int(number) - start
        excerpt = texts[row].split("\n")[gone[0]]
        texts[row] = without_paragraphs(texts[row], gone)
        if texts[row]:
            funnel.change("repeated_paragraphs_removed", excerpt)
        else:
            funnel.drop("repeated_paragraphs_only", excerpt)
            keep[row] = False
    return pa.record_batch([pa.array(texts, pa.string()), *batch.columns[1:]], schema=batch.schema)


def without_evaluation(
    batch: pa.RecordBatch, keep: np.ndarray, evaluation: Decontaminator, mode: str, funnel: Funnel
) -> pa.RecordBatch:
    """The batch with evaluation text counted in the funnel, and cut out where the mode is remove.

    A document of which nothing is left is counted as dropped, and taken out of `keep` (bool [rows], changed in place).
    """
    rows = np.flatnonzero(keep)
    texts = batch.column("text").take(pa.array(rows)).to_pylist()
    found = evaluation.find(texts)
    if not found:
        return batch
    every: list[str] | None = batch.column("text").to_pylist() if mode == "remove" else None
    for place, runs in found.items():
        text = texts[place]
        excerpt = " … ".join(" ".join(text[slice(*span)].split()) for span in evaluation.spans(text, runs[:1]))
        if every is None:
            funnel.change("evaluation_text_found", excerpt)
            continue
        left = evaluation.cut(text, runs)
        every[rows[place]] = left
        if left:
            funnel.change("evaluation_text_removed", excerpt)
        else:
            funnel.drop("evaluation_text_only", excerpt)
            keep[rows[place]] = False
    if every is None:
        return batch
    return pa.record_batch([pa.array(every, pa.string()), *batch.columns[1:]], schema=batch.schema)


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


def numbered_batches(corpus: Corpus):
    """Record batches of the clean documents, in order, each with the number of its first document."""
    for path, start in zip(corpus.texts, corpus.starts):
        reader = open_shard(path)
        start = int(start)
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            yield start, batch
            start += len(batch)


if __name__ == "__main__":
    sys.exit(main("shard", run))
