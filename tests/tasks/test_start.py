"""Continued pretraining: the run begins with the given weights, says which they were, and takes no other tokenizer's data."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from roberta_core.atomic import digest_of, write_json
from roberta_core.data.packing import write_packed
from roberta_core.data.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from roberta_core.errors import BadInput, BadParams
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from tasks import pretrain, start
from tasks.params_file import load_params

from .tiny_models import REPO, tiny_encoder

SMOKE = yaml.safe_load((REPO / "presets/smoke.yaml").read_text(encoding="utf8"))
CHANGED = {"max_steps": 4, "batch_size": 4, "eval_every": 4, "eval_rows": 8, "precision": "fp32", "log_every": 1}


def write_params(**changed: object) -> None:
    values = copy.deepcopy(SMOKE)
    values["pretrain"] |= CHANGED | changed
    values["runtime"] |= {"device": "cpu", "threads": 1}
    Path("params.yaml").write_text(yaml.safe_dump(values))


def write_data(tokenizer: Path, mode: str = "full-sentences") -> None:
    """Packed rows of 32 tokens, made with the tokenizer in a folder."""
    save_tokenizer(load_tokenizer(tokenizer, plain_text=False), Path("models/tokenizer"))
    encode = load_tokenizer(tokenizer).encode
    docs = [encode("the cat sat on the mat", add_special_tokens=False).ids * 4] * 20
    for split in ("train", "validation"):
        folder = Path("data/packed") / split
        folder.mkdir(parents=True, exist_ok=True)
        rows = iter([[np.array(doc, np.uint16) for doc in docs]])
        write_packed(rows, folder / "part-00000.arrow", mode, 32, 280)
        sha = digest_of(Path("models/tokenizer/tokenizer.json"))
        write_json(folder / "manifest.json", {"tokenizer_sha256": sha, "mode": mode})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(pretrain, "open_run", quiet_run)
    tiny_encoder(tmp_path / "given", seed=9)
    write_data(tmp_path / "given")
    return tmp_path


class quiet_run:
    """No tracker: it is not what is tested here."""

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __enter__(self) -> "quiet_run":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def log(self, *args: object, **kwargs: object) -> None:
        pass

    finish = log


def job():
    return pretrain.Job(load_params())


def test_the_run_begins_with_the_given_weights_and_records_them(here):
    write_params(init="given", init_path="given")
    begun = job()
    given = RobertaForMaskedLM.from_pretrained(here / "given")
    for (name, one), other in zip(begun.model.state_dict().items(), given.state_dict().values()):
        assert torch.equal(one, other), name
    assert not begun.config.recipe.neighbours and not begun.config.recipe.word_vectors
    assert begun.model.config.hidden_dropout_prob == begun.config.recipe.dropout
    write_params()
    fresh = job()
    assert fresh.start is None and fresh.config.recipe.neighbours and fresh.fingerprint != begun.fingerprint


def test_a_whole_continued_run(here):
    write_params(init="given", init_path="given")
    pretrain.run(load_params())
    told = json.loads(Path("models/encoder/training.json").read_text())
    assert told["init"] == told["init_resolved"] == "given" and len(told["init_sha256"]) == 16
    assert "init_path" not in told
    trained = RobertaForMaskedLM.from_pretrained("models/encoder")
    assert trained.config.max_length == 48, "the shape is the given model's"


def test_without_init_nothing_of_it_is_written(here):
    write_params()
    pretrain.run(load_params())
    assert not [key for key in json.loads(Path("models/encoder/training.json").read_text()) if key.startswith("init")]
    assert not start.PINNED.exists()


def test_best_fit_rows_are_trained_document_by_document(here):
    write_data(here / "given", "best-fit")
    write_params()
    assert job().rows.isolated
    metrics = pretrain.run(load_params())
    assert metrics["steps"] == 4 and np.isfinite(metrics["loss"])


def test_other_weights_are_another_run(here):
    write_params(init="given", init_path="given")
    before = job().fingerprint
    tiny_encoder(here / "given", seed=10)
    assert job().fingerprint != before


def test_a_tokenizer_that_does_not_fit_is_refused(here):
    other = train_tokenizer(["a quick brown fox jumps over the lazy dog again and again"] * 50, 280, 2)
    save_tokenizer(other, here / "given")
    write_params(init="given", init_path="given")
    with pytest.raises(BadInput, match=r"trained with another tokenizer .* Set tokenizer.init to .*given"):
        job()
    (here / "given/tokenizer.json").unlink()
    with pytest.raises(BadInput, match="has no tokenizer"):
        job()


def test_a_folder_that_dvc_does_not_watch_is_refused(here):
    write_params(init="given")
    with pytest.raises(BadParams, match=r"DVC watches tasks/start.py.*Set pretrain.init_path to given"):
        job()
    write_params(init="nowhere/at/all", init_path="nowhere/at/all")
    with pytest.raises(BadInput, match=r"no config\.json"):
        job()


def test_rows_of_the_embedding_that_no_token_has_are_left_out(here):
    tokenizer = load_tokenizer(here / "given", plain_text=False)
    wide = RobertaForMaskedLM(RobertaConfig.named("tiny", 320, 48, 0.0), 3)
    wide.save_pretrained(here / "given")
    write_params(init="given", init_path="given")
    begun = job()
    assert begun.model.config.vocab_size == tokenizer.get_vocab_size() == 280
    words = begun.model.roberta.embeddings.word_embeddings.weight[:280]
    assert torch.equal(words, wide.roberta.embeddings.word_embeddings.weight[:280])
    RobertaForMaskedLM(RobertaConfig.named("tiny", 270, 48, 0.0), 3).save_pretrained(here / "given")
    with pytest.raises(BadInput, match="the tokenizer has 280 tokens, the model has vectors for 270"):
        job()


def test_rows_longer_than_the_model_are_refused(here):
    model = RobertaForMaskedLM(RobertaConfig.named("tiny", 280, 20, 0.0), 3)
    model.save_pretrained(here / "given")
    write_params(init="given", init_path="given")
    with pytest.raises(BadParams, match="rows have 32 tokens, the model has positions for 20"):
        job().training()


def test_an_alias_that_moves_does_not_change_a_run_that_goes_on(here):
    from tasks.registry import open_store, register_all

    tiny_encoder(here / "models/encoder", seed=1)
    (here / "dvc.yaml").write_text("stages: {}\n")
    write_params(init="models:/roberta-encoder@challenger")
    params = load_params()
    register_all(params, here)
    first = job()
    assert first.start.resolved == "models:/roberta-encoder/1"
    tiny_encoder(here / "models/encoder", seed=2)
    register_all(params, here)
    client = open_store(here)
    assert client.get_model_version_by_alias("roberta-encoder", "challenger").version in (2, "2")
    assert job().fingerprint == first.fingerprint, "killed and run again: the same weights"
    write_params(init="models:/roberta-encoder@challenger", max_steps=5)
    assert job().start.resolved == "models:/roberta-encoder/2", "another run asks anew"
