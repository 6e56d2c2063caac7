"""Stage `tokenizer`: byte-level BPE from the training shards, to `models/tokenizer/`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from roberta_core.atomic import atomic_dir
from roberta_core.data.documents import read_shards, shard_paths, text_bytes
from roberta_core.data.tokenizer import load_tokenizer, sample_by_hash, save_tokenizer, train_tokenizer
from tasks.params import Params
from tasks.stage import main

SHARDS = Path("data/shards")
OUT = Path("models/tokenizer")
MEASURED_DOCS = 500
"""Held-out documents that the bytes a token are measured on."""


def _texts(split: str) -> Iterator[str]:
    for batch in read_shards(SHARDS / split, ["text"]):
        yield from batch.column("text").to_pylist()


def run(params: Params) -> dict:
    """Trains, saves, loads back, and measures bytes a token on held-out text."""
    config = params.tokenizer
    size = sum(int(text_bytes(batch.column("text")).sum()) for batch in read_shards(SHARDS / "train", ["text"]))
    share = min(1.0, config.sample_mb * 1e6 / max(size, 1))
    shown = min(size / 1e6, config.sample_mb)
    print(
        f"tokenizer: {config.vocab_size} entries from {shown:.1f} MB in {len(shard_paths(SHARDS / 'train'))} shards",
        flush=True,
    )
    tokenizer = train_tokenizer(sample_by_hash(_texts("train"), share), config.vocab_size, config.min_frequency)
    with atomic_dir(OUT) as folder:
        save_tokenizer(tokenizer, folder)
        tokenizer = load_tokenizer(folder)
    texts = [text for text, _ in zip(_texts("validation"), range(MEASURED_DOCS))]
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    tokens = sum(len(each.ids) for each in encoded)
    words = sum(len(text.split()) for text in texts)
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "sample_mb": round(shown, 3),
        "bytes_per_token": round(sum(len(text.encode("utf8")) for text in texts) / max(tokens, 1), 4),
        "tokens_per_word": round(tokens / max(words, 1), 4),
    }


if __name__ == "__main__":
    sys.exit(main("tokenizer", run))
