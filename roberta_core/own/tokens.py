"""Token classification: a tag a word, learned on the word's first sub-token, the others ignored (Devlin et al. 2019, 5.3).

Words are put side by side with blanks between them, as they would be written, so that a byte-level tokenizer meets them as
it did in pretraining. A sentence too long for the model comes in windows that overlap; a word's prediction is taken from
the window in which it stands farthest from both edges, so that no word goes without one.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from roberta_core.data.tokenizer import specials_of
from roberta_core.finetune.objectives import Batch, Objective
from roberta_core.finetune.recipe import Recipe
from roberta_core.finetune.rows import ENCODE_ROWS, Rows
from roberta_core.model import RobertaForTokenClassification

IGNORED = -100
"""PyTorch's and Hugging Face's mark of a position without a label."""

UNKNOWN = -1
"""The id of a tag that training does not know; such a word is not trained on, and counts as wrong."""


@dataclass
class TokenRows(Rows):
    """Windows of sentences.

    Attributes:
        heads: of each window (sentence, words, tokens): which words it holds, and the position of each one's first token.
        strided: sentences that came in more than one window.
    """

    heads: list[tuple[int, np.ndarray, np.ndarray]] = field(default_factory=list)
    strided: int = 0


def _heads(starts: Sequence[int], offsets: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The words of a window, and the position of the first token of each.

    A token that has no width (a blank of its own, a special token) is nobody's; a word that goes on from the window before
    is left to that one.
    """
    words, tokens, last = [], [], None
    for at, (start, end) in enumerate(offsets):
        if end <= start:
            continue
        word = bisect_right(starts, end - 1) - 1
        if word != last and (last is not None or start <= starts[word]):
            words.append(word)
            tokens.append(at)
        last = word
    return np.array(words, np.int64), np.array(tokens, np.int64)


def token_rows(
    tokenizer: Tokenizer,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[int]],
    max_length: int,
    stride: int,
    token_types: bool = False,
) -> TokenRows:
    """Encodes sentences of words.

    Args:
        tags: ids a word, or no sentences at all where they are not known.
        max_length: tokens of a window, `<s>` and `</s>` included.
        stride: tokens that two windows of a sentence share.
        token_types: keep them, for a model that has them.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, stride=min(stride, max_length - 3))
    result = TokenRows([], [], 0, [] if token_types else None)
    result.pad = tokenizer.token_to_id(specials_of(tokenizer).pad)
    for begin in range(0, len(sentences), ENCODE_ROWS):
        chosen = sentences[begin : begin + ENCODE_ROWS]
        encodings = tokenizer.encode_batch([" ".join(words) for words in chosen])
        for number, (words, encoding) in enumerate(zip(chosen, encodings), begin):
            starts = [0, *accumulate(len(word) + 1 for word in words)][: len(words)]
            result.strided += bool(encoding.overflowing)
            for window in (encoding, *encoding.overflowing):
                held, at = _heads(starts, window.offsets)
                result.ids.append(array("i", window.ids))
                result.heads.append((number, held, at))
                if result.types is not None:
                    result.types.append(array("b", window.type_ids))
                if len(tags):
                    row = np.full(len(window.ids), IGNORED, np.int64)
                    row[at] = [tags[number][word] for word in held]
                    row[row == UNKNOWN] = IGNORED
                    result.labels.append(row)
    return result


def by_sentence(
    rows: TokenRows, outputs: Sequence[np.ndarray], sentences: Sequence[Sequence[str]], labels: int
) -> list[np.ndarray]:
    """The outputs of each sentence's words, [words, labels], each from the window with the most context around the word.

    A word without a token of its own (characters that the tokenizer leaves out) gets zeros, which is tag 0.
    """
    found = [np.zeros((len(words), labels)) for words in sentences]
    best = [np.full(len(words), -1) for words in sentences]
    for (number, held, at), output in zip(rows.heads, outputs):
        room = np.minimum(at, len(output) - 1 - at)
        better = room > best[number][held]
        found[number][held[better]] = output[at[better]]
        best[number][held[better]] = room[better]
    return found


@dataclass(frozen=True)
class Tagging(Objective):
    """A tag a word. Labels are arrays of ids a token, `IGNORED` where there is none; outputs are probabilities, [L, tags].

    Attributes:
        names: the tags, in the order of their ids.
    """

    names: tuple[str, ...]

    def build(self, encoder: Path, recipe: Recipe, seed: int) -> RobertaForTokenClassification:
        """A token classifier."""
        return RobertaForTokenClassification.from_pretrained(
            encoder, dict(enumerate(self.names)), recipe.dropout, seed
        )

    def target(self, labels: Sequence[np.ndarray], length: int) -> torch.Tensor:
        """Int64 [B, L]."""
        result = torch.full((len(labels), length), IGNORED)
        for row, each in enumerate(labels):
            result[row, : len(each)] = torch.from_numpy(each)
        return result

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the words of the batch, in nats; 0 where it has none."""
        logits = model(batch.input_ids, batch.mask, batch.types).flatten(0, 1)
        total = F.cross_entropy(logits, batch.target.flatten(), ignore_index=IGNORED, reduction="sum")
        return total / batch.target.ne(IGNORED).sum().clamp(min=1)

    def outputs(self, model: torch.nn.Module, batch: Batch) -> list[np.ndarray]:
        """[L, tags] a row, without its padding."""
        found = model(batch.input_ids, batch.mask, batch.types).double().softmax(-1).cpu().numpy()
        lengths = [found.shape[1]] * len(found) if batch.mask is None else batch.mask.sum(1).tolist()
        return [each[:length] for each, length in zip(found, lengths)]
