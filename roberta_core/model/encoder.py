"""RoBERTa's encoder: embeddings, then post-layer-norm transformer layers (Devlin et al. 2019; Liu et al. 2019).

The module tree carries Hugging Face's names, so that a `model.safetensors` of theirs loads without a table of names,
and ours loads there. Query, key and value are three matrices for the same reason, and because Muon orthogonalises each
by itself; they are joined into one product in the forward pass.

Shapes: B rows, L tokens a row, D hidden size, H heads.
"""

import torch
from torch import nn
from torch.nn import functional as F

from roberta_core.model import layer_function
from roberta_core.model.attention import additive, attend, is_written_out
from roberta_core.model.config import RobertaConfig
from roberta_core.model.dropout import Dropout
from roberta_core.model.isolation import Isolation, attend_within


class Norm(nn.LayerNorm):
    """Layer norm, computed in float32 and given back in the type that came in: under autocast the stream stays bfloat16."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        return super().forward(hidden).to(hidden.dtype)


class Embeddings(nn.Module):
    """Sum of word, position and type embeddings, normalised. Positions start at `pad_token_id + 1`, as in fairseq."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.word_embeddings = nn.Embedding(config.padded_vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = Norm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: torch.Tensor,
        padded: bool,
        token_types: torch.Tensor | None = None,
        isolation: Isolation | None = None,
    ) -> torch.Tensor:
        """`input_ids` [B, L] -> [B, L, D]. With `padded`, padding anywhere in a row is skipped in the count of positions.

        `token_types` [B, L]: of BERT's pairs; None: all are of type 0. `isolation`: positions start anew in every document.
        """
        if isolation is not None:
            positions = self.position_embeddings(isolation.position_ids)
        elif padded:
            real = input_ids.ne(self.pad_token_id)
            position_ids = real.cumsum(1) * real + self.pad_token_id
            positions = self.position_embeddings(position_ids)
        else:
            start = self.pad_token_id + 1
            positions = self.position_embeddings.weight[start : start + input_ids.shape[1]]
        types = self.token_type_embeddings
        typed = types.weight[0] if token_types is None else types(token_types)
        hidden = self.word_embeddings(input_ids) + positions + typed
        if torch.is_autocast_enabled(hidden.device.type):
            hidden = self.LayerNorm(hidden).to(torch.get_autocast_dtype(hidden.device.type))
        else:
            hidden = self.LayerNorm(hidden)
        return self.dropout(hidden)


class SelfAttention(nn.Module):
    """Multi-head attention before its output projection."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout_prob = config.attention_probs_dropout_prob

    def forward(self, hidden: torch.Tensor, seen: torch.Tensor | Isolation | None) -> torch.Tensor:
        """`hidden` [B, L, D] -> [B, L, D]. `seen`: the tokens that one sees: [B, 1, 1, L], an `Isolation`, or None: all."""
        batch, length, width = hidden.shape
        weight = torch.cat((self.query.weight, self.key.weight, self.value.weight))
        bias = torch.cat((self.query.bias, self.key.bias, self.value.bias))
        qkv = F.linear(hidden, weight, bias).view(batch, length, 3, self.heads, width // self.heads)
        if isinstance(seen, Isolation) and seen.starts is not None:
            return attend_within(qkv, seen.starts)
        mask = seen.mask if isinstance(seen, Isolation) else seen
        return attend(qkv, mask, self.dropout_prob if self.training else 0.0)

    def first(self, hidden: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """What the first token of each row takes from all: [B, L, D] -> [B, 1, D]. `seen` as above, without isolation."""
        batch, length, width = hidden.shape
        shape = (batch, -1, self.heads, width // self.heads)
        query = self.query(hidden[:, :1]).view(shape).transpose(1, 2)
        weight, bias = (torch.cat((getattr(self.key, part), getattr(self.value, part))) for part in ("weight", "bias"))
        key, value = F.linear(hidden, weight, bias).view(batch, length, 2, *shape[2:]).permute(2, 0, 3, 1, 4)
        dropout = self.dropout_prob if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
        return mixed.transpose(1, 2).reshape(batch, 1, width)


class ResidualOutput(nn.Module):
    """Projection, dropout, residual sum, layer norm: the second half of attention and of the feed-forward block."""

    def __init__(self, width: int, config: RobertaConfig):
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = Norm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, inner: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """`inner` [B, L, width], `residual` [B, L, D] -> [B, L, D]."""
        return self.LayerNorm(self.dropout.plus(self.dense(inner), residual))


class Attention(nn.Module):
    """Attention with its projection and residual; two modules because Hugging Face names them so."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.self = SelfAttention(config)
        self.output = ResidualOutput(config.hidden_size, config)

    def forward(self, hidden: torch.Tensor, seen: torch.Tensor | Isolation | None) -> torch.Tensor:
        """[B, L, D] -> [B, L, D]."""
        return self.output(self.self(hidden, seen), hidden)

    def first(self, hidden: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """[B, L, D] -> [B, 1, D]."""
        return self.output(self.self.first(hidden, seen), hidden[:, :1])


class Intermediate(nn.Module):
    """The feed-forward block's widening half, with the exact (erf) GELU."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, L, D] -> [B, L, 4·D]."""
        return F.gelu(self.dense(hidden))


class Layer(nn.Module):
    """One post-layer-norm transformer layer.

    In training on a CPU it is one function of its modules' weights (`layer_function`), so hooks on these modules are not
    called there.
    """

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config.intermediate_size, config)

    def _in_one(
        self, hidden: torch.Tensor, seen: torch.Tensor | Isolation | None, first: bool = False
    ) -> torch.Tensor | None:
        """The output by `layer_function`; None where the modules have to give it."""
        by_kernel = isinstance(seen, Isolation) and seen.starts is not None
        if not self.training or by_kernel:
            return None
        settings, weights = self._held()
        if not layer_function.is_possible(hidden, settings):
            return None
        mask = seen.mask if isinstance(seen, Isolation) else seen
        return layer_function.apply(hidden, mask, settings, weights, first)

    def _held(self) -> tuple[layer_function.Settings, list[torch.Tensor]]:
        """What `layer_function` asks for: as the modules hold it now, whoever replaced one or changed its dropout.

        By the dictionaries that modules keep: by attributes it takes 20 times as long, a hundredth of a small update.
        """
        attention, last = self._modules["attention"]._modules, self._modules["output"]._modules
        own, between = attention["self"], attention["output"]._modules
        maps = [own._modules[name] for name in ("query", "key", "value")] + [between["dense"], between["LayerNorm"]]
        parts = [*maps, self._modules["intermediate"]._modules["dense"], last["dense"], last["LayerNorm"]]
        shares = own.dropout_prob, between["dropout"].p, last["dropout"].p
        settings = layer_function.Settings(own.heads, *shares, last["LayerNorm"].eps)
        return settings, [part._parameters[name] for part in parts for name in ("weight", "bias")]

    def forward(self, hidden: torch.Tensor, seen: torch.Tensor | Isolation | None) -> torch.Tensor:
        """[B, L, D] -> [B, L, D]."""
        result = self._in_one(hidden, seen)
        if result is not None:
            return result
        hidden = self.attention(hidden, seen)
        return self.output(self.intermediate(hidden), hidden)

    def first(self, hidden: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """The first token's output alone: [B, L, D] -> [B, 1, D]. Of the others only keys and values are needed; in
        training on a CPU not even these (`first_token`)."""
        result = self._in_one(hidden, seen, first=True)
        if result is not None:
            return result
        hidden = self.attention.first(hidden, seen)
        return self.output(self.intermediate(hidden), hidden)


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class Roberta(nn.Module):
    """Embeddings and encoder: token ids in, hidden states out."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_types: torch.Tensor | None = None,
        isolation: Isolation | None = None,
        first_only: bool = False,
    ) -> torch.Tensor:
        """Hidden states of the last layer.

        Args:
            input_ids: int [B, L].
            attention_mask: [B, L], true or 1 at tokens, false or 0 at padding. None: no row has padding, which is faster.
            token_types: int [B, L], 0 in the first text of a pair and 1 in the second, for models that have them.
            isolation: the documents of packed rows, which do not see one another; it knows the padding too.
            first_only: compute the first token's alone, which saves most of the last layer; not with `isolation`.

        Returns:
            [B, L, D], or [B, 1, D] with `first_only`; what stands at padding is of no use.
        """
        assert isolation is None or not first_only
        hidden = self.embeddings(input_ids, attention_mask is not None, token_types, isolation)
        seen: torch.Tensor | Isolation | None = isolation
        if isolation is None and attention_mask is not None:
            seen = attention_mask.bool()[:, None, None, :]
            if is_written_out(hidden, hidden.shape[1], 0.0):
                seen = additive(seen, hidden.dtype)  # once, not in every layer
        *lower, last = self.encoder.layer
        for layer in lower:
            hidden = layer(hidden, seen)
        return last.first(hidden, seen) if first_only else last(hidden, seen)


def initialise(module: nn.Module, std: float, seed: int) -> None:
    """Draws all weights as BERT does: matrices and embeddings normal(0, `std`), biases 0, layer norms 1 and 0.

    The draw depends on `seed` and the order of the modules alone, not on torch's global generator.
    """
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            with torch.no_grad():
                part.weight.copy_(torch.empty(part.weight.shape).normal_(0.0, std, generator=generator))
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
