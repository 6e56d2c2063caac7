"""Stage `tokenizer`: byte-level BPE learned from the training shards, or one that is there, to `models/tokenizer/`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from roberta_core.atomic import atomic_dir
from roberta_core.data.documents import read_shards, shard_paths, text_bytes
from roberta_core.data.grown_tokenizer import grow_tokenizer
from roberta_core.data.tokenizer import (
    load_tokenizer,
    measure_tokenizer,
    sample_by_hash,
    save_tokenizer,
    train_tokenizer,
)
from tasks.params import Params
from tasks.params import Tokenizer as TokenizerParams
from tasks.stage import main

SHARDS = Path("data/shards")
OUT = Path("models/tokenizer")
MEASURED_DOCS = 500
"""Held-out documents that the tokenizer is measured on."""


def _texts(split: str) -> Iterator[str]:
    for batch in read_shards(SHARDS / split, ["text"]):
        yield from batch.column("text").to_pylist()


def _learned(config: TokenizerParams) -> tuple[Tokenizer, dict]:
    """A tokenizer from the sample, alone or on top of the given one; and the numbers of the sample."""
    size = sum(int(text_bytes(batch.column("text")).sum()) for batch in read_shards(SHARDS / "train", ["text"]))
    share = min(1.0, config.sample_mb * 1e6 / max(size, 1))
    shown = min(size / 1e6, config.sample_mb)
    print(
        f"tokenizer: {config.vocab_size} entries from {shown:.1f} MB in {len(shard_paths(SHARDS / 'train'))} shards",
        flush=True,
    )
    sample = sample_by_hash(_texts("train"), share)
    if config.start == "continue":
        old = load_tokenizer(Path(config.init))
        tokenizer = grow_tokenizer(old, sample, config.vocab_size, config.min_frequency, config.max_token_bytes)
        return tokenizer, {"kept": old.get_vocab_size(), "sample_mb": round(shown, 3)}
    tokenizer = train_tokenizer(sample, config.vocab_size, config.min_frequency, config.max_token_bytes)
    return tokenizer, {"sample_mb": round(shown, 3)}


def run(params: Params) -> dict:
    """Learns or takes a tokenizer, saves, loads back, and measures it on held-out text."""
    config = params.tokenizer
    if config.start == "take":
        tokenizer, numbers = load_tokenizer(Path(config.init)), {}
        print(
            f"tokenizer: {config.init} as it is, {tokenizer.get_vocab_size()} entries; tokenizer.vocab_size is not used",
            flush=True,
        )
    else:
        tokenizer, numbers = _learned(config)
    with atomic_dir(OUT) as folder:
        save_tokenizer(tokenizer, folder)
        tokenizer = load_tokenizer(folder)
    texts = [text for text, _ in zip(_texts("validation"), range(MEASURED_DOCS))]
    return {"vocab_size": tokenizer.get_vocab_size(), **numbers, **measure_tokenizer(tokenizer, texts)}


if __name__ == "__main__":
    sys.exit(main("tokenizer", run, arrow_alone=True))
