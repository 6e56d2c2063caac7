"""Near-duplicate search beside daft, rensa and datasketch: texts to clusters, documents a second, on one core.

    python benchmarks/dedup.py                       # 100,000 documents of 250 words, 5 rounds
    python benchmarks/dedup.py --documents 20000 --rounds 3

All take the same texts (../shared/data or --data: Wikipedia and books, one in twenty an altered copy of another), 112
hashes and shingles of 5 words, and run in turn in each round, pinned to one core. This project's route is the one of its
stages: signatures into files, bands, every candidate verified by its true Jaccard similarity, clusters. The peers have
signatures only: theirs are put through this project's bands and union-find, in memory and without verification, the
least work that gives clusters. daft splits at spaces and lower-cases nothing; `daft, normalised` does so first, as
this project does. datasketch sees a twentieth of the documents.
"""

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from roberta_core.data.bands import band_keys, bands_and_rows, grouped  # noqa: E402
from roberta_core.data.cleaning import HASH_BYTES, signature_schema  # noqa: E402
from roberta_core.data.clusters import Clusters  # noqa: E402
from roberta_core.data.corpus import open_corpus  # noqa: E402
from roberta_core.data.dedup import deduplicate  # noqa: E402
from roberta_core.data.documents import Document, shard_paths, write_shards  # noqa: E402
from roberta_core.data.minhash import MinHasher  # noqa: E402

HASHES, SHINGLE_WORDS, THRESHOLD = 112, 5, 0.8


def documents(data: Path, count: int, words: int) -> tuple[list[str], np.ndarray]:
    """Texts of `words` words, and pairs (int64 [pairs, 2]) of each altered copy with its original."""
    originals, held = [], []
    wanted = count - count // 20
    for path in [*sorted((data / "wiki_en").rglob("wiki_*")), *sorted((data / "books_en").rglob("*.md"))]:
        for line in path.read_text(encoding="utf8").split("\n"):
            held += [] if line.startswith("<") else line.split()
            while len(held) >= words:
                originals.append(" ".join(held[:words]))
                del held[:words]
        if len(originals) >= wanted:
            break
    originals = originals[:wanted]
    rng = random.Random(1)
    copies, pairs = [], []
    for number in range(len(originals) // 19):
        source = rng.randrange(len(originals))
        changed = originals[source].split(" ")
        for _ in range(rng.randint(1, words // 60)):
            changed[rng.randrange(len(changed))] = f"changed{rng.randrange(10**6)}"
        copies.append(" ".join(changed))
        pairs.append((source, len(originals) + number))
    return originals + copies, np.array(pairs)


def ours(shards: Path, folder: Path) -> np.ndarray:
    """The stages' way: the roots of the clusters."""
    schema, hasher = signature_schema(HASHES), MinHasher(HASHES, SHINGLE_WORDS)
    (folder / "s").mkdir()
    for part in shard_paths(shards):
        (folder / "s" / part.name).symlink_to(part)
        reader = pa.ipc.open_file(pa.memory_map(str(part)))
        with pa.ipc.new_file(folder / "s" / part.name.replace("part-", "signatures-"), schema) as writer:
            for index in range(reader.num_record_batches):
                signatures = hasher(reader.get_batch(index).column("text"))
                columns = [
                    pa.array([bytes(HASH_BYTES)] * len(signatures), schema.field("hash").type),
                    pa.FixedSizeListArray.from_arrays(pa.array(signatures.reshape(-1)), HASHES),
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
    corpus = open_corpus(folder, ["s"])
    return deduplicate(corpus, False, True, THRESHOLD, HASHES, SHINGLE_WORDS, 1, folder).kept_for


def clusters_of(signatures: np.ndarray) -> np.ndarray:
    """The roots of the clusters of documents that share a band."""
    bands, rows = bands_and_rows(HASHES, THRESHOLD)
    clusters = Clusters(len(signatures))
    for keys in band_keys(signatures, bands, rows):
        members, starts = grouped(keys, np.arange(len(keys)))
        leaders = np.repeat(members[starts], np.diff(starts, append=len(members)))
        clusters.unite(leaders, members)
    return clusters.roots()


def with_daft(texts: list[str], normalise: bool) -> np.ndarray:
    import daft
    from daft.functions import minhash

    frame = daft.from_arrow(pa.table({"text": pa.array(texts, pa.large_string())}))
    text = daft.col("text")
    if normalise:
        text = text.normalize(remove_punct=True, lowercase=True, nfd_unicode=False, white_space=True)
    found = frame.select(minhash(text, num_hashes=HASHES, ngram_size=SHINGLE_WORDS).alias("minhash")).to_arrow()
    column = found.column("minhash").combine_chunks()
    return clusters_of(column.flatten().to_numpy().reshape(-1, HASHES))


def _shingles(text: str) -> list[str]:
    words = text.split(" ")
    return [" ".join(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1)]


def with_rensa(texts: list[str]) -> np.ndarray:
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_token_sets([_shingles(text) for text in texts], HASHES, 1)
    return clusters_of(np.array(matrix.to_rows(), np.uint32))


def with_datasketch(texts: list[str]) -> np.ndarray:
    from datasketch import MinHash

    shingles = ([shingle.encode() for shingle in _shingles(text)] for text in texts)
    return clusters_of(np.array([one.hashvalues for one in MinHash.bulk(shingles, num_perm=HASHES)], np.uint32))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--documents", type=int, default=100_000)
    options.add_argument("--words", type=int, default=250)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    given = options.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before a peer starts its threads
    import daft

    daft.set_runner_native(num_threads=1)
    texts, planted = documents(given.data, given.documents, given.words)
    few = len(texts) // 20
    print(f"{len(texts)} documents of {given.words} words, {len(planted)} of them altered copies; one core of")
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, {HASHES} hashes")

    with tempfile.TemporaryDirectory() as temporary:
        shards = Path(temporary) / "shards"
        write_shards((Document(text, "s", str(number)) for number, text in enumerate(texts)), shards, 64)

        def stages(_: list[str]) -> np.ndarray:
            with tempfile.TemporaryDirectory(dir=temporary) as folder:
                return ours(shards, Path(folder))

        routes: dict[str, tuple[Callable, list[str]]] = {
            "this project": (stages, texts),
            f"daft {version('daft')}": (lambda given: with_daft(given, False), texts),
            "daft, normalised": (lambda given: with_daft(given, True), texts),
            f"rensa {version('rensa')}": (with_rensa, texts),
            f"datasketch {version('datasketch')}": (with_datasketch, texts[:few]),
        }
        speeds: dict[str, list[float]] = {name: [] for name in routes}
        recall = {}
        for number in range(given.rounds):
            for name, (route, these) in routes.items():
                if number and these is not texts:
                    continue  # once is enough for the slowest
                started = time.perf_counter()
                roots = route(these)
                speeds[name].append(len(these) / (time.perf_counter() - started))
                if these is texts:
                    recall[name] = float((roots[planted[:, 0]] == roots[planted[:, 1]]).mean())
    mine = float(np.median(speeds["this project"]))
    print("\n| route | documents/s, median | least to most | copies found | this project to it |")
    print("|---|---|---|---|---|")
    for name, each in speeds.items():
        median = float(np.median(each))
        found = f"{recall[name]:.4f}" if name in recall else ""
        print(f"| {name} | {median:,.0f} | {min(each):,.0f} to {max(each):,.0f} | {found} | {mine / median:.2f} |")


if __name__ == "__main__":
    main()
