"""From raw text to an encoder by DVC, in the kinds that the smallest preset does not have: documents kept apart, and Chinese."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForMaskedLM

from roberta_core.data.chinese_words import HAN, open_jieba
from roberta_core.data.documents import read_shards
from roberta_core.data.order import rows_at
from roberta_core.data.packed import PackedRows
from roberta_core.data.tokenizer import load_tokenizer
from roberta_core.train.batches import Batches
from roberta_core.train.evaluate import EVAL_MASK_PROB, EVAL_SEED
from roberta_core.train.masking import IGNORED, mask_batch
from roberta_core.train.ranks import Ranks
from tasks.params_file import load_params
from tasks.pretrain import train_config
from tests.test_chain import ROOT, clone, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CHINESE = ROOT.parent / "shared" / "data" / "wiki_zh" / "text" / "AA"


def pretrained(folder: Path, **sections: dict) -> dict:
    """The chain up to `pretrain` in a clone in `folder`, with these keys of params.yaml set; the metrics of pretraining."""
    clone(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf8"))
    for name, section in sections.items():
        params[name] = {**params.get(name, {}), **section}
    params["pretrain"]["precision"] = "fp32"
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf8")
    run(folder, "dvc", "repro", "pretrain")
    return json.loads((folder / "metrics/pretrain.json").read_text())


def test_documents_kept_apart_from_raw_text_to_the_held_out_loss(tmp_path):
    """The loss that the chain reports is that of each document alone, as transformers computes it."""
    told = pretrained(
        tmp_path,
        shard={"validation_share": 0.2},
        pack={"mode": "best-fit", "max_length": 256},
        pretrain={"eval_rows": 1000},
    )
    packed = json.loads((tmp_path / "metrics/pack.json").read_text())
    assert packed["train_fill"] > 0.95
    rows = PackedRows(tmp_path / "data/packed/validation")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "models/encoder").eval()
    numbers = np.arange(len(rows))
    assert len(rows) < 1000, "all are scored"
    ids, documents = torch.from_numpy(rows.rows(numbers)), rows.documents(numbers)
    keys = torch.from_numpy(numbers)
    vocab = model.config.vocab_size
    masked = mask_batch(ids, keys, torch.zeros_like(keys), EVAL_SEED, EVAL_MASK_PROB, vocab)
    targets = torch.full_like(ids, IGNORED).reshape(-1)
    used = masked.labels != IGNORED
    targets[masked.positions[used]] = masked.labels[used]
    losses, several = [], 0
    with torch.no_grad():
        for row, target, document in zip(masked.input_ids, targets.reshape(ids.shape), torch.from_numpy(documents)):
            several += int(document.max()) > 0
            for number in range(int(document.max()) + 1):
                mine = document == number
                logits = model(row[mine][None]).logits[0]
                losses.append(torch.nn.functional.cross_entropy(logits, target[mine], reduction="none"))
    assert several > 10, "rows of several documents, or this shows nothing"
    loss = torch.cat(losses).double().sum().item() / int(used.sum())
    assert told["loss"] == pytest.approx(loss, abs=2e-4)


def test_chinese_from_raw_text_with_whole_words_masked(tmp_path):
    if not CHINESE.is_dir():
        pytest.skip("needs ../shared/data/wiki_zh")
    jieba = open_jieba()
    (tmp_path / "in").mkdir()
    for name in ("wiki_00", "wiki_01"):
        shutil.copy(CHINESE / name, tmp_path / "in" / name)
    told = pretrained(
        tmp_path,
        corpus={"sources": {"zh": {"kind": "files", "path": "in", "format": "wikiextractor"}}},
        clean={"min_chars": 50},
        tokenizer={"max_token_bytes": 12},
        pack={"word_boundaries": "jieba"},
        pretrain={"masking": "whole-word"},
    )
    assert told["steps"] == 40 and 0 < told["loss"] < np.log(2048), "better than any entry as likely as any other"
    tokenizer = load_tokenizer(tmp_path / "models/encoder")
    params, rows = load_params(tmp_path / "params.yaml"), PackedRows(tmp_path / "data/packed/train")
    config = train_config(params)
    batches = Batches(
        rows, config.batches, config.objective, tokenizer.get_vocab_size(), params.seed, torch.device("cpu")
    )
    known = {
        word
        for batch in read_shards(tmp_path / "data/shards/train", ["text"])
        for text in batch.column("text").to_pylist()
        for found in HAN.finditer(text)
        for word in jieba.cut(found.group())
    }
    words = [word for step in range(5) for word in masked_words(batches, tokenizer, step)]
    chinese = [word for word in words if HAN.fullmatch(word)]
    several = [word for word in chinese if len(word) > 1]
    assert len(several) > 50, "words of several characters"
    # 3 % are cut at the ends of a row; by the pattern alone a "word" would be a whole clause
    assert np.mean([word in known for word in chinese]) > 0.95
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "models/encoder")
    assert model.config.vocab_size >= tokenizer.get_vocab_size()


def masked_words(batches: Batches, tokenizer, step: int) -> list[str]:
    """The masked words of a batch, as text; asserts that no word is masked in part."""
    masked = batches.at(step, Ranks(torch.device("cpu"))).masked
    size = batches.plan.size_at(step)
    numbers, _ = rows_at(batches.plan.start_of(step), size, len(batches.rows), batches.seed)
    ids, starts = batches.rows.rows(numbers), batches.rows.word_starts(numbers)
    chosen = np.zeros(ids.size, bool)
    chosen[masked.positions[masked.labels != IGNORED].numpy()] = True
    word = np.cumsum(starts.reshape(-1)) - 1  # a row begins with a special token, which is a word of its own
    some, size_of = np.bincount(word, chosen), np.bincount(word)
    assert ((some == 0) | (some == size_of)).all()
    flat = ids.reshape(-1)
    return [tokenizer.decode(flat[word == number].tolist()).strip() for number in np.flatnonzero(some)]
