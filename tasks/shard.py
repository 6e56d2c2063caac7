"""shard: the documents that dedup keeps, as training shards and a held-out validation split.

A document is held out when the hash of its text, read as a number from 0 to 1, is below `shard.validation_share`: the
choice hangs on the text alone, so that a document keeps its side when sources are added. Text of evaluation sets is
looked for in what is kept (params.decontaminate). Both that and the writing go over all workers
(`roberta_core.data.sharding`). Memory: some 20 bytes a document, and one record batch a worker.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from roberta_core.atomic import atomic_dir, write_json
from roberta_core.data.corpus import Corpus, content_hashes, open_corpus
from roberta_core.data.decontamination import Decontaminator, Search, open_search
from roberta_core.data.documents import open_shard, part_name
from roberta_core.data.funnel import Funnel
from roberta_core.data.paragraphs import Repeats, repeats_of
from roberta_core.data.sharding import Part, lay_out, prepare_part, write_shard
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


def run(params: Params) -> dict:
    """Writes data/shards/{train,validation}. Returns counts of documents, characters and parts a split."""
    corpus = open_corpus(CLEAN, list(params.corpus.sources))
    keep = read_keep(corpus, list(params.corpus.sources))
    held_out = choose_validation(content_hashes(corpus)[:, 0], keep, params.shard.validation_share)
    search, repeats, funnel = search_of(params), read_repeats(corpus), Funnel()
    evaluation, workers = open_evaluation(search), params.runtime.workers
    documents, chars = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
    with atomic_dir(SHARDS) as folder, tempfile.TemporaryDirectory(prefix=".altered-", dir=folder) as temporary:
        parts = prepare(corpus, keep, repeats, search, Path(temporary), workers)
        jobs = []
        for split, side in zip(SPLITS, (~held_out, held_out)):
            (folder / split).mkdir()
            wanted = (
                (part, part.keep & side[start : start + len(part.keep)])
                for part, start in zip(parts, corpus.starts.tolist())
            )
            layout = lay_out(wanted, params.shard.shard_mb)
            jobs += [(folder / split / part_name(number), pieces) for number, pieces in enumerate(layout)]
        progress = Progress("writing shards", len(jobs), "shards")
        for (file, _), (written, size) in zip(jobs, map_shards(write_shard, jobs, workers)):
            documents[file.parent.name] += written
            chars[file.parent.name] += size
            progress.advance()
        for part in parts:
            funnel.merge(Funnel.from_dict(part.funnel))
        total = sum(documents.values())
        funnel.seen, funnel.kept, funnel.chars = funnel.seen + total, total, sum(chars.values())
        for split in SPLITS:
            if not documents[split]:
                raise BadInput(
                    f"Nothing is left for {split} once repeated paragraphs and evaluation text are cut out.",
                    "Give more text in corpus.sources, set decontaminate.mode to report, or dedup.paragraphs to false.",
                )
        write_json(folder / "funnel.json", funnel.to_dict())
        if evaluation:
            evaluation.take_counts()  # with one worker, the search was in this process
            for part in parts:
                evaluation.add_counts(part.counts)
            table = {each.name: each.row() for each in evaluation.sets}
            write_json(folder / "decontamination.json", {"mode": params.decontaminate.mode, "sets": table})
    progress.finish(f"{documents['train']} for training, {documents['validation']} held out")
    flat = {
        f"{split}_{name}": counts[split]
        for split in SPLITS
        for name, counts in (("documents", documents), ("chars", chars))
    }
    flat |= {f"{split}_parts": sum(file.parent.name == split for file, _ in jobs) for split in SPLITS}
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
    return funnel.metrics() | flat | found


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


def prepare(
    corpus: Corpus, keep: np.ndarray, repeats: list[Repeats], search: Search | None, folder: Path, workers: int
) -> list[Part]:
    """The parts of the corpus, in order, without what has to go; altered texts lie in `folder`."""
    work = [
        (number, path, keep[start:stop], gone)
        for number, (path, start, stop, gone) in enumerate(
            zip(corpus.texts, corpus.starts, corpus.starts[1:], repeats)
        )
    ]
    progress = Progress("looking through the corpus", len(work), "parts")
    parts = []
    ready = partial(prepare_part, search=search, folder=folder)
    # where nothing is looked for, it is a reading of lengths
    for part in map_shards(ready, work, workers) if search else map(ready, work):
        parts.append(part)
        progress.advance()
    if search:
        progress.finish()
    return parts


if __name__ == "__main__":
    sys.exit(main("shard", run, arrow_alone=True))
