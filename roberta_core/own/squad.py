"""Questions with their contexts, in the JSON of SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018; XQuAD has the same).

An answer is a text and the character at which it starts in the context. Where the two do not fit, the text decides: an
answer that stands once in the context is moved there and counted as mended, any other question is left out of
training. Dev and test keep theirs, because the official measure looks at the texts alone.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roberta_core.data.funnel import Funnel
from roberta_core.errors import BadInput
from roberta_core.own.reading import read_text, refuse_if_bad, text_fault


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: as in the file.
        question: its text.
        context: where the answer stands.
        answers: texts and starts (characters of the context); empty: the context has no answer.
        article: what a split must not cut: the article's title, or the context where there is none.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    article: str


@dataclass
class Questions:
    """The questions of a file; `hidden`: it has no answers, and cannot be scored; `notes`: one line a reason."""

    rows: list[Question] = field(default_factory=list)
    hidden: bool = False
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Sequence[int]) -> "Questions":
        """The chosen questions; notes stay with the file."""
        return Questions([self.rows[row] for row in chosen], self.hidden)

    def keys(self) -> list[str]:
        """Of each question its article: a split keeps the questions of an article together."""
        return [each.article for each in self.rows]

    def texts_of_rows(self) -> list[str]:
        """Of each question its context: one that stands in training too is no new text."""
        return [each.context for each in self.rows]

    def labelled_rows(self) -> list[tuple[str, frozenset[str]]]:
        """Of each question it and its context, and its answers."""
        return [
            (f"{each.question}\t{each.context}", frozenset(text for text, _ in each.answers)) for each in self.rows
        ]

    @property
    def has_unanswerable(self) -> bool:
        """Whether some question has no answer, as in SQuAD 2.0."""
        return not self.hidden and any(not each.answers for each in self.rows)


def _entries(value: object, file: Path) -> Iterator[tuple[str, str, str, dict]]:
    """(place, article, context, question) of each question.

    Raises:
        BadInput: the file has another layout; the place is named.
    """

    def expect(holds: object, kind: type, place: str, what: str) -> None:
        if not isinstance(holds, kind):
            raise BadInput(f"{file}: {place} is no {what}.", "Give a file in the JSON of SQuAD 1.1 or 2.0.")

    data = value.get("data") if isinstance(value, dict) else None
    expect(data, list, '"data"', "list of articles")
    for a, article in enumerate(data):
        expect(article, dict, f"data[{a}]", "article")
        paragraphs = article.get("paragraphs")
        expect(paragraphs, list, f"data[{a}].paragraphs", "list")
        for p, paragraph in enumerate(paragraphs):
            place = f"data[{a}].paragraphs[{p}]"
            expect(paragraph, dict, place, "paragraph")
            context, qas = paragraph.get("context"), paragraph.get("qas")
            expect(context, str, f"{place}.context", "text")
            expect(qas, list, f"{place}.qas", "list of questions")
            title = article.get("title")
            for q, each in enumerate(qas):
                expect(each, dict, f"{place}.qas[{q}]", "question")
                # XQuAD has no titles: the article's number stands for it
                yield f"{place}.qas[{q}]", title if isinstance(title, str) and title else f"article {a}", context, each


def _answer(answer: object, context: str) -> tuple[tuple[str, int] | None, str]:
    """Text and start, mended where that can be; or None, and what is wrong with it."""
    if not isinstance(answer, dict) or not isinstance(answer.get("text"), str) or not answer["text"].strip():
        return None, "an answer without a text"
    text, start = answer["text"], answer.get("answer_start")
    if isinstance(start, int) and start >= 0 and context.startswith(text, start):
        return (text, start), ""
    if context.count(text) == 1:
        return (text, context.index(text)), "moved"
    return None, f"{text[:40]!r} does not stand at {start} of its context"


def read_squad(file: Path, training: bool, may_hide: bool = False) -> Questions:
    """Reads a file of questions.

    Args:
        training: questions whose answers do not stand in their context are left out.
        may_hide: a test set, whose answers may all be absent.

    Raises:
        BadInput: the file has another layout, or too many of its questions cannot be used.
    """
    try:
        value = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{file} is no JSON ({error}).", "Give a file in the JSON of SQuAD 1.1 or 2.0.") from None
    funnel, result = Funnel(), Questions()
    moved: list[str] = []
    answered = 0
    for place, article, context, each in _entries(value, file):
        where = f"{file}: {place}"
        question, given = each.get("question"), each.get("answers")
        fault = text_fault(question) or text_fault(context)
        if fault:
            funnel.drop(fault, where)
            continue
        if not isinstance(given, list | None) or not (each.get("is_impossible") or given is not None or may_hide):
            funnel.drop("no_answers_given", f"{where}: neither answers nor is_impossible")
            continue
        answers = []
        for answer in [] if each.get("is_impossible") else given or []:
            found, told = _answer(answer, context)
            if found is None and not training and isinstance(answer, dict) and answer.get("text"):
                found = (answer["text"], -1)
            if found is None:
                funnel.drop("answer_not_in_context", f"{where}: {told}")
                break
            answers.append(found)
            moved += [where] if told == "moved" else []
        else:
            answered += bool(answers)
            result.rows.append(Question(str(each.get("id", place)), question, context, tuple(answers), article))
    result.notes = refuse_if_bad(file, funnel, len(result))
    if moved:
        result.notes.append(f"{len(moved):,} answers were moved to where their text stands ({moved[0]})")
    if not answered:
        if not may_hide:
            raise BadInput(f"{file}: no question has an answer.", "Give a file with answers.")
        result.hidden = True
        result.notes.append(f"{file} hides its answers: predicted, and not scored")
    return result
