"""Stage `pack`: document shards to rows of a fixed length, to `data/packed/{train,validation}/`. One file a shard."""

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from roberta_core.atomic import atomic_dir, digest_of, write_json
from roberta_core.data.chinese_words import WordEncoder, open_jieba
from roberta_core.data.documents import open_shard, shard_paths
from roberta_core.data.encoders import encoder_of
from roberta_core.data.encoding import Encoder
from roberta_core.data.packing import write_packed
from roberta_core.data.tokenizer import load_tokenizer
from roberta_core.errors import BadInput
from roberta_core.executor import worker_count
from roberta_core.progress import Progress
from roberta_core.reuse import Reuse
from tasks.params import Params
from tasks.stage import WORK, main

SHARDS = Path("data/shards")
TOKENIZER = Path("models/tokenizer")
OUT = Path("data/packed")
KEPT = WORK / "packed"
SPLITS = ("train", "validation")


def _encoded(shard: Path, encoder: Encoder | WordEncoder) -> Iterator[list[np.ndarray]]:
    """Token ids of a shard's documents, one list a record batch."""
    reader = open_shard(shard)
    for number in range(reader.num_record_batches):
        yield encoder.encode(reader.get_batch(number).column("text"))


def pack_shard(
    job: tuple[Path, Path], mode: str, max_length: int, vocab_size: int, words: bool, digest: str, alone: bool
) -> tuple[dict[str, int], str]:
    """Packs one document shard into one file; returns its counts and its sha256.

    `words`: store where words begin. `digest` is of the tokenizer. `alone`: no other process packs, so the tokenizer may
    use all cores.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if alone else "false"
    shard, file = job
    texts = _encoded(shard, encoder_of(TOKENIZER, digest, words))
    counts = write_packed(texts, file, mode, max_length, vocab_size, words)
    return counts, digest_of(file)


def run(params: Params) -> dict:
    """Packs both splits and writes a manifest for each."""
    vocab_size = load_tokenizer(TOKENIZER).get_vocab_size()
    config, words = params.pack, params.pack.word_boundaries == "jieba"
    if words:
        open_jieba()  # where it is missing, that is said before any work
    tokenizer_sha256, reuse = digest_of(TOKENIZER / "tokenizer.json"), Reuse(KEPT)
    recipe = {**config.model_dump(), "tokenizer": tokenizer_sha256}
    with atomic_dir(OUT) as out:
        jobs = [(shard, out / split / shard.name) for split in SPLITS for shard in shard_paths(SHARDS / split)]
        for split in SPLITS:
            (out / split).mkdir()
        pack = partial(
            pack_shard,
            mode=config.mode,
            max_length=config.max_length,
            vocab_size=vocab_size,
            words=words,
            digest=tokenizer_sha256,
            alone=min(worker_count(params.runtime.workers), len(jobs)) <= 1,
        )
        totals = {split: {"documents": 0, "tokens": 0, "rows": 0, "padding": 0} for split in SPLITS}
        files: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
        progress = Progress("pack", len(jobs), "shards")
        # Both splits at once: workers start once, and the short split does not wait for the long one.
        for (_, file), (counts, digest) in zip(jobs, reuse.map(pack, jobs, params.runtime.workers, recipe)):
            total = totals[file.parent.name]
            files[file.parent.name][file.name] = digest
            totals[file.parent.name] = {name: total[name] + counts[name] for name in total}
            progress.advance()
        progress.finish(", ".join(f"{split} {totals[split]['rows']} rows" for split in SPLITS))
        metrics: dict[str, float] = {}
        for split, total in totals.items():
            if not total["rows"]:
                raise BadInput(
                    f"No {split} document has a token.", "Give the corpus more text, or lower clean.min_chars."
                )
            manifest = {**total, "mode": config.mode, "max_length": config.max_length, "vocab_size": vocab_size}
            manifest |= {"word_boundaries": config.word_boundaries} if words else {}
            manifest |= {"tokenizer_sha256": tokenizer_sha256, "files_sha256": files[split]}
            write_json(out / split / "manifest.json", manifest)
            metrics |= {f"{split}_{name}": value for name, value in total.items()}
            metrics[f"{split}_fill"] = round(1 - total["padding"] / (total["rows"] * config.max_length), 6)
    reuse.forget_others()
    if reuse.taken:
        print(f"pack: {reuse.taken} shards as they were", flush=True)
    return metrics


if __name__ == "__main__":
    sys.exit(main("pack", run, arrow_alone=True))
