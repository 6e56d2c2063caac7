"""Masked language modelling and sequence classification; `token_heads` has the models that answer for every token.

Both load and save Hugging Face folders (`roberta_core.model.folder`), with equal logits there and here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from roberta_core.errors import BadInput
from roberta_core.model.config import RobertaConfig
from roberta_core.model.encoder import Norm, Roberta, initialise
from roberta_core.model.folder import read_config, read_weights, write_folder
from roberta_core.model.isolation import Isolation
from roberta_core.model.loss import linear_cross_entropy

POOLER = "roberta.pooler.dense."

WORDS = "roberta.embeddings.word_embeddings.weight"
"""The one tensor that is larger in memory than in its file: the model pads the vocabulary."""


class Saved(nn.Module):
    """What all models share: a configuration, an encoder, and their folder."""

    architecture: str
    config: RobertaConfig

    def saved_weights(
        self, whole: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors as `model.safetensors` holds them: the vocabulary without its padding.

        Args:
            whole: gathers a tensor that is sharded among ranks.
        """
        for name, tensor in self.state_dict().items():
            tensor = whole(tensor)
            yield name, tensor[: self.config.vocab_size] if name == WORDS else tensor

    def save_pretrained(self, folder: Path | str, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Writes `config.json` and `model.safetensors` (float32) into `folder`.

        Args:
            folder: made where it is missing.
            weights: what `saved_weights` gave, gathered or copied before; None: the weights as they are now.
        """
        weights = dict(self.saved_weights()) if weights is None else weights
        write_folder(Path(folder), self.config.to_hugging_face(self.architecture), weights)

    def take_weights(self, weights: Mapping[str, torch.Tensor], folder: Path, fresh: tuple[str, ...] = ()) -> None:
        """Takes `weights` by name; those that begin with one of `fresh` may be absent and keep their drawn values.

        Raises:
            BadInput: a weight is missing or has another shape.
        """
        own = self.state_dict()
        with torch.no_grad():
            for name, target in own.items():
                if name not in weights:
                    if name.startswith(fresh):
                        continue
                    raise BadInput(
                        f"{folder} lacks the weight {name}.",
                        "It is no masked-language model; give another folder."
                        if name.startswith("lm_head.")
                        else "It is no RoBERTa model of this kind; give another folder.",
                    )
                given = weights[name]
                padded = name == WORDS
                expected = (self.config.vocab_size, *target.shape[1:]) if padded else tuple(target.shape)
                if tuple(given.shape) != expected:
                    raise BadInput(
                        f"{folder}: {name} has shape {list(given.shape)}, config.json says {list(expected)}.",
                        "The folder mixes two models; export it again.",
                    )
                if not torch.isfinite(given).all():
                    raise BadInput(
                        f"{folder}: {name} holds values that are no numbers.",
                        "The file is damaged, or its training diverged; give another folder.",
                    )
                target[: given.shape[0]].copy_(given) if given.dim() else target.copy_(given)


class MaskedLMHead(nn.Module):
    """Dense, GELU, layer norm; the decoder is the word embedding itself (weight tying), with a bias of its own."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = Norm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(
        self, hidden: torch.Tensor, embedding: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """`hidden` [..., D], `embedding` [padded V, D] -> logits [..., V]; the padding rows never take part.

        With `labels` int64 [N] and `hidden` [N, D], the summed loss and the number of right predictions instead.
        """
        hidden = self.layer_norm(F.gelu(self.dense(hidden)))
        if labels is not None:
            return linear_cross_entropy(hidden, embedding, self.bias, labels)
        return F.linear(hidden, embedding)[..., : self.bias.shape[0]] + self.bias


class RobertaForMaskedLM(Saved):
    """The encoder with the masked-language-modelling head.

    Args:
        config: the model's configuration.
        seed: of the weights' draw.
    """

    architecture = "RobertaForMaskedLM"

    def __init__(self, config: RobertaConfig, seed: int = 0):
        super().__init__()
        self.config = replace(config, id2label={}, problem_type=None)
        self.roberta = Roberta(config)
        self.lm_head = MaskedLMHead(config)
        initialise(self, config.initializer_range, seed)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        token_types: torch.Tensor | None = None,
        isolation: Isolation | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Logits over the vocabulary, or with `labels` the loss, without holding all logits.

        Args:
            input_ids: int [B, L].
            attention_mask: [B, L] or None (no padding).
            positions: int [N], indices into the flattened [B · L] tokens. The head then runs on those alone, which saves a
                quarter of the whole step at 15 % masking (fairseq's `masked_lm` criterion does the same).
            labels: int64 [N], the token at each of `positions`; -100 where a position does not count.
            token_types, isolation: as in `Roberta`.

        Returns:
            [B, L, V], or [N, V] with `positions`. With `labels`, which asks for `positions`: the loss in nats (float32)
            and the number of right predictions (int64), both summed over the positions that count.
        """
        hidden = self.roberta(input_ids, attention_mask, token_types, isolation)
        if positions is not None:
            hidden = hidden.flatten(0, 1)[positions]
        return self.lm_head(hidden, self.roberta.embeddings.word_embeddings.weight, labels)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "RobertaForMaskedLM":
        """Loads a Hugging Face folder of a RoBERTa or BERT masked-language model.

        Raises:
            BadInput: the folder is missing, damaged, of another kind of model, or holds a pickle instead of safetensors.
        """
        folder = Path(folder)
        model = cls(read_config(folder))
        model.take_weights(read_weights(folder), folder)
        return model.eval()


class ClassificationHead(nn.Module):
    """Dense, tanh, projection, on the hidden state of `<s>`."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`hidden` [B, L, D] -> [B, num_labels]."""
        first = torch.tanh(self.dense(self.dropout(hidden[:, 0])))
        return self.out_proj(self.dropout(first))


class RobertaForSequenceClassification(Saved):
    """The encoder with a classification head; one output and `problem_type="regression"` make it a regressor.

    Args:
        config: with `id2label` and `problem_type` set.
        seed: of the weights' draw.
    """

    architecture = "RobertaForSequenceClassification"

    def __init__(self, config: RobertaConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.roberta = Roberta(config)
        self.classifier = ClassificationHead(config)
        initialise(self, config.initializer_range, seed)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_types: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Float32 logits [B, num_labels] of `input_ids`, int [B, L]; the rest as in `Roberta`."""
        return self.classifier(self.roberta(input_ids, attention_mask, token_types, first_only=True)).float()

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        num_labels: int | None = None,
        problem_type: str = "single_label_classification",
        id2label: Mapping[int, str] | None = None,
        dropout: float | None = None,
        seed: int = 0,
    ) -> "RobertaForSequenceClassification":
        """Loads a classifier, or a masked-language model, which then gets a fresh head drawn from `seed`; so does a classifier
        of another number of labels than `num_labels`.

        A BERT's pooler, trained on pairs of sentences, is the first half of the fresh head. A RoBERTa's is left out where
        there is one: nothing has trained it.

        Args:
            folder: a Hugging Face folder.
            num_labels: needed for a fresh head; names come from `id2label`, else `LABEL_0`, ….
            dropout: on hidden states and attention; None keeps the folder's.

        Raises:
            BadInput: as for the masked-language model, or no head and no `num_labels`.
        """
        folder = Path(folder)
        config = read_config(folder)
        weights = read_weights(folder)
        if num_labels is not None:
            names = dict(id2label) if id2label else {index: f"LABEL_{index}" for index in range(num_labels)}
            config = replace(config, id2label=names, problem_type=problem_type)
        elif "classifier.out_proj.weight" not in weights:
            raise BadInput(
                f"{folder} holds an encoder without a classification head.",
                "Fine-tune it first, or give the folder of a classifier.",
            )
        elif not config.id2label:  # transformers leaves out the default names of two labels
            config = replace(
                config,
                id2label={index: f"LABEL_{index}" for index in range(weights["classifier.out_proj.weight"].shape[0])},
            )
        outputs = weights.get("classifier.out_proj.weight")
        # another task's head is dropped, as fairseq does
        if num_labels is not None and outputs is not None and len(outputs) != num_labels:
            weights = {name: each for name, each in weights.items() if not name.startswith("classifier.")}
        if dropout is not None:
            config = config.with_dropout(dropout)
        if config.has_token_types:  # trained on pairs: BERT
            pooler = {name: each for name, each in weights.items() if name.startswith(POOLER)}
            weights = {name.replace(POOLER, "classifier.dense."): each for name, each in pooler.items()} | weights
        model = cls(config, seed)
        model.take_weights(weights, folder, fresh=("classifier.",) if num_labels is not None else ())
        return model.eval()
