"""Tasks on words in their sentence: entities, or any tag a word."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from roberta_core.own.conll import Sentences, read_conll, tag_names, unseen_tags
from roberta_core.own.entities import spans_of
from roberta_core.own.kind import COUNTS_HEAD, SHOWN_EXAMPLES, SHOWN_LABELS, Kind, Table, counts_row, excerpt
from roberta_core.own.metrics import entity_counts, score_tags
from roberta_core.own.tokens import UNKNOWN, Tagging, TokenRows, by_sentence, token_rows


class TokenKind(Kind):
    """A tag a word; a prediction is the list of a sentence's tags."""

    @property
    def entities(self) -> bool:
        """Whether tags are of entities (`B-…`): their F1 is asked for."""
        return self.settings.metric == "f1"

    @property
    def metrics(self) -> tuple[str, ...]:
        """F1 of entities only where there are such."""
        return ("f1", "accuracy") if self.entities else ("accuracy",)

    def read(self, file: Path, training: bool = False, may_hide: bool = False) -> Sentences:
        """The sentences of a file in columns."""
        return read_conll(file, self.settings.token, self.settings.tag, self.entities, may_hide)

    def learn(self, train: Sentences, file: Path) -> None:
        """Takes the tags from the training rows."""
        self.names = tag_names(train, file)

    def check(self, data: Sentences, file: Path) -> list[str]:
        """One line for each tag that training does not know."""
        return unseen_tags(data, self.names, file)

    def scored(self, data: Sentences) -> bool:
        """Whether the sentences have tags."""
        return bool(data.tags)

    def objective(self) -> Tagging:
        """Cross-entropy on the first token of each word."""
        return Tagging(self.settings.name, tuple(self.names))

    def rows(self, tokenizer: Tokenizer, data: Sentences, training: bool = False) -> TokenRows:
        """Windows of sentences."""
        known = {name: at for at, name in enumerate(self.names)}
        tags = [[known.get(tag, UNKNOWN) for tag in each] for each in data.tags] if training else []
        asked = self.settings
        return token_rows(tokenizer, data.words, tags, asked.max_length, asked.stride, asked.token_types)

    def decide(
        self, rows: TokenRows, outputs: Sequence[np.ndarray], data: Sentences, threshold: float
    ) -> list[list[str]]:
        """The likeliest tag of each word."""
        found = by_sentence(rows, outputs, data.words, len(self.names))
        return [[self.names[tag] for tag in each.argmax(axis=1)] for each in found]

    def score(self, data: Sentences, guesses: Sequence[list[str]]) -> tuple[dict[str, float], list[str]]:
        """F1, precision and recall of entities; accuracy of tags."""
        return score_tags(self.metrics, data.tags, guesses), []

    def baselines(self, train: Sentences, data: Sentences) -> dict[str, list[list[str]]]:
        """The most frequent tag everywhere; and each word's most frequent tag in training."""
        tags = Counter(tag for each in train.tags for tag in each)
        most = min(tags, key=lambda tag: (-tags[tag], tag))
        by_word: dict[str, Counter] = {}
        for words, own in zip(train.words, train.tags):
            for word, tag in zip(words, own):
                by_word.setdefault(word, Counter())[tag] += 1
        known = {word: min(found, key=lambda tag: (-found[tag], tag)) for word, found in by_word.items()}
        return {
            "majority": [[most] * len(words) for words in data.words],
            "dictionary": [[known.get(word, most) for word in words] for words in data.words],
        }

    def shown(self, words: Sequence[str], tags: Sequence[str]) -> str:
        """The entities of a sentence, or its tags, in a cell."""
        if not self.entities:
            return " ".join(tags)
        return "; ".join(f"{' '.join(words[each.first : each.end])} [{each.type}]" for each in spans_of(tags))

    def predictions(
        self, data: Sentences, guesses: Sequence[list[str]], rows: TokenRows, outputs: Sequence[np.ndarray]
    ) -> tuple[list[str], list[list[Any]]]:
        """First line, what is there, what is predicted, and how many entities (or tags) are right, predicted, there."""
        lines = []
        for row, (line, words, guess) in enumerate(zip(data.lines, data.words, guesses)):
            label, counts = "", (0, 0, 0)
            if data.tags:
                label = self.shown(words, data.tags[row])
                right = sum(one == other for one, other in zip(data.tags[row], guess))
                counts = entity_counts(data.tags[row], guess) if self.entities else (right, len(words), len(words))
            lines.append([line, label, self.shown(words, guess), *counts])
        return ["index", "label", "prediction", "right", "predicted", "there"], lines

    def tables(self, data: Sentences, guesses: Sequence[list[str]]) -> list[Table]:
        """Figures by type, what becomes of entities that are missed, and sentences that went wrong."""
        right, guessed, there, fate = Counter(), Counter(), Counter(), Counter()
        wrong = []
        for words, tags, guess in zip(data.words, data.tags, guesses):
            if self.entities:
                truth, found = set(spans_of(tags)), set(spans_of(guess))
                for each in truth - found:
                    fate[each.type, _fate(each, found)] += 1
                names = [[each.type for each in every] for every in (truth & found, found, truth)]
            else:
                names = [[tag for tag, other in zip(tags, guess) if tag == other], guess, tags]
            for counter, own in zip((right, guessed, there), names):
                counter.update(own)
            if tags != guess:
                wrong.append([excerpt(" ".join(words)), self.shown(words, tags), self.shown(words, guess)])
        order = sorted({*there, *guessed}, key=lambda name: (-there[name], name))
        title = "By type of entity" if self.entities else "By tag"
        tables = [
            Table(title, COUNTS_HEAD, [counts_row(n, right[n], guessed[n], there[n]) for n in order[:SHOWN_LABELS]])
        ]
        if fate:
            fates = sorted({each for _, each in fate}, key=lambda name: (name != "not found", name))
            rows = [[name, *(fate[name, each] for each in fates)] for name in order if there[name] > right[name]]
            tables.append(Table("What became of entities that were missed", ["type", *fates], rows[:SHOWN_LABELS]))
        if wrong:
            head = ["sentence", "entities" if self.entities else "tags", "prediction"]
            tables.append(Table("The first sentences that went wrong", head, wrong[:SHOWN_EXAMPLES]))
        return tables

    def served(self, threshold: float) -> dict:
        """Whether tags are of entities, too."""
        return super().served(threshold) | {"entities": self.entities}


def _fate(entity: Any, found: set) -> str:
    """What stands where an entity was missed."""
    for other in sorted(found):
        if (other.first, other.end) == (entity.first, entity.end):
            return f"taken for {other.type}"
    overlaps = any(other.first < entity.end and entity.first < other.end for other in found)
    return "other borders" if overlaps else "not found"
