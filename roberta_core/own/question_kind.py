"""Tasks of extractive questions, with or without such as have no answer."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from roberta_core.glue.baselines import tfidf_features
from roberta_core.own.kind import SHOWN_EXAMPLES, SHOWN_LABELS, Kind, Settings, Table, excerpt
from roberta_core.own.questions import Answering, Found, QuestionRows, answers_of, question_rows, text_of
from roberta_core.own.squad import Question, Questions, read_squad
from roberta_core.own.squad_metrics import best_threshold, is_chinese, score_answer

NEVER = 1e9
"""Threshold of a task whose questions all have answers: no answer is never said."""

_SENTENCES = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")


class QuestionKind(Kind):
    """An answer a question; a prediction is a text, empty where there is no answer.

    Attributes:
        unanswerable: whether training has questions without an answer.
        by_character: whether answers are compared by characters, as in Chinese.
    """

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.unanswerable = self.by_character = False

    def read(self, file: Path, training: bool = False, may_hide: bool = False) -> Questions:
        """The questions of a file in SQuAD's JSON."""
        return read_squad(file, training, may_hide)

    def learn(self, train: Questions, file: Path) -> None:
        """Looks whether all questions have answers, and in which script they are."""
        self.unanswerable = train.has_unanswerable
        self.by_character = _chinese(train)

    def restore(self, labels: Sequence[str], served: Mapping[str, Any], data: Questions) -> float:
        """The threshold of no answer; in which script answers are compared, these rows say."""
        threshold = served.get("no_answer_threshold")
        self.unanswerable, self.by_character = threshold is not None, _chinese(data)
        return NEVER if threshold is None else threshold

    def check(self, data: Questions, file: Path) -> list[str]:
        """Questions without an answer where training has none."""
        count = sum(not each.answers for each in data.rows)
        if self.unanswerable or data.hidden or not count:
            return []
        return [f"{file}: {count:,} questions have no answer, and training has none such: they count as wrong"]

    def scored(self, data: Questions) -> bool:
        """Whether the questions have answers."""
        return not data.hidden

    def objective(self) -> Answering:
        """Cross-entropy of start and end."""
        return Answering(self.settings.name)

    def rows(self, tokenizer: Tokenizer, data: Questions, training: bool = False) -> QuestionRows:
        """Windows of contexts."""
        asked = self.settings
        return question_rows(tokenizer, data.rows, asked.max_length, asked.stride, asked.token_types, training)

    def calibrate(self, rows: QuestionRows, outputs: Sequence[np.ndarray], data: Questions) -> float:
        """How far the score of no answer must be above the best span's to be said: best for the metric on these rows."""
        if not self.unanswerable or data.hidden:
            return NEVER
        found = answers_of(rows, outputs, len(data))
        scores = [self._scores(each, _best(each, one))[self._which] for each, one in zip(data.rows, found)]
        return best_threshold(scores, [bool(each.answers) for each in data.rows], [_margin(each) for each in found])[0]

    def decide(
        self, rows: QuestionRows, outputs: Sequence[np.ndarray], data: Questions, threshold: float
    ) -> list[str]:
        """The text of the best span, or nothing where no answer is above it by more than the threshold."""
        found = answers_of(rows, outputs, len(data))
        return [_best(each, one) if _margin(one) <= threshold else "" for each, one in zip(data.rows, found)]

    @property
    def _which(self) -> int:
        return 1 if self.settings.metric == "f1" else 0

    def _scores(self, question: Question, guess: str) -> tuple[float, float]:
        """Exact match and F1."""
        return score_answer([text for text, _ in question.answers], guess, self.by_character)

    def score(self, data: Questions, guesses: Sequence[str]) -> tuple[dict[str, float], list[str]]:
        """F1 and exact match; of those with and without an answer, too, where there are both."""
        scores = np.array([self._scores(each, guess) for each, guess in zip(data.rows, guesses)])
        exact, f1 = scores.T
        means = {"exact_match": float(exact.mean()), "f1": float(f1.mean())}
        result = {name: means[name] for name in self.metrics}
        has = np.array([bool(each.answers) for each in data.rows])
        if has.any() and not has.all():
            result |= {"f1_answerable": float(f1[has].mean()), "f1_unanswerable": float(f1[~has].mean())}
        return result, []

    def baselines(self, train: Questions, data: Questions) -> dict[str, list[str]]:
        """No answer at all where some have none; and the sentence whose words are nearest to the question's (TF-IDF)."""
        result = {"majority": [""] * len(data)} if self.unanswerable else {}
        sentences = {each.context: [] for each in data.rows}
        for context in sentences:
            sentences[context] = [text for part in _SENTENCES.findall(context) if (text := part.strip())] or [context]
        flat = [(text,) for each in sentences.values() for text in each]
        _, (asked, said) = tfidf_features(
            [(each.context,) for each in train.rows[:1000]] + [(each.question,) for each in train.rows],
            [[(each.question,) for each in data.rows], flat],
        )
        starts, at = {}, 0
        for context, each in sentences.items():
            starts[context] = at
            at += len(each)
        nearest = []
        for row, each in enumerate(data.rows):
            begin, count = starts[each.context], len(sentences[each.context])
            likeness = (said[begin : begin + count] @ asked[row].T).toarray()[:, 0]
            nearest.append(sentences[each.context][int(likeness.argmax())])
        return result | {"tfidf": nearest}

    def predictions(
        self, data: Questions, guesses: Sequence[str], rows: QuestionRows, outputs: Sequence[np.ndarray]
    ) -> tuple[list[str], list[list[Any]]]:
        """Id, answers, prediction, its scores, by how much no answer is above it, and the question."""
        head = ["index", "label", "prediction", "exact_match", "f1", "no_answer_margin", "question"]
        lines = []
        for each, guess, found in zip(data.rows, guesses, answers_of(rows, outputs, len(data))):
            exact, f1 = self._scores(each, guess) if not data.hidden else ("", "")
            shown = " | ".join(dict.fromkeys(text for text, _ in each.answers))
            figures = [f"{value:.6f}" if value != "" else "" for value in (exact, f1)]
            lines.append([each.id, shown, guess, *figures, f"{_margin(found):.4f}", each.question])
        return head, lines

    def tables(self, data: Questions, guesses: Sequence[str]) -> list[Table]:
        """Figures by the question's first word, and questions that went wrong."""
        by_word: dict[str, list[tuple[float, float]]] = {}
        wrong = []
        for each, guess in zip(data.rows, guesses):
            exact, f1 = self._scores(each, guess)
            word = (each.question.split() or [""])[0].lower().strip("¿?,") if not self.by_character else "all"
            for key in (word, "all") if word != "all" else ("all",):
                by_word.setdefault(key, []).append((exact, f1))
            if f1 == 0.0:
                answers = " | ".join(dict.fromkeys(text for text, _ in each.answers)) or "(none)"
                wrong.append([excerpt(each.question), excerpt(answers), excerpt(guess) or "(none)"])
        order = sorted(by_word, key=lambda word: (-len(by_word[word]), word != "all", word))[:SHOWN_LABELS]
        rows = [
            [word, len(by_word[word]), *(round(float(value), 4) for value in np.mean(by_word[word], axis=0))]
            for word in order
        ]
        tables = [Table("By the question's first word", ["question begins", "questions", "exact match", "F1"], rows)]
        if wrong:
            head = ["question", "answers", "prediction"]
            tables.append(Table("The first answers without a word in common", head, wrong[:SHOWN_EXAMPLES]))
        return tables

    def best_possible(self, rows: QuestionRows, outputs: Sequence[np.ndarray], data: Questions) -> dict[str, float]:
        """`best_f1` and `best_exact_match`: at the thresholds best on these very rows, as SQuAD 2.0's script has them."""
        if not self.unanswerable or data.hidden:
            return {}
        found = answers_of(rows, outputs, len(data))
        scores = [self._scores(each, _best(each, one)) for each, one in zip(data.rows, found)]
        has, margins = [bool(each.answers) for each in data.rows], [_margin(each) for each in found]
        return {
            f"best_{name}": best_threshold([each[at] for each in scores], has, margins)[1]
            for at, name in enumerate(("exact_match", "f1"))
        }

    def served(self, threshold: float) -> dict:
        """The threshold of no answer, too."""
        return super().served(threshold) | {"no_answer_threshold": threshold if self.unanswerable else None}


def _best(question: Question, found: Found) -> str:
    return text_of(question.context, found.spans[0])[0] if found.spans else ""


def _chinese(data: Questions) -> bool:
    return is_chinese([text for each in data.rows for text, _ in each.answers])


def _margin(found: Found) -> float:
    """The score of no answer minus that of the best span."""
    return found.null - found.spans[0].score if found.spans else NEVER
