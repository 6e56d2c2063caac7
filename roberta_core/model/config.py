"""The configuration of a RoBERTa, its named sizes, and its cost in floating-point operations.

The fields are those of a Hugging Face `config.json`, under the same names, so a folder means the same here and there.
"""

from dataclasses import asdict, dataclass, field, fields, replace

from roberta_core.errors import BadInput, BadParams
from roberta_core.model.bert import config_as_roberta

SIZES = {
    # layers, hidden size, heads. tiny to medium: Turc et al. 2019 (arXiv 1908.08962), table 1; base and large: RoBERTa, table 9.
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}

VOCAB_MULTIPLE = 64
"""Rows of the embedding in memory are rounded up to this, so that the head's matrix product is aligned. Never saved."""


@dataclass(frozen=True)
class RobertaConfig:
    """What defines a model. Defaults are RoBERTa's (arXiv 1907.11692, table 9, and fairseq's `roberta` model)."""

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    hidden_act: str = "gelu"
    bos_token_id: int | None = 0
    pad_token_id: int = 1
    eos_token_id: int | None = 2
    problem_type: str | None = None
    id2label: dict[int, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.hidden_size % self.num_attention_heads:
            raise BadParams(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}.",
                "Choose one that is.",
            )
        if self.hidden_act != "gelu":
            raise BadInput(f"This model's activation is {self.hidden_act}.", "Only gelu, RoBERTa's own, is supported.")

    @classmethod
    def named(cls, size: str, vocab_size: int, max_length: int, dropout: float) -> "RobertaConfig":
        """One of `SIZES`, for rows of up to `max_length` tokens (`<s>` and `</s>` included)."""
        layers, hidden, heads = SIZES[size]
        return cls(
            vocab_size=vocab_size,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden,
            max_position_embeddings=max_length + 2,  # positions start at padding_idx + 1 = 2
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )

    @property
    def max_length(self) -> int:
        """Tokens that a row may have: positions start at `pad_token_id + 1`."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @property
    def has_token_types(self) -> bool:
        """Whether the texts of a pair are told apart by token types, as in BERT."""
        return self.type_vocab_size > 1

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding in memory."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def num_labels(self) -> int:
        """Outputs of the classification head."""
        return len(self.id2label)

    def with_dropout(self, dropout: float) -> "RobertaConfig":
        """The same model with another dropout probability on hidden states and attention."""
        return replace(self, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)

    def to_hugging_face(self, architecture: str) -> dict:
        """The content of `config.json`."""
        shown = asdict(self)
        labels = {str(index): label for index, label in shown.pop("id2label").items()}
        problem = shown.pop("problem_type")
        result = {
            "architectures": [architecture],
            "model_type": "roberta",
            **shown,
            "position_embedding_type": "absolute",
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
        }
        if labels:
            result |= {
                "id2label": labels,
                "label2id": {label: int(index) for index, label in labels.items()},
                "problem_type": problem,
            }
        return result

    @classmethod
    def from_hugging_face(cls, values: dict, folder: object) -> "RobertaConfig":
        """Reads the content of a `config.json`; of a BERT's as that of the RoBERTa with the same logits.

        Raises:
            BadInput: it describes another kind of model.
        """
        family = values.get("model_type", "nameless")
        if family not in ("roberta", "xlm-roberta", "camembert", "bert"):
            raise BadInput(f"{folder} holds a {family} model.", "Give the folder of a RoBERTa or BERT model.")
        if values.get("position_embedding_type", "absolute") != "absolute":
            raise BadInput(
                f"{folder} uses {values['position_embedding_type']} positions.",
                "Only absolute positions, RoBERTa's own, are supported.",
            )
        if values.get("is_decoder"):
            raise BadInput(f"{folder} holds a decoder.", "Give the folder of an encoder.")
        for each in fields(cls):
            value = values.get(each.name)
            wanted = {int: int, float: (int, float)}.get(each.type, object)
            if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
                raise BadInput(f"{folder}/config.json: {each.name} is {value!r}.", "Export the model again.")
        if family == "bert":
            values = config_as_roberta(values)
        known = {each.name for each in fields(cls)} - {"id2label"}
        taken = {name: value for name, value in values.items() if name in known and value is not None}
        if family == "bert":  # which tokens they are, its tokenizer knows
            taken |= {name: values[name] for name in ("bos_token_id", "eos_token_id")}
        try:
            return cls(
                **taken, id2label={int(index): label for index, label in (values.get("id2label") or {}).items()}
            )
        except TypeError as error:
            raise BadInput(f"{folder}/config.json is not complete ({error}).", "Export the model again.") from None

    def parameters(self) -> int:
        """Weights of the masked-language model (tied embedding counted once, vocabulary not padded)."""
        d, f = self.hidden_size, self.intermediate_size
        layer = 4 * (d * d + d) + 2 * d * f + d + f + 4 * d
        embeddings = (self.vocab_size + self.max_position_embeddings + self.type_vocab_size) * d + 2 * d
        head = d * d + d + 2 * d + self.vocab_size
        return embeddings + self.num_hidden_layers * layer + head

    def train_flops_per_token(self, length: int, mask_prob: float) -> float:
        """Floating-point operations of forward and backward for one token of a row of `length` tokens.

        A matrix product of [m, k] and [k, n] counts 2·m·k·n, the backward pass twice the forward. Per token and layer:
        2·(4·d² + 2·d·f) for the weights and 4·length·d for scores and their sum over values. The head, d² + d·V, is
        paid on the share `mask_prob` of tokens alone. Embedding look-ups, norms and activations are not counted.
        For roberta-base at length 512 and 15 %: 601 million.
        """
        d, f = self.hidden_size, self.intermediate_size
        layer = 2 * (4 * d * d + 2 * d * f) + 4 * length * d
        head = 2 * mask_prob * (d * d + d * self.vocab_size)
        return 3.0 * (self.num_hidden_layers * layer + head)
