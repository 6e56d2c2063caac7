"""A randomly drawn encoder of 0.2 M weights with a tokenizer of whole words, as the pretrain stage would leave it."""

from pathlib import Path

from roberta_core.data.tokenizer import save_tokenizer, train_tokenizer
from roberta_core.model import RobertaConfig, RobertaForMaskedLM

WORDS = "parser river module engine teacher garden socket window number letter market branch".split()  # noqa: SIM905


def write_encoder(folder: Path, text: str = "") -> Path:
    """Writes config.json, model.safetensors and the tokenizer into `folder`, for rows of up to 64 tokens. Returns it."""
    corpus = [text or " ".join([*WORDS, "good bad It is not true that The often never"])] * 20
    tokenizer = train_tokenizer(corpus, 340, 2)
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=66,
    )
    RobertaForMaskedLM(config, seed=0).save_pretrained(folder)
    save_tokenizer(tokenizer, folder, 64)
    return folder
