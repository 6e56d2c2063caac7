"""Masked language modelling and sequence classification; `token_heads` has the models that answer for every token.

Both load and save Hugging Face folders (`roberta_core.model.folder`), with equal logits there and here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

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
    """What all models share: a configuration, an encoder, and their folder.

    Args:
        config: the model's configuration.
        seed: of the weights' draw.
    """

    architecture: str

    def __init__(self, config: RobertaConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.roberta = Roberta(config)
        self.add_head()
        initialise(self, config.initializer_range, seed)

    def add_head(self) -> None:
        """Adds the modules behind the encoder."""

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


class Headed(Saved):
    """An encoder with a task's head, which is drawn anew where a folder is an encoder's.

    Attributes:
        head: what the head's weights are called.
        first_only: whether it reads the hidden state of `<s>` alone.
    """

    head: str
    first_only = False

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_types: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Float32 logits of `input_ids`, int [B, L]: [B, labels] of `<s>`, or [B, L, labels]; the rest as in `Roberta`."""
        return self.logits(self.roberta(input_ids, attention_mask, token_types, first_only=self.first_only)).float()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the head makes of hidden states, [B, 1 or L, D]."""
        return getattr(self, self.head)(hidden)

    @classmethod
    def of_weights(
        cls,
        config: RobertaConfig,
        weights: Mapping[str, torch.Tensor],
        folder: Path,
        fresh: bool,
        dropout: float | None,
        seed: int,
    ) -> Self:
        """The model with weights from a folder, in evaluation mode; with `fresh` what is not there of the head is drawn.

        Raises:
            BadInput: a weight is missing or has another shape.
        """
        model = cls(config if dropout is None else config.with_dropout(dropout), seed)
        model.take_weights(weights, folder, fresh=(f"{cls.head}.",) if fresh else ())
        return model.eval()


def numbered(count: int) -> dict[int, str]:
    """Names of labels that have none, as transformers has them."""
    return {index: f"LABEL_{index}" for index in range(count)}


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
    """The encoder with the masked-language-modelling head."""

    architecture = "RobertaForMaskedLM"

    def __init__(self, config: RobertaConfig, seed: int = 0):
        super().__init__(replace(config, id2label={}, problem_type=None), seed)

    def add_head(self) -> None:
        """The head, whose decoder is the embedding."""
        self.lm_head = MaskedLMHead(self.config)

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


class RobertaForSequenceClassification(Headed):
    """The encoder with a classification head; one output and `problem_type="regression"` make it a regressor.

    Its configuration has `id2label` and `problem_type`.
    """

    architecture = "RobertaForSequenceClassification"
    head = "classifier"
    first_only = True

    def add_head(self) -> None:
        """The head at `<s>`."""
        self.classifier = ClassificationHead(self.config)

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
            names = dict(id2label) if id2label else numbered(num_labels)
            config = replace(config, id2label=names, problem_type=problem_type)
        elif "classifier.out_proj.weight" not in weights:
            raise BadInput(
                f"{folder} holds an encoder without a classification head.",
                "Fine-tune it first, or give the folder of a classifier.",
            )
        elif not config.id2label:  # transformers leaves out the default names of two labels
            config = replace(config, id2label=numbered(len(weights["classifier.out_proj.weight"])))
        outputs = weights.get("classifier.out_proj.weight")
        # another task's head is dropped, as fairseq does
        if num_labels is not None and outputs is not None and len(outputs) != num_labels:
            weights = {name: each for name, each in weights.items() if not name.startswith("classifier.")}
        if config.has_token_types:  # trained on pairs: BERT
            pooler = {name: each for name, each in weights.items() if name.startswith(POOLER)}
            weights = {name.replace(POOLER, "classifier.dense."): each for name, each in pooler.items()} | weights
        return cls.of_weights(config, weights, folder, num_labels is not None, dropout, seed)
