"""Saved models of the kinds that answer about words: entities of a raw text, and answers out of a context.

What a folder needs to answer as it did when it was scored stands in its `task.json`; a folder of transformers without one
is used with its whole length. Texts are never cut: long ones come in windows that overlap.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from roberta_core.errors import BadInput
from roberta_core.model import RobertaForQuestionAnswering, RobertaForTokenClassification
from roberta_core.own.entities import spans_of, words_of
from roberta_core.own.questions import Answering, answers_of, question_rows, text_of
from roberta_core.own.served import Windowed, check_texts
from roberta_core.own.squad import Question
from roberta_core.own.tokens import Tagging, by_sentence, token_rows


class TaggerModel(Windowed):
    """A token classifier: entities, or a tag for each word."""

    kind = "tagger"
    opens = RobertaForTokenClassification
    samples = ("Ann Lee lives in New York.", "北京 and Paris", "Short.")

    def __init__(self, folder: Path | str, device: str = "auto"):
        super().__init__(folder, device)
        self.names = [self.config.id2label[each] for each in sorted(self.config.id2label)]
        self.entities = self.task.get("entities", any(name.startswith(("B-", "I-")) for name in self.names))

    def predict(self, texts: Sequence[str]) -> list[list[dict[str, str | int | float]]]:
        """For each text its entities in order, or its words: `text`, `label`, `start`, `end` and `score`.

        `start` and `end` count characters of the text as it was given; `score` is the mean probability of the tags.
        """
        texts = check_texts(texts)
        places = [words_of(text) for text in texts]
        words = [[text[start:end] for start, end in each] for text, each in zip(texts, places)]
        known = [row for row, each in enumerate(words) if each]
        rows = token_rows(
            self.tokenizer,
            [words[row] for row in known],
            [],
            self.max_length,
            self.stride,
            self.config.has_token_types,
        )
        outputs = self.outputs(Tagging("", tuple(self.names)), rows)
        found: list[list[dict]] = [[] for _ in texts]
        tagged = by_sentence(rows, outputs, [words[row] for row in known], len(self.names))
        for row, values in zip(known, tagged):
            tags, scores = [self.names[at] for at in values.argmax(axis=1)], values.max(axis=1)
            spans = [(span.type, span.first, span.end) for span in spans_of(tags)]
            if not self.entities:
                spans = [(tag, at, at + 1) for at, tag in enumerate(tags)]
            for label, first, end in spans:
                start, stop = places[row][first][0], places[row][end - 1][1]
                score = float(np.mean(scores[first:end]))
                found[row].append(
                    {"text": texts[row][start:stop], "label": label, "start": start, "end": stop, "score": score}
                )
        return found


class AnswererModel(Windowed):
    """A model of extractive questions."""

    kind = "question model"
    opens = RobertaForQuestionAnswering
    samples = (
        {"question": "Who lives in Rome?", "context": "Ann lives in Paris, and Bob in Rome."},
        {"question": "为什么？", "context": "因为下雨。"},
    )

    def __init__(self, folder: Path | str, device: str = "auto"):
        super().__init__(folder, device)
        self.threshold = self.task.get("no_answer_threshold")
        """How far no answer must be above the best span; None: there is always one."""

    def predict(self, questions: Sequence[Mapping[str, str] | str]) -> list[dict[str, str | int | float | None]]:
        """For each question its `answer`, with `start` and `end` in the context and `score`, its probability.

        The probability is among the 20 best spans, and no answer where the model knows that. Without an answer `answer` is
        empty, and `start` and `end` are None.

        Args:
            questions: each with the keys `question` and `context`; or a text of both with a tab between.

        Raises:
            BadInput: one is neither.
        """
        asked = [Question(str(at), *_parts(each), (), "") for at, each in enumerate(questions)]
        rows = question_rows(
            self.tokenizer, asked, self.max_length, self.stride, self.config.has_token_types, answers=False
        )
        outputs = self.outputs(Answering(""), rows)
        answers = []
        for each, found in zip(asked, answers_of(rows, outputs, len(asked))):
            scores = np.array([span.score for span in found.spans])
            if self.threshold is not None:
                scores = np.append(scores, found.null)
            odds = np.exp(scores - scores.max()) if len(scores) else np.ones(1)
            shares = odds / odds.sum()
            none = not found.spans or (
                self.threshold is not None and found.null - found.spans[0].score > self.threshold
            )
            text, start, end = ("", None, None) if none else text_of(each.context, found.spans[0])
            answers.append({"answer": text, "score": float(shares[-1 if none else 0]), "start": start, "end": end})
        return answers


def _parts(value: object) -> tuple[str, str]:
    """Question and context."""
    if isinstance(value, Mapping) and {"question", "context"} <= value.keys():
        parts = [value["question"], value["context"]]
    elif isinstance(value, str):
        parts = value.split("\t", 1)
    else:
        parts = []
    if len(parts) != 2:
        raise BadInput(
            f"A question and its context are wanted, got {value!r:.60}.",
            'Give {"question": …, "context": …}, or a text of both with a tab between.',
        )
    question, context = check_texts(parts)
    for name, text in (("question", question), ("context", context)):
        if not text.strip():
            raise BadInput(f"The {name} is empty.", "Give both.")
    return question, context
