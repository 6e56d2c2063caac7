"""Near-duplicates among 20,000 real texts, against brute force: the exact Jaccard similarity of every pair.

The oracle shares nothing with the code under test: shingles by a pattern over the text, numbered in a dictionary, and all
pairs' common shingles as one sparse matrix product. Planted copies are of several kinds and lie on both sides of the
threshold.
"""

import random
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from roberta_core.data.clusters import join
from roberta_core.data.corpus import open_corpus
from roberta_core.data.dedup import deduplicate
from tests.core.data.test_dedup import clean_folder

DATA = Path(__file__).parents[4] / "shared" / "data"
WORD = re.compile(r"[^\W_]+|[\u4e00-\u9fff]")
THRESHOLD = 0.8
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real texts are not here")


def pieces(count: int) -> list[str]:
    """Texts of several paragraphs and 60 to some 400 words, from Wikipedia and from books in turn, no two equal."""
    rng = random.Random(7)

    def books():
        for path in sorted((DATA / "books_en").rglob("*.md")):
            yield from re.split(r"\n\s*\n", path.read_text(encoding="utf8"))

    def articles():
        for path in sorted((DATA / "wiki_en").rglob("wiki_*")):
            yield from (line for line in path.read_text(encoding="utf8").split("\n") if not line.startswith("<"))

    def joined(paragraphs):
        held, words, wanted = [], 0, rng.randint(60, 300)
        for paragraph in paragraphs:
            held.append(" ".join(paragraph.split()))
            words += len(held[-1].split())
            if words >= wanted:
                yield "\n\n".join(filter(None, held))
                held, words, wanted = [], 0, rng.randint(60, 300)

    texts: dict[str, None] = {}
    streams = [joined(books()), joined(articles())]
    while len(texts) < count:
        texts.setdefault(next(streams[len(texts) % 2]), None)
    return list(texts)


def words_replaced(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    for _ in range(rng.randint(1, max(2, len(words) // 25))):
        words[rng.randrange(len(words))] = f"changed{rng.randrange(10**6)}"
    return " ".join(words)


def sentences_dropped(text: str, rng: random.Random) -> str:
    sentences = re.split(r"(?<=[.!?]) ", text)
    for _ in range(rng.randint(1, 2)):
        if len(sentences) > 1:
            del sentences[rng.randrange(len(sentences))]
    return " ".join(sentences)


def paragraphs_moved(text: str, rng: random.Random) -> str:
    paragraphs = text.split("\n\n")
    rng.shuffle(paragraphs)
    return "\n\n".join(paragraphs)


def framed(text: str, rng: random.Random) -> str:
    """A header and a footer, as sites put around what they copy."""
    number = rng.randrange(10**6)
    links = " ".join(f"link{rng.randrange(10**6)}" for _ in range(rng.randint(2, 25)))
    return f"Home News Sport item {number}\n\n{text}\n\nCopyright {number}, all rights reserved. {links}"


KINDS = (words_replaced, sentences_dropped, paragraphs_moved, framed)


def with_copies(texts: list[str], count: int, seed: int) -> list[str]:
    """`count` texts: the given ones, and altered copies of some of them, of each kind alike many; in random order."""
    rng = random.Random(seed)
    copies = [
        KINDS[number % len(KINDS)](rng.choice(texts[: len(texts) // 3]), rng) for number in range(count - len(texts))
    ]
    mixed = [*texts, *copies]
    rng.shuffle(mixed)
    return mixed


def true_pairs(texts: list[str], threshold: float, shingle_words: int = 5) -> np.ndarray:
    """All pairs of texts whose shingle sets have a Jaccard similarity of at least `threshold`: int64 [pairs, 2]."""
    numbers: dict[tuple[str, ...], int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        words = WORD.findall(text.lower())
        found = {tuple(words[at : at + shingle_words]) for at in range(max(1, len(words) - shingle_words + 1))}
        rows += [row] * len(found)
        columns += [numbers.setdefault(shingle, len(numbers)) for shingle in found]
    sets = sparse.csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=(len(texts), len(numbers)))
    sizes = np.asarray(sets.sum(axis=1)).ravel()
    common = sparse.triu(sets @ sets.T, k=1).tocoo()
    similarity = common.data / (sizes[common.row] + sizes[common.col] - common.data)
    alike = similarity >= threshold
    return np.stack([common.row[alike], common.col[alike]], axis=1).astype(np.int64)


def judged(folder: Path, texts: list[str], threshold: float = THRESHOLD) -> dict[str, float]:
    """How the verdict on `texts` compares with brute force.

    recall, precision: of the documents that go. pairs: share of the true pairs that end in one cluster. direct: share
    of the documents that go whose own similarity to the one that stays reaches the threshold.
    """
    clean_folder(folder, "s", texts, part_mb=4)
    verdict = deduplicate(open_corpus(folder, ["s"]), True, True, threshold, 112, 5, workers=1)
    pairs = true_pairs(texts, threshold)
    should_go = join(len(texts), pairs) != np.arange(len(texts))
    goes, stays = ~verdict.keep, verdict.kept_for
    assert should_go.sum() and goes.sum()
    return {
        "should_go": int(should_go.sum()),
        "recall": (goes & should_go).sum() / should_go.sum(),
        "precision": (goes & should_go).sum() / goes.sum(),
        "pairs": (stays[pairs[:, 0]] == stays[pairs[:, 1]]).mean(),
        "direct": (verdict.similarity[goes] >= threshold).mean(),
    }


@pytest.mark.slow
def test_twenty_thousand_real_texts(tmp_path):
    texts = with_copies(pieces(14_000), 20_000, seed=1)
    found = judged(tmp_path, texts)
    print(found)
    assert found["should_go"] > 3000
    assert found["recall"] >= 0.95 and found["precision"] >= 0.99 and found["pairs"] >= 0.95


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_of_copy(tmp_path, kind):
    rng = random.Random(3)
    texts = pieces(300)
    found = judged(tmp_path, [*texts, *(kind(text, rng) for text in texts)])
    assert found["should_go"] > 100
    assert found["recall"] >= 0.95 and found["precision"] >= 0.99 and found["pairs"] >= 0.95


def test_the_articles_with_planted_duplicates_at_the_usual_threshold(tmp_path):
    lines = (DATA / "neardup" / "articles_1000.train").read_text(encoding="utf8").splitlines()
    texts = [line.split(" ", 1)[1] for line in lines]
    found = judged(tmp_path, texts)
    assert found["recall"] >= 0.95 and found["precision"] >= 0.99 and found["pairs"] >= 0.95
