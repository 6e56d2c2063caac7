"""clean: one source's documents in normal form, without those that are no text, and their signatures."""

import sys
from functools import partial
from pathlib import Path

from roberta_core.atomic import atomic_dir, write_json
from roberta_core.data.cleaning import Rules, clean_shard
from roberta_core.data.documents import shard_paths
from roberta_core.data.funnel import Funnel
from roberta_core.data.mending import languages
from roberta_core.data.minhash import MinHasher
from roberta_core.data.rules import expand
from roberta_core.errors import BadParams
from roberta_core.executor import map_shards
from roberta_core.progress import Progress
from tasks.params import Params
from tasks.stage import main

RAW = Path("data/raw")
CLEAN = Path("data/clean")


def run(params: Params, source: str) -> dict:
    """Cleans data/raw/<source> into data/clean/<source>. Returns the funnel's counts."""
    if source not in params.corpus.sources:
        raise BadParams(f"There is no source {source}.", f"corpus.sources has: {', '.join(params.corpus.sources)}.")
    given = params.clean
    rules = Rules(
        given.min_chars,
        given.max_symbol_share,
        given.min_mean_word_chars,
        given.max_mean_word_chars,
        given.max_repeated_line_share,
        given.mend,
        given.drop_repeated_lines,
        given.boilerplate_documents,
        expand(given.rules, given.rules_off),
        tuple(given.mask),
        tuple(given.languages),
        given.min_language_probability,
    )
    if unknown := set(given.languages).difference(languages() if given.languages else ()):
        raise BadParams(
            f"clean.languages has {', '.join(sorted(unknown))}, which cannot be told.",
            f"It takes: {', '.join(languages())}.",
        )
    hasher = MinHasher(given.num_hashes, given.shingle_words)
    parts = shard_paths(RAW / source)
    funnel = Funnel()
    progress = Progress(f"cleaning {source}", len(parts), "parts")
    with atomic_dir(CLEAN / source) as folder:
        for counted in map_shards(
            partial(clean_shard, folder=folder, rules=rules, hasher=hasher), parts, params.runtime.workers
        ):
            funnel.merge(Funnel.from_dict(counted))
            progress.advance(1, f"{funnel.kept} of {funnel.seen} documents kept")
        write_json(folder / "funnel.json", funnel.to_dict())
    progress.finish(f"{funnel.kept} of {funnel.seen} documents kept")
    return funnel.metrics()


if __name__ == "__main__":
    sys.exit(main("clean", run, arrow_alone=True))
