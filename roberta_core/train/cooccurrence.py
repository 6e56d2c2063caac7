"""Word vectors and frequencies counted from the corpus: what a model would otherwise learn first, and slowly, from gradients.

Two things that a masked-language model must know can simply be counted. How frequent each token is: the decoder's bias starts as
the log of it. And which tokens keep company: the word embeddings start as the leading directions of the matrix of positive
pointwise mutual information, which is what word2vec learns in disguise (Levy & Goldberg 2014). As the decoder is tied to the
embeddings, the inner product of a masked token with the tokens around it then already says how well they go together.

A sample of the packed rows is counted, and the matrix is taken apart by a randomised singular value decomposition (Halko,
Martinsson & Tropp 2011): some seconds and a few hundred MB for a vocabulary of 16,000. It runs on one thread, as the last bits
of a product depend on how it was cut up, and a singular vector's sign on the last bits. The outcome is an ordinary set of
weights, free to change.

Measured: docs/leaderboard.md.
"""

import math
import warnings

import numpy as np
import torch

from roberta_core.data.packed import PackedRows
from roberta_core.model import RobertaForMaskedLM
from roberta_core.train.masking import NUM_SPECIAL

SAMPLE_TOKENS = 2_560_000
"""Tokens that are counted, from rows spread evenly over the data."""
WINDOW = 4
"""Tokens to either side that count as company, with the weight 1 / distance (as in GloVe)."""
SMOOTHING = 0.75
"""Power of the context's frequency in the mutual information: tames rare tokens (Levy, Goldberg & Dagan 2015, section 3.2)."""
SINGULAR_POWER = 0.5
"""Power of the singular values in the vectors (Levy, Goldberg & Dagan 2015, section 3.3, eigenvalue weighting)."""
OVERSAMPLES, POWER_ITERATIONS = 16, 2
"""Of the randomised decomposition: extra directions, and passes that sharpen it."""


def sample(rows: PackedRows) -> np.ndarray:
    """Token ids int64 [N, L] of rows that are spread evenly over the data, about `SAMPLE_TOKENS` tokens in all."""
    count = min(len(rows), max(1, SAMPLE_TOKENS // rows.max_length))
    return rows.rows(np.linspace(0, len(rows) - 1, count).astype(np.int64))


def log_frequencies(ids: np.ndarray, vocab_size: int) -> torch.Tensor:
    """Log of each token's share, float32 [V]; tokens that are never predicted (special ones) count as seen once."""
    counts = np.bincount(ids.ravel(), minlength=vocab_size).astype(np.float64) + 1.0
    counts[:NUM_SPECIAL] = counts[vocab_size - 1] = 1.0
    return torch.tensor(np.log(counts / counts.sum()), dtype=torch.float32)


def mutual_information(ids: np.ndarray, vocab_size: int) -> torch.Tensor:
    """Positive pointwise mutual information of tokens and the tokens beside them: float32 [V, V], sparse (CSR)."""
    pairs, weights = [], []
    for distance in range(1, WINDOW + 1):
        left, right = ids[:, :-distance].ravel(), ids[:, distance:].ravel()
        plain = (left >= NUM_SPECIAL) & (right >= NUM_SPECIAL)
        found, counts = np.unique(left[plain] * vocab_size + right[plain], return_counts=True)
        pairs.append(found)
        weights.append(counts / distance)
    found, where = np.unique(np.concatenate(pairs), return_inverse=True)
    weight = np.bincount(where, weights=np.concatenate(weights))
    left, right = found // vocab_size, found % vocab_size
    indices = torch.from_numpy(np.stack((np.r_[left, right], np.r_[right, left])))
    counted = torch.sparse_coo_tensor(
        indices, torch.from_numpy(np.r_[weight, weight]), (vocab_size, vocab_size), check_invariants=False
    ).coalesce()
    (row, column), value = counted.indices(), counted.values()
    of_word = torch.zeros(vocab_size, dtype=torch.float64).index_add_(0, row, value)
    of_context = of_word**SMOOTHING
    of_context /= of_context.sum()
    information = torch.log(value / (of_word[row] * of_context[column]))
    kept = information > 0
    return torch.sparse_coo_tensor(
        torch.stack((row[kept], column[kept])),
        information[kept].float(),
        (vocab_size, vocab_size),
        check_invariants=False,
    ).to_sparse_csr()


def leading_directions(matrix: torch.Tensor, width: int, seed: int) -> torch.Tensor:
    """Left singular vectors of a sparse [V, V] matrix, times its singular values to `SINGULAR_POWER`: float32 [V, width]."""
    generator = torch.Generator().manual_seed(seed)
    turned = matrix.to_sparse_coo().t().coalesce().to_sparse_csr()
    basis = matrix @ torch.randn(matrix.shape[1], width + OVERSAMPLES, generator=generator)
    for _ in range(POWER_ITERATIONS):
        basis = matrix @ torch.linalg.qr(turned @ torch.linalg.qr(basis).Q).Q
    basis = torch.linalg.qr(basis).Q
    left, values, _ = torch.linalg.svd((turned @ basis).T, full_matrices=False)
    vectors = (basis @ left)[:, :width] * values[:width] ** SINGULAR_POWER
    vectors = torch.nn.functional.pad(vectors, (0, width - vectors.shape[1]))  # a vocabulary smaller than the width
    # A random turn: no coordinate is worth more than another, as layer norm and Adam's update assume.
    return vectors @ torch.linalg.qr(torch.randn(width, width, generator=generator)).Q


def start_with_word_vectors(model: RobertaForMaskedLM, rows: PackedRows, seed: int) -> None:
    """Changes a freshly drawn model in place: its word embeddings and the decoder's bias.

    Args:
        model: tokens that the sample does not hold keep their drawn vector.
        rows: the training split.
        seed: of the decomposition.
    """
    config = model.config
    ids = sample(rows)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            matrix = mutual_information(ids, config.vocab_size)
            vectors = leading_directions(matrix, config.hidden_size, seed)
    finally:
        torch.set_num_threads(threads)
    norms = vectors.norm(dim=1, keepdim=True)
    seen = (matrix.crow_indices().diff() > 0) & (norms[:, 0] > 1e-6 * norms.max())
    # As long as the normal draw that they replace, each: frequent tokens would otherwise drown the positions.
    vectors *= config.initializer_range * math.sqrt(config.hidden_size) / norms.clamp_min(1e-30)
    with torch.no_grad():
        model.roberta.embeddings.word_embeddings.weight[: config.vocab_size][seen] = vectors[seen]
        model.lm_head.bias.copy_(log_frequencies(ids, config.vocab_size))
