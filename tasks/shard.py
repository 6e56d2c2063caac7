"""shard: the documents that dedup keeps, as training shards and a held-out validation split.

A document is held out when the hash of its text, read as a number from 0 to 1, is below `shard.validation_share`: the
choice hangs on the text alone, so that a document keeps its side when sources are added. Memory: 8 bytes a document,
and one record batch.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roberta_core.atomic import atomic_dir, write_json
from roberta_core.data.corpus import Corpus, content_hashes, open_corpus
from roberta_core.data.documents import ShardWriter, open_shard
from roberta_core.data.funnel import Funnel
from roberta_core.errors import BadInput
from roberta_core.progress import Progress
from tasks.params import Params
from tasks.stage import main

CLEAN = Path("data/clean")
DEDUP = Path("data/dedup")
SHARDS = Path("data/shards")
SPLITS = ("train", "validation")


def run(params: Params) -> dict:
    """Writes data/shards/{train,validation}. Returns counts of documents, characters and parts a split."""
    corpus = open_corpus(CLEAN, list(params.corpus.sources))
    keep = read_keep(corpus, list(params.corpus.sources))
    held_out = choose_validation(content_hashes(corpus)[:, 0], keep, params.shard.validation_share)
    counts = {split: Funnel() for split in SPLITS}
    parts = {}
    progress = Progress("writing shards", corpus.size, "documents")
    with atomic_dir(SHARDS) as folder:
        writers = {split: ShardWriter(folder / split, params.shard.shard_mb) for split in SPLITS}
        with writers["train"], writers["validation"]:
            for start, batch in numbered_batches(corpus):
                rows = slice(start, start + len(batch))
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
        funnel = Funnel(seen=total, kept=total, chars=sum(count.chars for count in counts.values()))
        write_json(folder / "funnel.json", funnel.to_dict())
    progress.finish(f"{counts['train'].kept} for training, {counts['validation'].kept} held out")
    flat = {
        f"{split}_{name}": getattr(counts[split], field)
        for split in SPLITS
        for name, field in (("documents", "kept"), ("chars", "chars"))
    }
    return funnel.metrics() | flat | parts


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
