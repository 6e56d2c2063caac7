"""Cross-entropy over a large vocabulary without ever holding all logits.

The logits of a batch are its largest tensor: at roberta-base's vocabulary 100 KB a masked token in bfloat16, and the plain
loss makes several copies in float32. Here a tile of rows goes the whole way, product, softmax, loss, gradient of the logits,
gradient of the hidden states, before the next one starts; so the gradient is computed in the forward pass, as Liger Kernel's
fused linear cross-entropy does (Hsu et al. 2024, arXiv 2410.10989), and nothing is computed twice. What is left for the
backward pass is one multiplication by the gradient of the loss.

On a CPU a tile fits the cache, which is worth more than the memory. The price: a forward pass that needs no gradient must
say so (`torch.no_grad`), and there is no second derivative.
"""

import torch

TILE_ELEMENTS = {"cpu": 1 << 22}
"""Logits of a tile: 8 MB in bfloat16 and 16 MB of float32 probabilities, within the last-level cache of a CPU. Of a
vocabulary of 16,384 that is 256 rows; with 128, and with 304, a step takes 1 to 2 % longer."""
BLOCK_ELEMENTS = 1 << 27
"""Logits whose gradients are kept for one product with the hidden states: 256 MB in bfloat16. Several tiles on a CPU; on a
GPU, one."""


def _drops_unused(labels: torch.Tensor) -> bool:
    """Whether rows without a label are left out before: nobody waits for a CPU to count."""
    return labels.device.type == "cpu" and not torch.compiler.is_compiling()


def _tile(
    logits: torch.Tensor,
    labels: torch.Tensor,
    ignored: int,
    of_logits: torch.Tensor | None,
    workspace: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One tile: its loss and its right predictions, summed.

    Args:
        logits: [T, V].
        labels: int64 [T].
        of_logits: [T, V], takes the gradient of the logits, may be `logits`; None where none is wanted.
        workspace: float32 [at least T, V], and no label is `ignored`; None: probabilities get memory of their own.
    """
    used = labels.ne(ignored)
    target = labels.masked_fill(~used, 0)[:, None]
    if workspace is None:
        probs = torch.softmax(logits, -1, dtype=torch.float32)
        top, best = probs.max(-1, keepdim=True)
        largest = logits.gather(1, best).float()
        hit = best == target
    else:  # the same for a CPU, where to find the place of a maximum takes five times as long as the maximum
        values = workspace[: len(logits)].copy_(logits)
        largest = values.amax(-1, keepdim=True)
        probs = torch.softmax(values, -1, out=values)
        top = probs.amax(-1, keepdim=True)
        hit = probs.gather(1, target) == top
        among = hit[:, 0].nonzero()[:, 0]  # of several largest ones the first counts
        hit[among] = probs[among].argmax(-1, keepdim=True) == target[among]
    # log of the sum of exponentials, from the largest term: no term is lost to underflow
    losses = (largest - top.log() - logits.gather(1, target).float())[:, 0]
    loss = losses.masked_fill(~used, 0.0).sum()
    right = (hit[:, 0] & used).sum()
    if of_logits is not None:
        probs.scatter_add_(1, target, torch.full_like(top, -1.0))
        of_logits.copy_(probs.mul_(used[:, None]) if workspace is None else probs)
    return loss, right


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed loss and number of right predictions; the gradients are ready when the forward pass ends."""

    @staticmethod
    def forward(
        ctx, hidden: torch.Tensor, embedding: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor, ignored: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, vocabulary = len(hidden), len(embedding)
        block_rows = max(1, BLOCK_ELEMENTS // vocabulary)
        tile_rows = max(1, TILE_ELEMENTS.get(hidden.device.type, BLOCK_ELEMENTS) // vocabulary)
        wants = any(ctx.needs_input_grad)
        loss = hidden.new_zeros((), dtype=torch.float32)
        right = labels.new_zeros(())
        of_hidden = torch.empty_like(hidden) if wants else None
        of_embedding = None
        of_bias = torch.zeros_like(bias, dtype=torch.float32) if wants else None
        workspace = None
        if _drops_unused(labels):
            workspace = torch.empty(min(rows, tile_rows), vocabulary, dtype=torch.float32)
        for start in range(0, rows, block_rows):
            here = slice(start, min(start + block_rows, rows))
            of_logits = hidden.new_empty(here.stop - start, vocabulary) if wants else None
            for first in range(start, here.stop, tile_rows):
                tile = slice(first, min(first + tile_rows, here.stop))
                gradient = of_logits[first - start : tile.stop - start] if wants else None
                logits = torch.addmm(bias, hidden[tile], embedding.t(), out=None if workspace is None else gradient)
                tile_loss, tile_right = _tile(logits, labels[tile], ignored, gradient, workspace)
                loss += tile_loss
                right += tile_right
                if wants:
                    torch.mm(gradient, embedding, out=of_hidden[tile])
                    of_bias += gradient.sum(0)
            if wants:
                product = of_logits.t() @ hidden[here]
                if block_rows < rows:  # sums over blocks are float32
                    product = product.float() if of_embedding is None else of_embedding.add_(product)
                of_embedding = product
        ctx.save_for_backward(of_hidden, of_embedding, of_bias)
        ctx.types = hidden.dtype, embedding.dtype, bias.dtype
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx, gradient: torch.Tensor, _):
        ready = zip(ctx.saved_tensors, ctx.types)
        return *((tensor * gradient.to(tensor.dtype)).to(dtype) for tensor, dtype in ready), None, None


def linear_cross_entropy(
    hidden: torch.Tensor, embedding: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor, ignored: int = -100
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of `hidden @ embedding.T + bias`, in memory that does not grow with the number of rows.

    Args:
        hidden: [N, D], float32 or bfloat16: the type of the products. Losses and sums are float32.
        embedding: [padded V, D].
        bias: [V]; rows of the embedding beyond V take no part.
        labels: int64 [N]; rows with the label `ignored` count neither in the loss nor among the right ones.

    Returns:
        The loss in nats, float32, and the number of rows whose most likely class is their label, int64; both summed.
    """
    if _drops_unused(labels):
        used = labels.ne(ignored)
        hidden, labels = hidden[used], labels[used]
    padded = len(embedding) - len(bias)
    if padded:
        bias = torch.nn.functional.pad(bias, (0, padded), value=float("-inf"))
    with torch.autocast(hidden.device.type, enabled=False):
        return _LinearCrossEntropy.apply(hidden, embedding.to(hidden.dtype), bias.to(hidden.dtype), labels, ignored)
