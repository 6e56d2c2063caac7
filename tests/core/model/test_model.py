"""Logits equal transformers' on the same weights, both ways, with padding in the batch."""

import json

import pytest
import torch

from roberta_core.errors import BadInput
from roberta_core.model import RobertaConfig, RobertaForMaskedLM, RobertaForSequenceClassification
from roberta_core.model.folder import is_pickle

transformers = pytest.importorskip("transformers")

VOCAB, LENGTH, TOLERANCE = 301, 24, 1e-5


def config() -> RobertaConfig:
    return RobertaConfig.named("tiny", VOCAB, LENGTH, dropout=0.1)


def padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """[4, LENGTH] ids with right padding of several widths, and their mask."""
    ids = torch.randint(4, VOCAB, (4, LENGTH), generator=torch.Generator().manual_seed(3))
    ids[:, 0] = 0
    for row, width in enumerate((0, 1, 7, 20)):
        ids[row, LENGTH - width :] = 1
    return ids, ids.ne(1)


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Also biases and norms away from 0 and 1, so that a weight that is not loaded shows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.empty(weight.shape).normal_(0, 0.1, generator=generator))
    return model.eval()


def expect_same_where_real(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor) -> None:
    torch.testing.assert_close(ours[mask], theirs[mask], atol=TOLERANCE, rtol=0)


def test_masked_lm_in_transformers(tmp_path):
    model = randomised(RobertaForMaskedLM(config(), seed=1))
    model.save_pretrained(tmp_path)
    theirs, report = transformers.RobertaForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids, mask = padded_batch()
    with torch.no_grad():
        expect_same_where_real(model(ids, mask), theirs.eval()(ids, attention_mask=mask.long()).logits, mask)


def test_masked_lm_from_transformers(tmp_path):
    theirs = randomised(
        transformers.RobertaForMaskedLM(
            transformers.RobertaConfig(
                **{k: v for k, v in config().to_hugging_face("x").items() if k not in ("architectures", "torch_dtype")}
            )
        )
    )
    theirs.save_pretrained(tmp_path)
    ours = RobertaForMaskedLM.from_pretrained(tmp_path)
    ids, mask = padded_batch()
    with torch.no_grad():
        expect_same_where_real(ours(ids, mask), theirs(ids, attention_mask=mask.long()).logits, mask)


def test_sharded_folder_of_transformers(tmp_path):
    theirs = randomised(
        transformers.RobertaForMaskedLM(
            transformers.RobertaConfig(
                vocab_size=VOCAB,
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=128,
                max_position_embeddings=LENGTH + 2,
                layer_norm_eps=1e-5,
                type_vocab_size=1,
                pad_token_id=1,
            )
        )
    )
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ids, mask = padded_batch()
    with torch.no_grad():
        expect_same_where_real(
            RobertaForMaskedLM.from_pretrained(tmp_path)(ids, mask),
            theirs(ids, attention_mask=mask.long()).logits,
            mask,
        )


@pytest.mark.parametrize(("labels", "problem"), [(3, "single_label_classification"), (1, "regression")])
def test_classifier_both_ways(tmp_path, labels, problem):
    RobertaForMaskedLM(config(), seed=1).save_pretrained(tmp_path / "encoder")
    ours = randomised(
        RobertaForSequenceClassification.from_pretrained(
            tmp_path / "encoder", num_labels=labels, problem_type=problem, seed=2
        )
    )
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.RobertaForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert theirs.config.num_labels == labels and theirs.config.problem_type == problem
    theirs.save_pretrained(tmp_path / "theirs")
    back = RobertaForSequenceClassification.from_pretrained(tmp_path / "theirs")
    ids, mask = padded_batch()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long()).logits
        torch.testing.assert_close(ours(ids, mask), expected, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(back(ids, mask), expected, atol=TOLERANCE, rtol=0)


def test_fresh_head_keeps_the_encoder_and_depends_on_the_seed(tmp_path):
    RobertaForMaskedLM(config(), seed=1).save_pretrained(tmp_path)
    first, second = (
        RobertaForSequenceClassification.from_pretrained(tmp_path, num_labels=2, seed=seed) for seed in (1, 2)
    )
    assert torch.equal(
        first.roberta.encoder.layer[0].output.dense.weight, second.roberta.encoder.layer[0].output.dense.weight
    )
    assert not torch.equal(first.classifier.dense.weight, second.classifier.dense.weight)


def test_unpadded_path_and_masked_positions_agree_with_the_full_one():
    model = randomised(RobertaForMaskedLM(config(), seed=1))
    ids = padded_batch()[0][:1].repeat(2, 1)
    positions = torch.tensor([3, 17, LENGTH + 5])
    with torch.no_grad():
        full = model(ids, torch.ones_like(ids))
        torch.testing.assert_close(model(ids), full, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(
            model(ids, positions=positions), full.flatten(0, 1)[positions], atol=TOLERANCE, rtol=0
        )


def test_padded_vocabulary_never_shows(tmp_path):
    model = RobertaForMaskedLM(config(), seed=1)
    assert model.roberta.embeddings.word_embeddings.weight.shape[0] == 320 > VOCAB
    assert model(padded_batch()[0]).shape[-1] == VOCAB
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file

    assert load_file(tmp_path / "model.safetensors")["roberta.embeddings.word_embeddings.weight"].shape[0] == VOCAB


def test_sizes_have_the_published_parameter_counts():
    count = lambda size: RobertaConfig.named(size, 50265, 512, 0.1).parameters()  # noqa: E731
    assert count("base") == 124_697_433  # the parameters of transformers' RobertaForMaskedLM for roberta-base
    assert count("large") == 355_412_057
    model = RobertaForMaskedLM(config())
    assert config().parameters() == sum(w.numel() for w in model.parameters()) - (320 - VOCAB) * 128


def test_flop_formula_gives_the_stated_anchor():
    flops = RobertaConfig.named("base", 50265, 512, 0.1).train_flops_per_token(512, 0.15)
    assert flops == pytest.approx(601e6, rel=0.002)  # derived by hand from the same products


def test_bad_folders_get_one_clear_line(tmp_path):
    with pytest.raises(BadInput, match=r"no config\.json"):
        RobertaForMaskedLM.from_pretrained(tmp_path / "none")
    good = tmp_path / "good"
    RobertaForMaskedLM(config()).save_pretrained(good)
    weights = good / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="damaged"):
        RobertaForMaskedLM.from_pretrained(good)
    weights.rename(good / "pytorch_model.bin")
    with pytest.raises(BadInput, match="pickle"):
        RobertaForMaskedLM.from_pretrained(good)
    (good / "config.json").write_text(json.dumps({"model_type": "deberta"}))
    with pytest.raises(BadInput, match="deberta"):
        RobertaForMaskedLM.from_pretrained(good)


def test_another_models_weights_are_refused(tmp_path):
    RobertaForMaskedLM(config()).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"vocab_size": VOCAB + 1}))
    with pytest.raises(BadInput, match="shape"):
        RobertaForMaskedLM.from_pretrained(tmp_path)


class Mark:
    """Unpickling it makes a file."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return exec, (f"open({self.file!r}, 'w')",)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_under_the_name_of_safetensors_is_refused_and_never_run(tmp_path, zipped):
    RobertaForMaskedLM(config()).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    torch.save({"x": Mark(tmp_path / "ran")}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadInput, match=r"is a pickle under another name.*was not opened"):
        RobertaForMaskedLM.from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.load(file.rename(tmp_path / "model.pt"), weights_only=False)
    assert (tmp_path / "ran").exists(), "the pickle is one that runs"


@pytest.mark.parametrize("length", [0x280, 0x10280, 0x5F5E080])
def test_no_length_of_a_header_looks_like_a_pickle(tmp_path, length):
    """The length of 640 bytes begins with 0x80 0x02, as a pickle of protocol 2 does."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + b'{"')
    assert not is_pickle(file)


@pytest.mark.parametrize("place", [0, 3, 8, 9, 60, 200])
def test_a_flipped_bit_in_the_header_is_one_line(tmp_path, place):
    RobertaForMaskedLM(config()).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[place] ^= 0x10
    file.write_bytes(raw)
    with pytest.raises(BadInput) as caught:
        RobertaForMaskedLM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model = RobertaForMaskedLM(config())
    with torch.no_grad():
        model.lm_head.bias[7] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"lm_head.bias holds values that are no numbers"):
        RobertaForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "index, words",
    [
        ('{"weight_map": {"a": "../../secret.safetensors"}}', "names .*secret"),
        ('{"weight_map": {"a": "model-1.safetensors"}}', r"model-1\.safetensors is missing"),
        ('{"weight_map": {}}', "names no files"),
        ('{"weight_map": ["a"]}', "is damaged"),
        ("{", "is damaged"),
    ],
)
def test_an_index_of_shards_that_cannot_be_used(tmp_path, index, words):
    RobertaForMaskedLM(config()).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BadInput, match=words):
        RobertaForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"vocab_size": None}, "not complete"),
        ({"model_type": "gpt2"}, "holds a gpt2 model"),
        ({"is_decoder": True}, "holds a decoder"),
        ({"position_embedding_type": "relative_key"}, "relative_key positions"),
        ({"hidden_act": "relu"}, "activation is relu"),
    ],
)
def test_a_configuration_of_another_kind_is_one_line(tmp_path, changed, words):
    RobertaForMaskedLM(config()).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | changed))
    with pytest.raises(BadInput, match=words):
        RobertaForMaskedLM.from_pretrained(tmp_path)


def test_an_output_matrix_of_its_own_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    RobertaForMaskedLM(config()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.decoder.weight"] = weights["roberta.embeddings.word_embeddings.weight"] + 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match="tie_word_embeddings is off"):
        RobertaForMaskedLM.from_pretrained(tmp_path)
