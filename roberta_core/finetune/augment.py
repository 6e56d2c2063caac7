"""Random deletion and swap of words (EDA, Wei and Zou 2019, arXiv 1901.11196), drawn anew for every row and epoch.

A pure function of (seed, epoch, row): there is no state to lose, and no copy of the data. The texts of an epoch are
encoded when it begins, so their tokens are those of the changed text. Words are what spaces part; a text without spaces
stays as it is. EDA's other two operations need a thesaurus, in one language, and are left out.
"""

from collections.abc import Callable, Sequence

import numpy as np


def augment(text: str, draw: np.random.Generator, delete: float, swap: float) -> str:
    """One text changed.

    Args:
        delete: chance of each word to be left out; one word, drawn, stays where all would go.
        swap: two words change places round(`swap` · words) times.
    """
    words = text.split()
    if len(words) < 2:
        return text
    for _ in range(round(swap * len(words))):
        one, other = draw.choice(len(words), 2, replace=False)
        words[one], words[other] = words[other], words[one]
    if delete:
        kept = [word for word, chance in zip(words, draw.random(len(words))) if chance >= delete]
        words = kept or [words[draw.integers(len(words))]]
    return " ".join(words)


def augmented(
    texts: Sequence[tuple[str, ...]], seed: int, delete: float, swap: float
) -> Callable[[int], list[tuple[str, ...]]]:
    """Gives the rows of an epoch, every text of every row changed."""

    def of_epoch(epoch: int) -> list[tuple[str, ...]]:
        result = []
        for row, each in enumerate(texts):
            draw = np.random.default_rng([seed, epoch, row])
            result.append(tuple(augment(text, draw, delete, swap) for text in each))
        return result

    return of_epoch
