"""What a run will cost, before it starts: parameters, FLOPs, tokens, memory, and the micro-batch that fits.

Everything here is arithmetic on a configuration, so it takes no time and no weights, and a laptop can plan for a machine that
it is not. FLOPs are by the formula of `RobertaConfig.train_flops_per_token`. Memory counts what torch keeps: weights, gradients
and optimizer state in float32, the bfloat16 casts that autocast keeps, and the tensors that the backward pass needs. What is
not counted: torch's own libraries (some hundred MB), fragments of the allocator, and what `torch.compile` saves or adds. So
`MARGIN` of the memory is left free.
"""

from dataclasses import dataclass

from roberta_core.model import RobertaConfig
from roberta_core.model.attention import LONGEST
from roberta_core.model.loss import BLOCK_ELEMENTS, TILE_ELEMENTS
from roberta_core.train.batches import BatchPlan
from roberta_core.train.masking import slots

MARGIN = 0.1
"""Share of a device's memory that a plan leaves free."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights, gradients, optimizer: float32.
        casts: of the weights to bfloat16, kept during an update.
        loss: what the loss over the vocabulary works in.
        sequence: activations of one sequence, kept from the forward to the backward pass.
    """

    weights: int
    gradients: int
    optimizer: int
    casts: int
    loss: int
    sequence: int

    @property
    def fixed(self) -> int:
        """What does not depend on the micro-batch."""
        return self.weights + self.gradients + self.optimizer + self.casts + self.loss

    def fitting(self, available: float) -> int:
        """Sequences at once that fit in `available` bytes, `MARGIN` of it left free; 0 where not even one does."""
        return max(0, int((available * (1 - MARGIN) - self.fixed) // self.sequence))


def micro_batch(fitting: int, rows: int) -> int:
    """The largest power of two within what fits and within a rank's share of the batch; 0 where nothing fits."""
    most = min(fitting, rows)
    return 1 << (most.bit_length() - 1) if most > 0 else 0


def held_weights(config: RobertaConfig) -> int:
    """Parameters as they lie in memory: the vocabulary is padded there."""
    return config.parameters() + (config.padded_vocab_size - config.vocab_size) * config.hidden_size


def muon_weights(config: RobertaConfig) -> int:
    """Parameters that Muon takes: the matrices of the layers."""
    return config.num_hidden_layers * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size)


def sequence_bytes(config: RobertaConfig, length: int, mask_prob: float, precision: str, device: str) -> int:
    """Activations of one sequence of `length` tokens that the backward pass needs.

    Counted from the tensors that autograd saves (a test compares). In elements a token and layer, D the hidden size and F
    the feed-forward size: inputs of the three products 3·D, query, key and value 3·D, inputs of the two norms 2·D, feed-forward
    block before and after GELU 2·F. On a GPU autocast computes norms in float32, whose inputs then take 4 bytes. Dropout keeps
    a mask of two D: one byte an element on a GPU, on a CPU as many as a value. Attention written out (rows up to `LONGEST`
    tokens on a CPU) keeps its probabilities, H · L a token, and their mask; fused attention does not.
    """
    cpu, value = device == "cpu", 2 if precision == "bf16" else 4
    d, f, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    norm = value if cpu else 4
    mask = (value if cpu else 1) if config.hidden_dropout_prob else 0
    layer = value * (6 * d + 2 * f) + 2 * d * (norm + mask) + 16  # 16: means and deviations of two norms
    if cpu and length <= LONGEST:
        layer += heads * length * value * (2 if config.attention_probs_dropout_prob else 1)
    else:
        layer += 4 * heads  # log-sums
    embeddings = d * (4 + mask) + 16
    head = slots(length, mask_prob) * (5 * d * value + 24)
    return length * (config.num_hidden_layers * layer + embeddings) + head


def memory(
    config: RobertaConfig,
    length: int,
    mask_prob: float,
    precision: str,
    optimizer: str,
    device: str,
    rows: int,
    shards: int = 1,
) -> Memory:
    """Memory of one device.

    Args:
        length: tokens a row.
        optimizer: as in a recipe.
        device: `cpu` or `cuda`.
        rows: a rank's share of the batch; the loss of few rows works in less.
        shards: ranks that share weights, gradients and optimizer state (FSDP); 1: every rank holds all.
    """
    weights = held_weights(config)
    moments = 2 * weights - (muon_weights(config) if optimizer == "muon" else 0)
    vocabulary = config.padded_vocab_size
    block = min(rows * slots(length, mask_prob) * vocabulary, BLOCK_ELEMENTS)
    tile = min(TILE_ELEMENTS.get(device, BLOCK_ELEMENTS), block)
    # gradients of a block in bfloat16, a tile in bfloat16 and float32, the embedding's gradient twice
    loss = 2 * block + 6 * tile + 8 * vocabulary * config.hidden_size
    return Memory(
        4 * weights // shards,
        4 * weights // shards,
        4 * moments // shards,
        2 * weights if precision == "bf16" else 0,
        loss if precision == "bf16" else 2 * loss,
        sequence_bytes(config, length, mask_prob, precision, device),
    )


def total_tokens(batches: BatchPlan, max_steps: int, length: int) -> int:
    """Tokens of a whole run, padding counted."""
    return batches.start_of(max_steps) * length


def seconds(tokens: int, flops_per_token: float, peak: float, devices: int, mfu: float) -> float:
    """Time of a run on `devices` of a peak (FLOP/s) of which a share of `mfu` is used."""
    return tokens * flops_per_token / (peak * devices * mfu)
