"""The model: configuration and named sizes, encoder, heads, and Hugging Face folders in and out."""

from roberta_core.model.config import SIZES, RobertaConfig
from roberta_core.model.heads import RobertaForMaskedLM, RobertaForSequenceClassification
from roberta_core.model.token_heads import RobertaForQuestionAnswering, RobertaForTokenClassification

__all__ = [
    "SIZES",
    "RobertaConfig",
    "RobertaForMaskedLM",
    "RobertaForQuestionAnswering",
    "RobertaForSequenceClassification",
    "RobertaForTokenClassification",
]
