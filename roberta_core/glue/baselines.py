"""What a score must beat: the most frequent class (or the mean score), and a bag of words.

The bag of words is TF-IDF with a linear model: logistic regression, or ridge for STS-B. A pair gives the vectors of
both texts side by side and their cosine, so that overlap of words, the one thing such a model can know of a
pair, is known to it. Nothing is tuned: defaults of scikit-learn, sublinear term counts, words seen once kept. It costs
seconds for most tasks and some minutes for MNLI.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from roberta_core.glue.layout import Split
from roberta_core.glue.tasks import SCORE_MAX, Task

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def majority(task: Task, train: Split, dev: Split) -> np.ndarray:
    """The most frequent label of train (of equally frequent ones the lowest id), or its mean score, a dev row: [rows]."""
    if task.values:
        return np.full(len(dev), np.bincount(np.asarray(train.labels, dtype=np.int64)).argmax())
    return np.full(len(dev), np.mean(train.labels))


def tfidf_features(
    train: Sequence[tuple[str, ...]], others: Sequence[Sequence[tuple[str, ...]]]
) -> "tuple[csr_matrix, list[csr_matrix]]":
    """The features of rows of texts, [rows, features], for train and for other sets; words are those of train.

    Args:
        train, others: a row is a text, or a pair; train has a word.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    vectorizer.fit(text for texts in train for text in texts)

    def features(rows: Sequence[tuple[str, ...]]) -> csr_matrix:
        sides = [vectorizer.transform(column) for column in zip(*rows)]
        if len(sides) == 2:
            sides.append(csr_matrix(sides[0].multiply(sides[1]).sum(axis=1)))
        return hstack(sides, format="csr")

    return features(train), [features(rows) for rows in others]


def tfidf(task: Task, train: Split, devs: Sequence[Split]) -> list[np.ndarray]:
    """Predictions of a linear model on TF-IDF for every dev file: ids, or scores clipped to 0 to 5; [rows] each."""
    from sklearn.linear_model import LogisticRegression, Ridge

    features, others = tfidf_features(train.texts, [dev.texts for dev in devs])
    if task.values:
        model = LogisticRegression(max_iter=1000).fit(features, train.labels)
        return [model.predict(each) for each in others]
    model = Ridge().fit(features, train.labels)
    return [np.clip(model.predict(each), 0.0, SCORE_MAX) for each in others]
