"""Heads that look at a neighbour from the first update on: an initialisation that skips the unigram plateau.

A masked-language model that starts from small random weights first learns how frequent each token is, and then stays
there: to use a neighbour, a head must find out from noise which position is next to which, and until some head has, no
gradient says where to look. Short runs spend all their time on this plateau.

So that knowledge is put in at birth. Position embeddings start as sinusoids (Vaswani et al. 2017) in a random subspace as
wide as one head; the query and key of each head read that subspace, the query turned by the head's own
offset (-1, +1, -2, +2, ...). A sinusoid turned by an offset is the sinusoid of the position that far away, so head 0 attends to
the token before, head 1 to the one after. Everything stays an ordinary weight, free to change: the result is a RoBERTa
like any other, and exports as one. That a structured start helps attention is known from Trockman & Kolter 2023.

Measured: docs/decisions.md, "Heads that see their neighbours at birth".
"""

import math

import torch

from roberta_core.model.heads import RobertaForMaskedLM

SHARPNESS = 0.8
"""Scale of the query's and key's weights in the subspace; at 0.8 an attention score falls by some 2.5 from the wanted position to
the one beside it."""
SHORTEST_RADIANS = 1.5
"""Turn of the fastest sinusoid from one position to the next: a wavelength of 4.2 tokens."""


def offset_of(head: int) -> int:
    """-1, 1, -2, 2, -3, 3, ...: the relative position that a head starts out looking at."""
    distance = head // 2 + 1
    return -distance if head % 2 == 0 else distance


def start_with_neighbours(model: RobertaForMaskedLM, seed: int) -> None:
    """Changes a freshly drawn model in place: its positions, and the queries and keys of all layers.

    Args:
        model: drawn by `initialise`; its random query and key weights stay, as noise on top.
        seed: of the subspace.
    """
    config = model.config
    width, head_width = config.hidden_size, config.hidden_size // config.num_attention_heads
    waves = head_width // 2
    generator = torch.Generator().manual_seed(seed)
    subspace = torch.linalg.qr(torch.randn(width, head_width, generator=generator))[
        0
    ].T  # [head_width, width], orthonormal rows
    slowest = 2 * math.pi / (2 * config.max_position_embeddings)  # half a turn over a row: no two positions look alike
    radians = torch.exp(torch.linspace(math.log(SHORTEST_RADIANS), math.log(slowest), waves))
    angles = torch.arange(config.max_position_embeddings)[:, None] * radians
    sinusoids = torch.stack((angles.cos(), angles.sin()), -1).flatten(1)  # [positions, head_width]
    # As large as the normal draw that it replaces: norm std · sqrt(width), where a row of sinusoids has sqrt(waves).
    scale = config.initializer_range * math.sqrt(width / waves)
    with torch.no_grad():
        embeddings = model.roberta.embeddings
        for table in (embeddings.word_embeddings.weight, embeddings.token_type_embeddings.weight):
            table -= (
                table @ subspace.T @ subspace
            )  # words leave the subspace to positions, or each would attend to itself
        embeddings.position_embeddings.weight.copy_(scale * sinusoids @ subspace)
        for layer in model.roberta.encoder.layer:
            attention = layer.attention.self
            for head in range(config.num_attention_heads):
                rows = slice(head * head_width, (head + 1) * head_width)
                turn = torch.zeros(head_width, head_width)
                for wave, angle in enumerate((radians * offset_of(head)).tolist()):
                    turn[2 * wave : 2 * wave + 2, 2 * wave : 2 * wave + 2] = torch.tensor(
                        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
                    )
                attention.query.weight[rows] += SHARPNESS * turn @ subspace
                attention.key.weight[rows] += SHARPNESS * subspace
