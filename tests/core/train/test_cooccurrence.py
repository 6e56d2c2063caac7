"""Word vectors counted from the corpus: the counts against a plain loop, the decomposition against torch's own."""

from collections import Counter

import numpy as np
import pytest
import torch

from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.train import cooccurrence
from roberta_core.train.cooccurrence import (
    leading_directions,
    log_frequencies,
    mutual_information,
    start_with_word_vectors,
)

VOCAB = 60


class Rows:
    """Rows in memory, as `PackedRows` gives them."""

    def __init__(self, ids: np.ndarray):
        self.ids, self.max_length = ids, ids.shape[1]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        return self.ids[numbers]


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    """Two kinds of rows, each with words of its own: 4 to 29, and 30 to 58."""
    draw = np.random.default_rng(3)
    first, second = draw.integers(4, 30, (200, 14)), draw.integers(30, VOCAB - 1, (200, 14))
    words = draw.permutation(np.concatenate((first, second)))
    return np.concatenate((np.zeros((400, 1), int), words, np.full((400, 1), 2)), axis=1)


def test_mutual_information_is_what_a_plain_loop_counts(ids):
    together: Counter[tuple[int, int]] = Counter()
    for row in ids.tolist():
        for place, left in enumerate(row):
            for distance in range(1, cooccurrence.WINDOW + 1):
                if place + distance < len(row) and left >= 4 and row[place + distance] >= 4:
                    right = row[place + distance]
                    together[left, right] += 1 / distance
                    together[right, left] += 1 / distance
    alone = Counter()
    for (left, _), weight in together.items():
        alone[left] += weight
    smooth = {word: weight**cooccurrence.SMOOTHING for word, weight in alone.items()}
    expected = np.zeros((VOCAB, VOCAB))
    for (left, right), weight in together.items():
        expected[left, right] = max(0.0, np.log(weight / (alone[left] * smooth[right] / sum(smooth.values()))))
    np.testing.assert_allclose(mutual_information(ids, VOCAB).to_dense().numpy(), expected, atol=1e-5)


def test_directions_are_those_of_the_full_decomposition(ids):
    matrix = mutual_information(ids, VOCAB)
    vectors = leading_directions(matrix, 8, seed=1)
    left, values, _ = torch.linalg.svd(matrix.to_dense())
    expected = left[:, :8] * values[:8] ** cooccurrence.SINGULAR_POWER
    # Inner products know nothing of signs and of the random turn.
    assert torch.allclose(vectors @ vectors.T, expected @ expected.T, atol=0.05 * float((expected @ expected.T).max()))


def test_words_of_one_kind_are_alike_and_frequencies_are_the_bias(ids):
    model = RobertaForMaskedLM(RobertaConfig.named("tiny", VOCAB, ids.shape[1], 0.0), seed=1)
    drawn = model.roberta.embeddings.word_embeddings.weight.detach().clone()
    start_with_word_vectors(model, Rows(ids), seed=1)
    table = model.roberta.embeddings.word_embeddings.weight.detach()
    alike = torch.nn.functional.normalize(table[:VOCAB], dim=1) @ torch.nn.functional.normalize(table[:VOCAB], dim=1).T
    first, second = slice(4, 30), slice(30, VOCAB - 1)
    assert alike[first, first].mean() > alike[first, second].mean() + 0.1
    assert alike[second, second].mean() > alike[first, second].mean() + 0.1
    assert torch.equal(table[:4], drawn[:4]) and torch.equal(table[VOCAB - 1 :], drawn[VOCAB - 1 :])
    lengths = table[4 : VOCAB - 1].norm(dim=1)
    assert torch.allclose(lengths, torch.full_like(lengths, 0.02 * model.config.hidden_size**0.5))
    assert torch.equal(model.lm_head.bias.detach(), log_frequencies(ids, VOCAB))
    shares = log_frequencies(ids, VOCAB).exp()
    assert shares.sum() == pytest.approx(1.0, abs=1e-5) and shares[4:30].sum() > 100 * shares[:4].sum()


def test_the_start_depends_on_the_seed_alone_and_not_on_threads(ids):
    def started(seed: int, threads: int) -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            model = RobertaForMaskedLM(RobertaConfig.named("tiny", VOCAB, ids.shape[1], 0.0), seed=1)
            start_with_word_vectors(model, Rows(ids), seed)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        return model.roberta.embeddings.word_embeddings.weight.detach()

    assert torch.equal(started(1, 1), started(1, 2))
    assert not torch.equal(started(1, 1), started(2, 1))
