"""The model: configuration and named sizes, encoder, heads, and Hugging Face folders in and out."""

from roberta_core.model.config import SIZES, RobertaConfig
from roberta_core.model.heads import RobertaForMaskedLM, RobertaForSequenceClassification

__all__ = ["SIZES", "RobertaConfig", "RobertaForMaskedLM", "RobertaForSequenceClassification"]
