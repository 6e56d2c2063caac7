"""Heads on every token, and several labels a text: transformers' classes give equal logits on each folder, both ways."""

import json
from dataclasses import replace

import pytest
import torch

from roberta_core.errors import BadInput
from roberta_core.model import (
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
)
from tests.core.model.test_model import LENGTH, TOLERANCE, VOCAB, expect_same_where_real, padded_batch, randomised

transformers = pytest.importorskip("transformers")

TAGS = {0: "O", 1: "B-person", 2: "I-person"}


def config() -> RobertaConfig:
    return RobertaConfig.named("tiny", VOCAB, LENGTH, dropout=0.1)


def their_logits(output) -> torch.Tensor:
    """The one tensor, or start and end side by side."""
    if hasattr(output, "start_logits"):
        return torch.stack((output.start_logits, output.end_logits), -1)
    return output.logits


def made(name: str):
    if name == "tokens":
        return RobertaForTokenClassification(replace(config(), id2label=TAGS), seed=1)
    if name == "questions":
        return RobertaForQuestionAnswering(config(), seed=1)
    several = replace(config(), id2label=TAGS, problem_type="multi_label_classification")
    return RobertaForSequenceClassification(several, seed=1)


@pytest.mark.parametrize("name", ["tokens", "questions", "several"])
def test_saved_folders_load_in_transformers_with_equal_logits(tmp_path, name):
    model = randomised(made(name))
    model.save_pretrained(tmp_path)
    auto = {
        "tokens": transformers.AutoModelForTokenClassification,
        "questions": transformers.AutoModelForQuestionAnswering,
        "several": transformers.AutoModelForSequenceClassification,
    }[name]
    theirs, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert type(theirs).__name__ == model.architecture
    ids, mask = padded_batch()
    with torch.no_grad():
        ours, others = model(ids, mask), their_logits(theirs.eval()(ids, attention_mask=mask.long()))
    if name == "several":
        torch.testing.assert_close(ours, others, atol=TOLERANCE, rtol=0)
        assert theirs.config.problem_type == "multi_label_classification"
    else:
        expect_same_where_real(ours, others, mask)
    if name != "questions":
        assert theirs.config.id2label == TAGS
    again = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(ids, mask), ours, atol=0, rtol=0)


@pytest.mark.parametrize("family", ["Roberta", "Bert"])
@pytest.mark.parametrize("kind", ["TokenClassification", "QuestionAnswering"])
def test_folders_of_transformers_load_here(tmp_path, family, kind):
    settings = {
        "vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 128, "max_position_embeddings": LENGTH + 2,
    }  # fmt: skip
    if family == "Roberta":
        settings |= {"type_vocab_size": 1, "pad_token_id": 1}
    if kind == "TokenClassification":
        settings |= {"id2label": TAGS}
    theirs = getattr(transformers, f"{family}For{kind}")(getattr(transformers, f"{family}Config")(**settings))
    randomised(theirs).save_pretrained(tmp_path)
    ours = {"TokenClassification": RobertaForTokenClassification, "QuestionAnswering": RobertaForQuestionAnswering}
    model = ours[kind].from_pretrained(tmp_path)
    ids, mask = padded_batch()
    if family == "Bert":
        ids = torch.where(mask, ids.clamp(min=2), 0)  # pads with 0
    types = (torch.arange(LENGTH) > 9).long().expand_as(ids) if family == "Bert" else None
    more = {} if types is None else {"token_type_ids": types}
    with torch.no_grad():
        others = their_logits(theirs(ids, attention_mask=mask.long(), **more))
        expect_same_where_real(model(ids, mask, types), others, mask)
    # what was a BERT is a RoBERTa once it is saved
    model.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        again = ours[kind].from_pretrained(tmp_path / "again")
        torch.testing.assert_close(again(ids, mask, types), model(ids, mask, types), atol=0, rtol=0)


def test_fresh_heads_are_drawn_from_the_seed(tmp_path):
    RobertaForMaskedLM(config(), seed=3).save_pretrained(tmp_path / "encoder")
    one, same, other = (
        RobertaForTokenClassification.from_pretrained(tmp_path / "encoder", id2label=TAGS, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.classifier.weight, same.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert torch.equal(
        one.roberta.encoder.layer[1].output.dense.weight, other.roberta.encoder.layer[1].output.dense.weight
    )
    one.save_pretrained(tmp_path / "tagger")
    # another task's head is no part of a fresh start
    again = RobertaForTokenClassification.from_pretrained(tmp_path / "tagger", id2label={0: "A", 1: "B"}, seed=1)
    assert again.classifier.weight.shape[0] == 2 and again.config.id2label == {0: "A", 1: "B"}
    answers = RobertaForQuestionAnswering.from_pretrained(tmp_path / "tagger", fresh=True, dropout=0.3)
    assert answers.config.hidden_dropout_prob == 0.3 and answers.config.id2label == {}
    answers.save_pretrained(tmp_path / "answers")
    assert "id2label" not in json.loads((tmp_path / "answers/config.json").read_text())


@pytest.mark.parametrize("of", [RobertaForTokenClassification, RobertaForQuestionAnswering])
def test_a_folder_without_the_head_is_refused(tmp_path, of):
    RobertaForMaskedLM(config()).save_pretrained(tmp_path / "encoder")
    RobertaForSequenceClassification(replace(config(), id2label=TAGS)).save_pretrained(tmp_path / "classifier")
    for folder in ("encoder", "classifier"):
        with pytest.raises(BadInput, match=r"holds no token classifier|answers no questions"):
            of.from_pretrained(tmp_path / folder)
