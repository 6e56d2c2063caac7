"""Exact match and F1 of answers, as SQuAD's official scripts define them (Rajpurkar et al. 2016, 2018).

Texts are compared in lower case, without punctuation, without `a`, `an` and `the`, and with single blanks; F1 is that of
the bags of words, the best over the given answers. Chinese has no blanks: there each Chinese character is a word, and all of
Unicode's punctuation falls away, as in MLQA's evaluation (Lewis et al. 2020), which reports of XQuAD follow.

No answer is right (1) for a question without one, and wrong (0) for any other. The threshold above which "no answer"
is said is the one that is best for F1 on given questions, found as `find_best_thresh` of SQuAD 2.0's script finds it.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def is_chinese(texts: Sequence[str]) -> bool:
    """Whether most letters of the texts are Chinese characters: then answers are compared by characters."""
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    return sum(bool(_CHINESE.match(letter)) for letter in letters) > len(letters) / 2


def words_of(text: str, by_character: bool) -> list[str]:
    """What of an answer is compared."""
    text = text.lower()
    if by_character:
        text = "".join(each for each in text if not unicodedata.category(each).startswith("P"))
        text = "".join(each for each in text if each not in string.punctuation)
        return _CHINESE.sub(lambda match: f" {match[0]} ", text).split()
    text = "".join(each for each in text if each not in string.punctuation)
    return _ARTICLES.sub(" ", text).split()


def _f1(truth: list[str], guess: list[str]) -> float:
    if not truth or not guess:
        return float(truth == guess)
    same = sum((Counter(truth) & Counter(guess)).values())
    return 2 * same / (len(truth) + len(guess))


def score_answer(answers: Sequence[str], guess: str, by_character: bool) -> tuple[float, float]:
    """Exact match and F1, 0 to 1, of one guess (empty: no answer) against the given answers (none: there is no answer)."""
    found = words_of(guess, by_character)
    # as in the official script: answers that are all punctuation and articles count as none
    truths = [words for each in answers if (words := words_of(each, by_character))] or [[]]
    return max(float(each == found) for each in truths), max(_f1(each, found) for each in truths)


def best_threshold(
    scores: Sequence[float], answered: Sequence[bool], no_answer: Sequence[float]
) -> tuple[float, float]:
    """The threshold of the null score at which the sum of scores is highest, and the mean score there.

    Args:
        scores: of each question the score (F1 or exact match) of its best span, were it given.
        answered: whether the question has an answer.
        no_answer: how far the score of no answer is above the best span's; above the threshold no answer is given.
    """
    gain = np.where(np.asarray(answered, bool), np.asarray(scores, float), -1.0)
    order = np.argsort(np.asarray(no_answer, float), kind="stable")
    # with the threshold below all, nothing is answered: right where there is no answer
    sums = np.count_nonzero(~np.asarray(answered, bool)) + np.concatenate(([0.0], np.cumsum(gain[order])))
    values = np.asarray(no_answer, float)[order]
    # questions with equal values fall on one side together
    whole = np.concatenate(([True], values[1:] > values[:-1], [True])) if len(values) else np.array([True])
    best = int(np.argmax(np.where(whole, sums, -np.inf)))
    threshold = float(values[best - 1]) if best else float(values[0]) - 1.0 if len(values) else 0.0
    return threshold, float(sums[best]) / max(1, len(values))
