"""Makes the nine sample tasks: labelled rows in GLUE's layout, generated from the documents of a corpus.

They show that the whole chain works on any text, offline. They are not GLUE, their scores say nothing about GLUE, and
nothing here is judged by people: labels follow from how a row was made, as `DESCRIPTIONS` says for each task.

A pool of passages is chosen by hash, so memory is bounded and the order of documents does not matter. Documents are
dealt to train, dev and test by hash, a sentence that occurs in two documents belongs to the first alone, and a row's
texts come from its own split: no sentence of dev or test was seen in train. All labels of a task are equally frequent.
Everything follows from the seed and the documents. What it costs: one pass over the corpus.
"""

import hashlib
import heapq
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from roberta_core.errors import BadInput
from roberta_core.glue.layout import Split, one_line
from roberta_core.glue.tasks import SPLITS, Task

DESCRIPTIONS = {
    "CoLA": "a real sentence (acceptable), or its words in random order (unacceptable)",
    "SST-2": "a sentence with a word of negation (negative), or one without (positive)",
    "MRPC": "a sentence and a copy with words left out and swapped (equivalent), or two different sentences",
    "STS-B": "a sentence and 1 to 5 fifths (the score) of its words in order, or a few words of another sentence (0)",
    "RTE": "a sentence and a part of it, each as it stands or denied: entailment if both or neither are denied",
    "WNLI": "two sentences in a row and a part of the second (entailment), or a part of a sentence from another document",
    "QNLI": "a question for a number or for a denial, and a sentence that holds one of the two: entailment if it is that one",
    "QQP": "two questions on three words, in several wordings: duplicate if both ask whether or both ask why",
    "MNLI": "a sentence and a part of it (entailment), that part denied (contradiction), or a foreign part (neutral)",
}
"""How the rows of each sample task are made, in words; shown with the scores.

Some need a word (SST-2), some the order of words (CoLA, MRPC), some both texts at once though neither tells alone (RTE,
QNLI, QQP), so a bag of words is at chance there. To compare two texts word by word (WNLI, the neutral rows of MNLI)
takes more pretraining than some minutes, and shows whether there was any.
"""

PASSAGE_CHARS = 2000
POOL_PASSAGES = 12
"""Passages in the pool for each training row of a task: enough for the rarer kinds of sentences; 24 kB of memory."""
MIN_WORDS, MAX_WORDS = 6, 14
MIN_ROWS = 24
"""Training rows below which a sample task is not worth having."""

_END = re.compile(r"(?<=[.!?。！？؟।])[\"'”’)\]]*\s+|(?<=[。！？])")
_NEGATION_WORDS = """no not never none neither nor nothing nobody without cannot can't don't doesn't didn't isn't aren't wasn't
weren't won't wouldn't couldn't shouldn't hasn't haven't 不 没 沒 無 无 未 非"""
_NEGATIONS = frozenset(_NEGATION_WORDS.split())


@dataclass(frozen=True)
class Sentence:
    """One sentence of the pool: its words and what joins them (nothing in scripts without spaces), its document, what follows."""

    words: tuple[str, ...]
    joiner: str
    document: str
    following: "Sentence | None"

    @property
    def text(self) -> str:
        """The sentence as it stood."""
        return self.joiner.join(self.words)


def _hash(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("/".join(parts).encode("utf8", "surrogatepass"), digest_size=8).digest())


def passages(text: str) -> Iterator[str]:
    """Cuts a document into passages of whole paragraphs, of about `PASSAGE_CHARS` characters."""
    held, size = [], 0
    for paragraph in re.split(r"\n\s*\n", text):
        for start in range(0, len(paragraph), PASSAGE_CHARS):
            held.append(paragraph[start : start + PASSAGE_CHARS])
            size += len(held[-1])
            if size >= PASSAGE_CHARS:
                yield "\n\n".join(held)
                held, size = [], 0
    if held:
        yield "\n\n".join(held)


def split_words(text: str) -> tuple[tuple[str, ...], str]:
    """Words and what joins them: split at spaces, or into characters where a script writes without spaces."""
    words = tuple(text.split())
    if len(words) >= MIN_WORDS or len(text) < 2 * MIN_WORDS:
        return words, " "
    return tuple(text), ""


def _plain(text: str) -> bool:
    """Whether a text reads like prose: no code, no table, no lower-case beginning, a stop at the end."""
    letters = sum(1 for char in text if char.isalpha() or char == " ")
    return text[-1:] in ".!?。！？؟।" and not text[0].islower() and text[0].isalnum() and letters >= 0.9 * len(text)


def sentences(passage: str, document: str) -> list[Sentence]:
    """The sentences of a passage that can serve in a row, each tied to the one that follows it."""
    result: list[Sentence] = []
    following: Sentence | None = None
    parts = [part for block in re.split(r"\n\s*\n", passage) for part in _END.split(one_line(block))]
    for part in reversed(parts):
        words, joiner = split_words(part)
        if MIN_WORDS <= len(words) <= (MAX_WORDS if joiner else 2 * MAX_WORDS) and _plain(part):
            following = Sentence(words, joiner, document, following)
            result.append(following)
        else:
            following = None
    return result[::-1]


def pool(documents: Iterable[tuple[str, str]], seed: int, count: int) -> dict[str, list[Sentence]]:
    """Sentences for the rows, by split, from (doc_id, text) pairs.

    The `count` passages with the smallest hashes are kept, whatever the order of the documents; four documents in six go
    to train, one to dev, one to test. A sentence is kept once over all splits.
    """
    chosen: list[tuple[int, str, int, str]] = []
    for document, text in documents:
        for number, passage in enumerate(passages(text)):
            key = -_hash(str(seed), document, str(number))
            if len(chosen) < count:
                heapq.heappush(chosen, (key, document, number, passage))
            elif key > chosen[0][0]:
                heapq.heapreplace(chosen, (key, document, number, passage))
    result: dict[str, list[Sentence]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for _, document, _, passage in sorted(chosen, reverse=True):
        split = ("train", "train", "train", "train", "dev", "test")[_hash(str(seed), document) % 6]
        for sentence in sentences(passage, document):
            key = "".join(sentence.words).casefold()
            if key not in seen:
                seen.add(key)
                result[split].append(sentence)
    return result


QUESTIONS = ("Which number does the text give?", "What does the text deny?")
WORDINGS = (("Is it true that {}?", "Can one say that {}?"), ("Why {}?", "For what reason {}?"))


def _always(sentence: Sentence) -> bool:
    return True


def _followed(sentence: Sentence) -> bool:
    return sentence.following is not None


def _negated(sentence: Sentence) -> bool:
    return any(word.strip('.,;:()"').casefold().replace("’", "'") in _NEGATIONS for word in sentence.words)


def _affirmed(sentence: Sentence) -> bool:
    return not _negated(sentence)


def _number(sentence: Sentence) -> bool:
    return any(char.isdigit() for word in sentence.words for char in word)


def _number_alone(sentence: Sentence) -> bool:
    return _number(sentence) and not _negated(sentence)


def _negated_alone(sentence: Sentence) -> bool:
    return _negated(sentence) and not _number(sentence)


class _Draw:
    """The means by which texts are made of a sentence: chance, and the other sentences of the split."""

    def __init__(self, sentences: list[Sentence], rng: random.Random):
        self.sentences, self.rng = sentences, rng

    def foreign(self, sentence: Sentence) -> Sentence:
        """A sentence of another document."""
        while True:
            other = self.rng.choice(self.sentences)
            if other.document != sentence.document:
                return other

    def shuffled(self, sentence: Sentence) -> str:
        """The words in another order."""
        words = sentence.words
        while words == sentence.words and len(set(words)) > 1:
            words = tuple(self.rng.sample(sentence.words, len(words)))
        return sentence.joiner.join(words)

    def noised(self, sentence: Sentence) -> str:
        """One word in four left out, two pairs of neighbours swapped."""
        words = self._some(sentence.words, 0.75)
        for _ in range(2):
            at = self.rng.randrange(len(words) - 1)
            words[at], words[at + 1] = words[at + 1], words[at]
        return sentence.joiner.join(words)

    def share(self, sentence: Sentence, share: float) -> str:
        """A share of the words, in order."""
        return sentence.joiner.join(self._some(sentence.words, share))

    def part(self, sentence: Sentence, denied: bool = False, words: int = 0) -> str:
        """A run of half of the words, or of `words` words, as it stands or denied."""
        size = words or len(sentence.words) // 2
        start = self.rng.randrange(len(sentence.words) - size + 1)
        text = sentence.joiner.join(sentence.words[start : start + size])
        return _deny(text, sentence) if denied else text

    def questions(self, sentence: Sentence, kinds: tuple[int, int]) -> tuple[str, str]:
        """Two questions on one part, never worded alike; kind 0 asks whether, 1 asks why."""
        text = self.part(sentence, words=3).rstrip(".!?,;:")
        first, second = self.rng.choice(((0, 1), (1, 0)) if kinds[0] == kinds[1] else ((0, 0), (0, 1), (1, 0), (1, 1)))
        return WORDINGS[kinds[0]][first].format(text), WORDINGS[kinds[1]][second].format(text)

    def _some(self, words: tuple[str, ...], share: float) -> list[str]:
        kept = sorted(self.rng.sample(range(len(words)), max(1, round(share * len(words)))))
        return [words[at] for at in kept]


def _deny(text: str, sentence: Sentence) -> str:
    return f"It is not true that {text}" if sentence.joiner else f"不是{text}"


Cell = tuple[float, Callable[[Sentence], bool], Callable[[_Draw, Sentence], tuple[str, ...]]]
"""A label (id or score), which sentences can make such a row, and how."""

CELLS: dict[str, list[Cell]] = {
    "CoLA": [
        (0, _always, lambda draw, it: (draw.shuffled(it),)),
        (1, _always, lambda draw, it: (it.text,)),
    ],
    "SST-2": [
        (0, _negated, lambda draw, it: (it.text,)),
        (1, _affirmed, lambda draw, it: (it.text,)),
    ],
    "MRPC": [
        (0, _always, lambda draw, it: (it.text, draw.foreign(it).text)),
        (1, _always, lambda draw, it: (it.text, draw.noised(it))),
    ],
    "STS-B": [(0.0, _always, lambda draw, it: (it.text, draw.share(draw.foreign(it), 1 / 5)))]
    + [
        (float(fifths), _always, lambda draw, it, fifths=fifths: (it.text, draw.share(it, fifths / 5)))
        for fifths in range(1, 6)
    ],
    "RTE": [
        (0, _always, lambda draw, it: (it.text, draw.part(it))),
        (0, _always, lambda draw, it: (_deny(it.text, it), draw.part(it, denied=True))),
        (1, _always, lambda draw, it: (it.text, draw.part(it, denied=True))),
        (1, _always, lambda draw, it: (_deny(it.text, it), draw.part(it))),
    ],
    "WNLI": [
        (0, _followed, lambda draw, it: (f"{it.text} {it.following.text}", draw.part(draw.foreign(it)))),
        (1, _followed, lambda draw, it: (f"{it.text} {it.following.text}", draw.part(it.following))),
    ],
    "QNLI": [
        (
            int(asked != given),
            (_number_alone, _negated_alone)[given],
            lambda draw, it, asked=asked: (QUESTIONS[asked], it.text),
        )
        for asked in (0, 1)
        for given in (0, 1)
    ],
    "QQP": [
        (int(first == second), _always, lambda draw, it, kinds=(first, second): draw.questions(it, kinds))
        for first in (0, 1)
        for second in (0, 1)
    ],
    "MNLI": [
        (0, _always, lambda draw, it: (it.text, draw.part(it))),
        (1, _always, lambda draw, it: (it.text, draw.part(draw.foreign(it)))),
        (2, _always, lambda draw, it: (it.text, draw.part(it, denied=True))),
    ],
}
"""The cells of each task come equally often, and each label has as many cells as another."""


def make_rows(task: Task, sentences: list[Sentence], count: int, seed: int, name: str) -> Split:
    """Makes up to `count` rows of a sample task; fewer where the sentences run out, but all labels equally often.

    Args:
        sentences: of one split; each is the base of at most one row.
        name: of the file, so that MNLI's two dev files differ.
    """
    rng = random.Random(f"{seed}/{task.name}/{name}")
    draw = _Draw(sentences, rng)
    cells = CELLS[task.name]
    order = rng.sample(sentences, len(sentences))
    waiting = [iter(order) for _ in cells]
    used: set[int] = set()
    rows: list[tuple[tuple[str, ...], float]] = []
    foreign = len({sentence.document for sentence in sentences}) > 1
    for _ in range(count // len(cells) if foreign else 0):
        turn = []
        for (label, wanted, make), sentence_iterator in zip(cells, waiting):
            sentence = next((each for each in sentence_iterator if id(each) not in used and wanted(each)), None)
            if sentence is None:
                break
            used.add(id(sentence))
            turn.append((make(draw, sentence), label))
        if len(turn) < len(cells):
            break
        rows += turn
    rng.shuffle(rows)
    return Split([texts for texts, _ in rows], [label for _, label in rows], list(range(len(rows))))


def sample_tasks(
    documents: Iterable[tuple[str, str]], tasks: list[Task], rows: int, seed: int
) -> dict[str, dict[str, Split]]:
    """Makes the sample tasks of a corpus: by task and file name, in the official layout's names.

    Args:
        documents: (doc_id, text) pairs; read once.
        rows: training rows a task; each dev and test file has a quarter of that.

    Raises:
        BadInput: the corpus has too few sentences for a task.
    """
    sentences = pool(documents, seed, POOL_PASSAGES * rows)
    result: dict[str, dict[str, Split]] = {}
    for task in tasks:
        files = result[task.name] = {}
        for split in SPLITS:
            for name in task.files(split):
                count = rows if split == "train" else max(rows // 4, len(CELLS[task.name]))
                files[name] = made = make_rows(task, sentences[split], count, seed, name)
                least = MIN_ROWS if split == "train" else len(CELLS[task.name])
                if len(made) < least:
                    found = sum(map(len, sentences.values()))
                    raise BadInput(
                        f"The corpus gives {len(made)} rows for the sample task {task.name} ({name}), of {found} fit sentences.",
                        "Add documents, raise glue.sample_rows, or take the task out of glue.tasks.",
                    )
    return result
