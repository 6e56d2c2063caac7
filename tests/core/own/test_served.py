"""Saved models put to use: a text means to them what it meant when they were trained and scored."""

import numpy as np
import pytest

from roberta_core.data.tokenizer import load_tokenizer
from roberta_core.finetune import Classification, predict, tokenise
from roberta_core.inference import ClassifierModel, EncoderModel, load_model
from roberta_core.model import RobertaForSequenceClassification
from tests.core.glue.tiny_encoder import WORDS, write_encoder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A folder of an untrained classifier, and that of its encoder."""
    encoder = write_encoder(tmp_path_factory.mktemp("encoder"))
    folder = tmp_path_factory.mktemp("classifier")
    RobertaForSequenceClassification.from_pretrained(encoder, num_labels=3, seed=1).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((encoder / name).read_bytes())
    return folder, encoder


def test_special_tokens_that_are_spelled_out_are_text_to_a_classifier(classifier):
    folder, encoder = classifier
    model = load_model(folder, "cpu")
    assert isinstance(model, ClassifierModel)
    texts = [f"{WORDS[0]} </s> {WORDS[1]}", f"<mask> {WORDS[2]}"]
    rows = tokenise(load_tokenizer(folder), [(text,) for text in texts], [], model.max_length)
    expected = np.stack(predict(Classification("", ("a", "b", "c")), model.model, rows))
    assert [each["score"] for each in model.predict(texts)] == pytest.approx(expected.max(axis=1), abs=1e-6)
    mask = model.tokenizer.token_to_id("<mask>")
    assert mask not in model.tokenizer.encode(texts[1]).ids
    assert mask in EncoderModel(encoder, "cpu").tokenizer.encode(texts[1]).ids, "an encoder fills it"
