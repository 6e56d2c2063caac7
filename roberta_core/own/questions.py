"""Extractive questions: windows over contexts, spans out of their scores (Devlin et al. 2019, 4.2 and 4.3).

A context too long for the model comes in windows that overlap, each behind the question. Every context and every question
is encoded once, and windows are cut from the ids: SQuAD asks five questions a paragraph, so that is a fifth of the work of
encoding pairs, with the same ids. A window that does not hold the answer has it at `<s>`, position 0, whose score is that
of no answer.

The best span is found exactly, over all pairs of start and end up to `MAX_ANSWER_TOKENS` apart in all windows, and not
among the best 20 starts and ends alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from roberta_core.data.tokenizer import specials_of
from roberta_core.errors import BadInput
from roberta_core.finetune.objectives import Batch, Objective
from roberta_core.finetune.recipe import Recipe
from roberta_core.finetune.rows import Rows
from roberta_core.model import RobertaForQuestionAnswering
from roberta_core.own.squad import Question

MAX_ANSWER_TOKENS = 30
MAX_QUESTION_TOKENS = 64
N_BEST = 20
"""All three as in BERT's run_squad.py."""


class Window(NamedTuple):
    """A piece of a context behind its question.

    Attributes:
        question: its number.
        first: position of the piece's first token in the window.
        starts, ends: characters of the context at which its tokens start and end.
    """

    question: int
    first: int
    starts: np.ndarray
    ends: np.ndarray


@dataclass
class QuestionRows(Rows):
    """Windows of contexts behind their questions; `truncated` counts questions that were cut.

    Labels are positions in the window: of the answer's first and last token, of the context's first token and the one
    after its last.

    Attributes:
        windows: one a row.
        strided: questions with more than one window.
    """

    windows: list[Window] = field(default_factory=list)
    strided: int = 0


class Frame(NamedTuple):
    """How a tokenizer joins a pair: the special tokens before, between and behind, and the token types."""

    before: list[int]
    between: list[int]
    behind: list[int]
    types: tuple[int, int]


def frame_of(tokenizer: Tokenizer) -> Frame:
    """What the tokenizer puts around the two texts of a pair, found by encoding one."""
    tokenizer.no_truncation()
    pair = tokenizer.encode("a", "b")
    place = [at for at, special in enumerate(pair.special_tokens_mask) if not special]
    one = len(tokenizer.encode("a", add_special_tokens=False).ids)
    first, second = place[0], place[one]
    return Frame(
        pair.ids[:first],
        pair.ids[first + one : second],
        pair.ids[place[-1] + 1 :],
        (pair.type_ids[first], pair.type_ids[second]),
    )


def _pieces(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Windows of up to `room` over `length` tokens, two of which share `stride`; the last one is short."""
    found, start = [], 0
    while True:
        found.append((start, min(start + room, length)))
        if start + room >= length:
            return found
        start += room - stride


def question_rows(
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    max_length: int,
    stride: int,
    token_types: bool = False,
    answers: bool = True,
) -> QuestionRows:
    """Encodes questions and cuts their contexts into windows.

    Args:
        max_length: tokens of a window, the question and the special tokens included.
        stride: context tokens that two windows share.
        token_types: keep them, for a model that has them.
        answers: labels are wanted: the first answer of each question.

    Raises:
        BadInput: `max_length` leaves no room for a context.
    """
    frame = frame_of(tokenizer)
    extra = len(frame.before) + len(frame.between) + len(frame.behind)
    longest = min(MAX_QUESTION_TOKENS, (max_length - extra) // 2)
    if longest < 1:
        raise BadInput(f"Windows of {max_length} tokens have no room for a context.", "Raise max_length.")
    order = dict.fromkeys(each.context for each in questions)
    encoded = tokenizer.encode_batch(list(order), add_special_tokens=False)
    contexts = {}
    for context, encoding in zip(order, encoded):
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        contexts[context] = np.array(encoding.ids, np.int32), offsets[:, 0], offsets[:, 1]
    asked = tokenizer.encode_batch_fast([each.question for each in questions], add_special_tokens=False)
    rows = QuestionRows([], [], 0, [] if token_types else None)
    rows.pad = tokenizer.token_to_id(specials_of(tokenizer).pad)
    for number, (each, question) in enumerate(zip(questions, asked)):
        rows.truncated += len(question.ids) > longest
        head = [*frame.before, *question.ids[:longest], *frame.between]
        ids, starts, ends = contexts[each.context]
        room = max_length - len(head) - len(frame.behind)
        pieces = _pieces(len(ids), room, min(stride, room - 1))
        rows.strided += len(pieces) > 1
        span = _answer_tokens(each, starts, ends) if answers else None
        for begin, end in pieces:
            rows.ids.append(np.array([*head, *ids[begin:end], *frame.behind], np.int32))
            rows.windows.append(Window(number, len(head), starts[begin:end], ends[begin:end]))
            if rows.types is not None:
                second = [frame.types[1]] * (end - begin + len(frame.behind))
                rows.types.append(np.array([frame.types[0]] * len(head) + second, np.int8))
            if answers:
                inside = span is not None and begin <= span[0] and span[1] < end
                shift = len(head) - begin
                at = (span[0] + shift, span[1] + shift) if inside else (0, 0)
                rows.labels.append((*at, len(head), len(head) + end - begin))
    return rows


def _answer_tokens(question: Question, starts: np.ndarray, ends: np.ndarray) -> tuple[int, int] | None:
    """First and last token of the first answer; None where there is none, or none of its characters has a token."""
    if not question.answers or question.answers[0][1] < 0:
        return None
    text, begin = question.answers[0]
    first = int(np.searchsorted(ends, begin, side="right"))
    last = int(np.searchsorted(starts, begin + len(text), side="left")) - 1
    return (first, last) if first <= last else None


@dataclass(frozen=True)
class Answering(Objective):
    """The start and the end of an answer. Outputs are logits, [L, 2]: of what a window's tokens start and end."""

    def build(self, encoder: Path, recipe: Recipe, seed: int) -> RobertaForQuestionAnswering:
        """A model with two outputs a token."""
        return RobertaForQuestionAnswering.from_pretrained(encoder, fresh=True, dropout=recipe.dropout, seed=seed)

    def target(self, labels: Sequence[tuple[int, int, int, int]], length: int) -> torch.Tensor:
        """Int64 [B, 4]: start, end, and the context's first position and the one after its last."""
        return torch.tensor(labels)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of start and end over `<s>` and the context: a question's tokens are no answers."""
        logits = model(batch.input_ids, batch.mask, batch.types)
        at = torch.arange(logits.shape[1], device=logits.device)
        start, end, first, last = batch.target.T
        allowed = (at == 0) | ((at >= first[:, None]) & (at < last[:, None]))
        logits = logits.masked_fill(~allowed[..., None], float("-inf"))
        return (F.cross_entropy(logits[..., 0], start) + F.cross_entropy(logits[..., 1], end)) / 2

    def outputs(self, model: torch.nn.Module, batch: Batch) -> list[np.ndarray]:
        """[L, 2] a row, without its padding."""
        found = model(batch.input_ids, batch.mask, batch.types).double().cpu().numpy()
        lengths = [found.shape[1]] * len(found) if batch.mask is None else batch.mask.sum(1).tolist()
        return [each[:length] for each, length in zip(found, lengths)]


class Candidate(NamedTuple):
    """A span of a context, in characters, and its score: logit of the start plus logit of the end."""

    score: float
    start: int
    end: int


class Found(NamedTuple):
    """What a question's windows say: the best spans, best first, and the score of no answer (the least of the windows')."""

    spans: list[Candidate]
    null: float


def _best_spans(window: Window, output: np.ndarray) -> list[Candidate]:
    """The `N_BEST` best spans of a window, best first."""
    count = len(window.starts)
    context = output[window.first : window.first + count]
    width = min(MAX_ANSWER_TOKENS, count)
    # [width, count]: row d, column i is the span from token i to token i + d
    ends = np.full((width, count), -np.inf)
    for d in range(width):
        ends[d, : count - d] = context[d:, 1]
    scores = (context[:, 0] + ends).ravel()
    size = min(N_BEST, len(scores))
    chosen = np.argpartition(-scores, size - 1)[:size] if size else np.empty(0, np.int64)
    chosen = chosen[np.lexsort((chosen, -scores[chosen]))]
    return [
        Candidate(float(scores[each]), int(window.starts[each % count]), int(window.ends[sum(divmod(each, count))]))
        for each in chosen
        if np.isfinite(scores[each])
    ]


def answers_of(rows: QuestionRows, outputs: Sequence[np.ndarray], questions: int) -> list[Found]:
    """The best spans of each question, over its windows."""
    spans: list[dict[tuple[int, int], Candidate]] = [{} for _ in range(questions)]
    null = [float("inf")] * questions
    for window, output in zip(rows.windows, outputs):
        number = window.question
        null[number] = min(null[number], float(output[0].sum()))
        for each in _best_spans(window, output):
            place = (each.start, each.end)
            if each.end > each.start and (place not in spans[number] or spans[number][place].score < each.score):
                spans[number][place] = each
    best = [sorted(each.values(), key=lambda one: (-one.score, one.start, one.end))[:N_BEST] for each in spans]
    return [Found(*each) for each in zip(best, null)]


def text_of(context: str, span: Candidate) -> tuple[str, int, int]:
    """The text of a span without blanks at its ends, and its start and end in the context."""
    text = context[span.start : span.end]
    start = span.start + len(text) - len(text.lstrip())
    return text.strip(), start, start + len(text.strip())
