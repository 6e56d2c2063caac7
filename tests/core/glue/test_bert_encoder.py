"""Fine-tuning from a BERT: its own pair format, token types and special ids, and the same answers in transformers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from roberta_core.exchange.importing import import_model
from roberta_core.finetune import finetune, predict, tokenise
from roberta_core.glue.layout import Split
from roberta_core.glue.objective import objective_of
from roberta_core.glue.tasks import TASKS
from roberta_core.inference import load_model
from roberta_core.model.folder import read_config, tokenizer_of
from tests.core.finetune.test_loop import CPU, RECIPE
from tests.core.glue.tiny_encoder import WORDS

transformers = pytest.importorskip("transformers")

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT of transformers, imported."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source = tmp_path_factory.mktemp("bert")
    words = [*SPECIALS, *WORDS, "good", "bad"]
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
    )
    transformers.BertForPreTraining(config).save_pretrained(source)
    (source / "vocab.txt").write_text("\n".join(words) + "\n")
    import_model(str(source), source / "imported")
    return source / "imported"


def pairs(rows: int, seed: int) -> Split:
    """Entailment where the first text says good, whatever the second says: the order of the texts decides."""
    draw = np.random.default_rng(seed)
    labels = [row % 2 for row in range(rows)]
    texts = []
    for label in labels:
        sides = [[*draw.choice(WORDS, draw.integers(1, 4)), word] for word in ("good", "bad")]
        first, second = (" ".join(draw.permutation(side)) for side in (sides if label else sides[::-1]))
        texts.append((first, second))
    return Split(texts, labels)


def test_a_pair_task_is_learned_and_answers_are_those_of_transformers(bert, tmp_path):
    config = read_config(bert)
    tokenizer = tokenizer_of(bert, config)
    made = (pairs(400, 0), pairs(60, 1))
    train, dev = (tokenise(tokenizer, each.texts, each.labels, 32, config.has_token_types) for each in made)
    objective = objective_of(TASKS["RTE"])
    assert max(map(max, train.types)) == 1 and train.ids[0][0] == SPECIALS.index("[CLS]")
    model = finetune(bert, objective, train, replace(RECIPE, epochs=5), 1, CPU)
    guess = np.stack(predict(objective, model, dev))
    assert (guess.argmax(axis=1) == made[1].labels).mean() > 0.95
    assert np.abs(guess - np.stack(predict(objective, model, replace(dev, types=None)))).max() > 1e-3, (
        "token types are seen"
    )
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((bert / name).read_bytes())
    texts = pairs(60, 1).texts
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    encoded = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        [one for one, _ in texts], [other for _, other in texts], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = theirs(**encoded).logits.softmax(-1).numpy()
    assert guess == pytest.approx(wanted, abs=1e-5)
    answers = load_model(tmp_path).predict(["\t".join(each) for each in texts])
    assert [each["score"] for each in answers] == pytest.approx(wanted.max(axis=1), abs=1e-5)


def test_a_tokenizer_of_another_model_is_refused(bert, tmp_path):
    import shutil

    from roberta_core.errors import BadInput
    from tests.core.glue.tiny_encoder import write_encoder

    roberta = write_encoder(tmp_path / "roberta")
    mixed = shutil.copytree(bert, tmp_path / "mixed")
    (mixed / "SHA256SUMS").unlink()
    shutil.copy(roberta / "tokenizer.json", mixed)
    with pytest.raises(BadInput, match=r"the tokenizer has \d+ tokens, the model has vectors for 19"):
        tokenizer_of(mixed, read_config(mixed))
    shutil.copy(bert / "tokenizer.json", roberta)
    with pytest.raises(BadInput, match="the tokenizer pads with 0, the model with 1"):
        tokenizer_of(roberta, read_config(roberta))
