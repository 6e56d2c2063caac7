"""Models from elsewhere give the logits that transformers gives on the same weights."""

import argparse
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from roberta_core.errors import BadInput
from roberta_core.exchange.importing import import_model
from roberta_core.inference import load_model
from roberta_core.model import RobertaForMaskedLM, RobertaForSequenceClassification
from tests.core.model.test_model import randomised

transformers = pytest.importorskip("transformers")

VOCAB, TOLERANCE = 97, 1e-5
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
# roberta-base's configuration, scaled down in width and depth alone
ROBERTA = SHAPE | {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "dog", "ran", "a", "b", "c"]


def ids_of(lengths: tuple[int, ...], pad: int, longest: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, VOCAB, (len(lengths), longest), generator=torch.Generator().manual_seed(3))
    for row, length in enumerate(lengths):
        ids[row, length:] = pad
    return ids, torch.arange(longest)[None] < torch.tensor(lengths)[:, None]


def expect_same(ours: torch.Tensor, theirs: torch.Tensor, real: torch.Tensor) -> None:
    torch.testing.assert_close(ours[real], theirs[real], atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def roberta():
    return randomised(transformers.RobertaForMaskedLM(transformers.RobertaConfig(**ROBERTA)))


@pytest.fixture(scope="module")
def bert():
    return randomised(transformers.BertForPreTraining(transformers.BertConfig(**SHAPE, max_position_embeddings=64)))


def write_bert(model, folder: Path, size: int = VOCAB) -> Path:
    """A BERT folder as the hub has them: vocab.txt, and a configuration that says it is uncased."""
    model.save_pretrained(folder)
    words = BERT_WORDS + [f"word{number}" for number in range(size - len(BERT_WORDS))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return folder


def test_a_folder_of_robertas_layout_whole_and_in_shards(roberta, tmp_path):
    roberta.save_pretrained(tmp_path / "whole")
    roberta.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert (tmp_path / "shards/model.safetensors.index.json").exists()
    ids, real = ids_of((20, 13, 2), pad=1)
    for kind in ("whole", "shards"):
        told = import_model(str(tmp_path / kind), tmp_path / f"{kind}-in")
        assert told.family == "roberta" and not told.has_tokenizer and "no tokenizer" in told.notes[0]
        assert told.config.max_length == 512
        with torch.no_grad():
            theirs = roberta(ids, attention_mask=real.long()).logits
            expect_same(RobertaForMaskedLM.from_pretrained(tmp_path / f"{kind}-in")(ids, real), theirs, real)
            back = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / f"{kind}-in").eval()
            expect_same(back(ids, attention_mask=real.long()).logits, theirs, real)
    whole, shards = ((tmp_path / f"{kind}-in/model.safetensors").read_bytes() for kind in ("whole", "shards"))
    assert whole == shards


def test_vocab_and_merges_become_the_tokenizer_that_transformers_makes(roberta, tmp_path):
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    corpus = ["the cat sat on the mat, the dog ran", "héllo wörld \u4f60\u597d"] * 3
    bpe.train_from_iterator(corpus, 300, 1, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    model = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**ROBERTA | {"vocab_size": 300}))
    model.save_pretrained(tmp_path / "old")
    bpe.save_model(str(tmp_path / "old"))
    (tmp_path / "old/tokenizer_config.json").write_text("{}")
    import_model(str(tmp_path / "old"), tmp_path / "new")
    theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path / "old")
    ours, again = load_model(tmp_path / "new").tokenizer, transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
    for text in (*corpus, "  two  spaces", "Ünïcode \U0001f600"):
        assert ours.encode(text).ids == theirs(text).input_ids == again(text).input_ids
    assert ours.encode("a", "b").ids == theirs("a", "b").input_ids
    # as in the tokenizer.json of roberta-base, the mask takes the space before it
    mask = ours.token_to_id("<mask>")
    assert ours.encode("the <mask> sat").ids == again("the <mask> sat").input_ids
    assert ours.encode("the <mask> sat").ids[1:3] == [*ours.encode("the").ids[1:-1], mask]


def test_a_bert_is_a_roberta_with_the_same_logits(bert, tmp_path):
    write_bert(bert, tmp_path / "bert")
    told = import_model(str(tmp_path / "bert"), tmp_path / "in")
    assert told.family == "bert" and told.config.max_length == 64 and told.has_tokenizer
    ids, real = ids_of((20, 13, 2), pad=0)
    types = (torch.arange(20)[None] >= torch.tensor([7, 5, 1])[:, None]).long()
    auto = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "in").eval()
    with torch.no_grad():
        theirs = bert(ids, attention_mask=real.long(), token_type_ids=types)
        for folder in ("bert", "in"):  # read as it is, and imported
            ours = RobertaForMaskedLM.from_pretrained(tmp_path / folder)
            expect_same(ours(ids, real, token_types=types), theirs.prediction_logits, real)
        expect_same(auto(ids, attention_mask=real.long(), token_type_ids=types).logits, theirs.prediction_logits, real)
        # without token types: the first text's
        plain = bert(ids, attention_mask=real.long()).prediction_logits
        expect_same(ours(ids, real), plain, real)
        assert (plain - theirs.prediction_logits)[real].abs().max() > 1e-3


def test_berts_tokenizer_gives_the_ids_types_and_pairs_of_transformers(bert, tmp_path):
    write_bert(bert, tmp_path / "bert")
    import_model(str(tmp_path / "bert"), tmp_path / "in")
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path / "bert")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "in")
    ours = load_model(tmp_path / "in").tokenizer
    for texts in (("The cats SAT",), ("a dóg ran", "The cat"), ("the [MASK] ran unknownword",)):
        wanted = theirs(*texts)
        for got in (again(*texts), theirs(*texts)):
            assert got.input_ids == wanted.input_ids and got.token_type_ids == wanted.token_type_ids
        mine = ours.encode(*texts)
        assert mine.ids == wanted.input_ids and mine.type_ids == wanted.token_type_ids
    assert 1 in ours.encode("a", "b").type_ids
    filled = load_model(tmp_path / "in").fill("the [MASK] ran", top=3)
    assert len(filled) == 1 and len(filled[0]) == 3
    with pytest.raises(BadInput, match=r"no \[MASK\]"):
        load_model(tmp_path / "in").fill("the <mask> ran")


def test_a_berts_classifier_both_ways(tmp_path):
    theirs = randomised(
        transformers.BertForSequenceClassification(
            transformers.BertConfig(**SHAPE, max_position_embeddings=64, num_labels=3)
        )
    )
    write_bert(theirs, tmp_path / "bert")
    import_model(str(tmp_path / "bert"), tmp_path / "in")
    ids, real = ids_of((20, 13, 2), pad=0)
    types = (torch.arange(20)[None] >= torch.tensor([7, 5, 1])[:, None]).long()
    auto = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "in").eval()
    with torch.no_grad():
        wanted = theirs(ids, attention_mask=real.long(), token_type_ids=types).logits
        for ours in (tmp_path / "bert", tmp_path / "in"):
            if ours.name == "in":
                got = RobertaForSequenceClassification.from_pretrained(ours)(ids, real, types)
                torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=0)
        got = auto(ids, attention_mask=real.long(), token_type_ids=types).logits
        torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=0)


def test_a_berts_pooler_begins_the_fresh_head_and_a_robertas_does_not(bert, roberta, tmp_path):
    import_model(str(write_bert(bert, tmp_path / "bert")), tmp_path / "in")
    for folder in ("bert", "in"):
        fresh = RobertaForSequenceClassification.from_pretrained(tmp_path / folder, num_labels=2)
        assert torch.equal(fresh.classifier.dense.weight, bert.bert.pooler.dense.weight)
    transformers.RobertaModel(transformers.RobertaConfig(**ROBERTA)).save_pretrained(tmp_path / "roberta")
    one, other = (
        RobertaForSequenceClassification.from_pretrained(tmp_path / "roberta", num_labels=2, seed=seed)
        for seed in (1, 2)
    )
    assert not torch.equal(one.classifier.dense.weight, other.classifier.dense.weight)


def test_old_names_of_layer_norms(bert, tmp_path):
    """bert-base-uncased on the hub still has gamma and beta."""
    from safetensors.torch import load_file, save_file

    write_bert(bert, tmp_path)
    file = tmp_path / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): each
        for name, each in load_file(file).items()
    }
    assert any(name.endswith("gamma") for name in old)
    save_file(old, file)
    ids, real = ids_of((20, 2), pad=0)
    with torch.no_grad():
        wanted = bert(ids, attention_mask=real.long()).prediction_logits
        expect_same(RobertaForMaskedLM.from_pretrained(tmp_path)(ids, real), wanted, real)


# fairseq


def as_fairseq(model, prefix: str, joined: bool) -> dict[str, torch.Tensor]:
    """The state that fairseq would have for a transformers model: the assignments of their conversion script, the other way."""
    state, layers = {}, f"{prefix}.sentence_encoder.layers"
    embeddings = model.roberta.embeddings
    state[f"{prefix}.sentence_encoder.embed_tokens.weight"] = embeddings.word_embeddings.weight
    state[f"{prefix}.sentence_encoder.embed_positions.weight"] = embeddings.position_embeddings.weight
    norm = "emb_layer_norm" if joined else "layernorm_embedding"
    both = lambda name, module: {f"{name}.weight": module.weight, f"{name}.bias": module.bias}  # noqa: E731
    state |= both(f"{prefix}.sentence_encoder.{norm}", embeddings.LayerNorm)
    for number, layer in enumerate(model.roberta.encoder.layer):
        at, own = f"{layers}.{number}", layer.attention.self
        parts = {"q_proj": own.query, "k_proj": own.key, "v_proj": own.value}
        if joined:
            for kind in ("weight", "bias"):
                state[f"{at}.self_attn.in_proj_{kind}"] = torch.cat([getattr(each, kind) for each in parts.values()])
        else:
            for name, module in parts.items():
                state |= both(f"{at}.self_attn.{name}", module)
        state |= both(f"{at}.self_attn.out_proj", layer.attention.output.dense)
        state |= both(f"{at}.self_attn_layer_norm", layer.attention.output.LayerNorm)
        state |= both(f"{at}.fc1", layer.intermediate.dense) | both(f"{at}.fc2", layer.output.dense)
        state |= both(f"{at}.final_layer_norm", layer.output.LayerNorm)
    head = model.lm_head
    state |= both(f"{prefix}.lm_head.dense", head.dense) | both(f"{prefix}.lm_head.layer_norm", head.layer_norm)
    state[f"{prefix}.lm_head.weight"], state[f"{prefix}.lm_head.bias"] = embeddings.word_embeddings.weight, head.bias
    state[f"{prefix}.sentence_encoder.version"] = torch.Tensor([3])
    return {name: each.detach().clone() for name, each in state.items()}


BPE_TOKENS = ["t", "h", "e", "\u0120", "c", "a", "s", "\u0120t", "he", "\u0120the", "<|endoftext|>"]
MERGES = [("\u0120", "t"), ("h", "e"), ("\u0120t", "he")]


def write_fairseq(model, folder: Path, legacy: bool, settings: object = None, bpe: bool = True) -> Path:
    """model.pt, dict.txt, encoder.json and vocab.bpe, with the order of dict.txt another one than that of the BPE."""
    folder.mkdir()
    settings = settings or argparse.Namespace(arch="roberta_base", encoder_attention_heads=4, activation_fn="gelu")
    state = {"args": settings, "model": as_fairseq(model, "decoder" if legacy else "encoder", legacy)}
    torch.save(state, folder / "model.pt", _use_new_zipfile_serialization=not legacy)
    numbers = [*range(len(BPE_TOKENS))][::-1]
    made_up = [f"madeupword{number:04d}" for number in range(VOCAB - len(numbers) - 5)]
    lines = [f"{number} {1000 - at}" for at, number in enumerate(numbers)] + [f"{word} 0" for word in made_up]
    (folder / "dict.txt").write_text("\n".join(lines) + "\n")
    if bpe:
        encoder = json.dumps({token: number for number, token in enumerate(BPE_TOKENS)})
        (folder / "encoder.json").write_text(encoder, encoding="utf8")
        merges = "#version: 0.2\n" + "".join(f"{one} {other}\n" for one, other in MERGES)
        (folder / "vocab.bpe").write_text(merges, encoding="utf8")
    return folder


@pytest.mark.parametrize("legacy", [False, True])
def test_a_fairseq_checkpoint(roberta, tmp_path, legacy):
    """Both file formats of torch.save, both layouts of the projections, both prefixes."""
    with torch.no_grad():  # fairseq has no token types
        roberta.roberta.embeddings.token_type_embeddings.weight.zero_()
    folder = write_fairseq(roberta, tmp_path / "fairseq", legacy)
    told = import_model(str(folder), tmp_path / "in")
    assert told.family == "fairseq" and told.config.num_attention_heads == 4 and told.has_tokenizer
    ids, real = ids_of((20, 13, 2), pad=1)
    with torch.no_grad():
        wanted = roberta(ids, attention_mask=real.long()).logits
        expect_same(RobertaForMaskedLM.from_pretrained(tmp_path / "in")(ids, real), wanted, real)
        auto = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "in").eval()
        expect_same(auto(ids, attention_mask=real.long()).logits, wanted, real)
    # " the" is token 9 of the BPE, whose line in dict.txt is the second: 4 specials before it
    tokenizer = load_model(tmp_path / "in").tokenizer
    assert tokenizer.encode(" the").ids == [0, 5, 2]
    assert tokenizer.encode("the").ids == [0, 4 + 10 - 0, 4 + 10 - 8, 2]
    assert tokenizer.token_to_id("<mask>") == VOCAB - 1
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "in")(" the").input_ids == [0, 5, 2]


def test_a_fairseq_checkpoint_with_omegaconf_settings_and_no_bpe(roberta, tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"model": {"_name": "roberta", "encoder_attention_heads": 2}, "task": None})
    folder = write_fairseq(roberta, tmp_path / "fairseq", False, config, bpe=False)
    told = import_model(str(folder / "model.pt"), tmp_path / "in")
    assert told.config.num_attention_heads == 2
    assert not told.has_tokenizer and "encoder.json" in told.notes[0]


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, file: Path, call=os.system):
        self.call, self.command = call, f"touch {file}"

    def __reduce__(self):
        return self.call, (self.command,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("where", ["settings", "weights"])
@pytest.mark.parametrize("call", [os.system, eval, exec])
def test_a_malicious_checkpoint_is_refused_and_never_run(roberta, tmp_path, legacy, where, call):
    mark = tmp_path / "pwned"
    bad = Malicious(mark, call)
    if call is not os.system:
        bad.command = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    folder = write_fairseq(roberta, tmp_path / "fairseq", legacy, bad if where == "settings" else None)
    if where == "weights":
        state = {"args": None, "model": {"encoder.sentence_encoder.embed_tokens.weight": bad}}
        torch.save(state, folder / "model.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        BadInput, match=r"refers to \S*(system|eval|exec), which can run code .* nothing of it was run"
    ):
        import_model(str(folder), tmp_path / "in")
    assert not mark.exists() and not (tmp_path / "in").exists()
    torch.load(folder / "model.pt", weights_only=False)  # it is one: whoever loads it plainly runs it
    assert mark.exists()


def test_harmless_looking_names_cannot_run_code_either(roberta, tmp_path):
    """A name below fairseq or omegaconf is replaced, whatever it really is."""
    folder = write_fairseq(roberta, tmp_path / "fairseq", False)
    mark = tmp_path / "pwned"
    raw = b"cfairseq.utils\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
    import zipfile

    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", raw)
        archive.writestr("archive/version", "3\n")
    with pytest.raises(BadInput, match="no fairseq checkpoint"):
        import_model(str(folder), tmp_path / "in")
    assert not mark.exists()


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda folder: (folder / "model.pt").write_bytes(b""), "damaged"),
        (lambda folder: (folder / "model.pt").write_bytes(b"\x80\x02garbage"), "damaged"),
        (
            lambda folder: (folder / "model.pt").write_bytes((folder / "model.pt").read_bytes()[:5000]),
            "damaged",
        ),
        (lambda folder: (folder / "model.pt").write_bytes(pickle.dumps({"model": 1})), "no fairseq checkpoint"),
        (lambda folder: torch.save({"x": 1}, folder / "model.pt"), "no entry 'model'"),
        (lambda folder: torch.save({"model": {}}, folder / "model.pt"), "no RoBERTa encoder"),
        (lambda folder: (folder / "dict.txt").unlink(), "dict.txt is missing"),
        (lambda folder: (folder / "dict.txt").write_text("1 2\nx\n"), "line 2"),
        (lambda folder: (folder / "dict.txt").write_text("1 2\n"), "makes 6 symbols, .* has vectors for 97"),
        (lambda folder: (folder / "encoder.json").write_text("{}"), "no numbers of"),
        (lambda folder: (folder / "vocab.bpe").write_text("#\nx y\n"), "does not belong to this vocabulary"),
    ],
)
def test_a_spoilt_fairseq_folder_gets_one_line_and_nothing_is_written(roberta, tmp_path, spoil, words):
    folder = write_fairseq(roberta, tmp_path / "fairseq", False)
    spoil(folder)
    with pytest.raises(BadInput, match=words) as caught:
        import_model(str(folder), tmp_path / "in")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fairseq"]
