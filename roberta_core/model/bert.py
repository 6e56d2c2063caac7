"""BERT encoders read as RoBERTas: the same network under other names, with three differences that weights can carry.

BERT (Devlin et al. 2019) and RoBERTa share every layer. What differs, and how it is carried over:

- Positions: BERT counts from 0, RoBERTa from `pad_token_id + 1`. The table of positions gets that many rows in front; no
  token ever has them.
- Token types: BERT adds one of two vectors, for the first and the second text of a pair. RoBERTa has the same table with one
  row. `type_vocab_size` 2 says that types count, and the tokenizer gives them.
- The pooler (dense, tanh on `[CLS]`), which BERT trained on sentence pairs, is the first half of RoBERTa's classification
  head. It is kept as `roberta.pooler.dense`, and a fresh classifier starts from it.

So one model class serves both, in fine-tuning and after. Logits equal those of `BertForMaskedLM` and
`BertForSequenceClassification`; in training the classifier has one dropout more, before the pooler. The price: padding
must stand at the end of a row, where RoBERTa's rule of counting and BERT's agree.
"""

from collections.abc import Mapping

import torch

from roberta_core.errors import BadInput

PAD_TOKEN_ID = 0
"""BERT's, where a config.json does not say."""

_RENAMED = (
    ("bert.", "roberta."),
    ("cls.predictions.transform.LayerNorm.", "lm_head.layer_norm."),
    ("cls.predictions.transform.dense.", "lm_head.dense."),
    ("cls.predictions.decoder.", "lm_head.decoder."),
    ("cls.predictions.bias", "lm_head.bias"),
    ("classifier.", "classifier.out_proj."),
)
_POSITIONS = "roberta.embeddings.position_embeddings.weight"


def config_as_roberta(values: Mapping) -> dict:
    """A BERT's `config.json` as that of the RoBERTa with the same logits."""
    pad = values.get("pad_token_id")
    pad = PAD_TOKEN_ID if pad is None else pad
    # BERT's config.json may leave out its defaults; these two differ from RoBERTa's
    defaults = {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "max_position_embeddings": 512}
    result = defaults | {key: value for key, value in values.items() if value is not None}
    result["max_position_embeddings"] += pad + 1
    ends = {"bos_token_id": values.get("bos_token_id"), "eos_token_id": values.get("eos_token_id")}
    return result | ends | {"model_type": "roberta", "pad_token_id": pad}


def weights_as_roberta(
    weights: Mapping[str, torch.Tensor], pad_token_id: int, folder: object
) -> dict[str, torch.Tensor]:
    """A BERT's weights under RoBERTa's names.

    Args:
        weights: as `BertForMaskedLM`, `BertForPreTraining`, `BertForSequenceClassification` or `BertModel` save them; gamma and
            beta of the first TensorFlow conversions are understood.
        pad_token_id: so many rows and one more come before the first position.
        folder: named in the error.

    Raises:
        BadInput: there are no position embeddings.
    """
    result = {}
    for name, tensor in weights.items():
        name = name.removesuffix(".gamma") + ".weight" if name.endswith(".gamma") else name
        name = name.removesuffix(".beta") + ".bias" if name.endswith(".beta") else name
        if name.startswith(("embeddings.", "encoder.", "pooler.")):  # BertModel alone has no prefix
            name = f"bert.{name}"
        old, new = next((pair for pair in _RENAMED if name.startswith(pair[0])), ("", ""))
        result[new + name.removeprefix(old)] = tensor
    if _POSITIONS not in result:
        raise BadInput(f"{folder} has no position embeddings.", "It is no BERT model; give another folder.")
    positions = result[_POSITIONS]
    result[_POSITIONS] = torch.cat((positions.new_zeros(pad_token_id + 1, positions.shape[1]), positions))
    return result
