"""Minimal pairs: sums against a plain loop, against transformers, what is counted, and files that are not in order."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from roberta_core import minimal_pairs, pseudo_likelihood
from roberta_core.errors import BadInput
from roberta_core.inference import EncoderModel
from roberta_core.minimal_pairs import ALL, NAMED_ALL, Pair, pair_files, read_pairs, score_pairs, summarise
from roberta_core.pseudo_likelihood import encode, pseudo_log_likelihoods
from tests.core.glue.tiny_encoder import WORDS, write_encoder

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "blimp"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = write_encoder(tmp_path_factory.mktemp("encoder"))
    model = EncoderModel(folder, "cpu")
    with torch.no_grad():  # so that not everything is equally likely
        for weight in model.model.parameters():
            weight.mul_(3)
    model.model.save_pretrained(folder)
    return model


def sentences(count: int, longest: int) -> list[str]:
    draw = np.random.default_rng(1)
    return [" ".join(draw.choice(WORDS, draw.integers(1, longest))) for _ in range(count)]


def plain(model: EncoderModel, sentence: str) -> float:
    """One sentence, one position at a time, by the whole model."""
    ids = torch.tensor([model.tokenizer.encode(sentence).ids])
    total = 0.0
    for at in range(1, ids.shape[1] - 1):
        masked = ids.clone()
        masked[0, at] = model.tokenizer.token_to_id("<mask>")
        with torch.inference_mode():
            total += model.model(masked)[0, at].double().log_softmax(-1)[ids[0, at]].item()
    return total


@pytest.mark.parametrize("tokens", [40, 8192])
def test_the_sums_are_those_of_a_plain_loop(encoder, monkeypatch, tokens):
    monkeypatch.setattr(pseudo_likelihood, "BATCH_TOKENS", tokens)
    monkeypatch.setattr(pseudo_likelihood, "HEAD_ROWS", 3)
    texts = [*sentences(20, 9), "a <mask> b", "x"]
    told: list[int] = []
    rows = encode(encoder.tokenizer, texts)
    found = pseudo_log_likelihoods(encoder.model, encoder.tokenizer, rows, "fp32", told.append)
    assert found == pytest.approx([plain(encoder, text) for text in texts], abs=1e-3)
    assert sum(told) == len(texts) and found.std() > 1
    rounded = pseudo_log_likelihoods(encoder.model, encoder.tokenizer, rows, "bf16")
    assert rounded == pytest.approx(found, rel=0.03) and not np.array_equal(rounded, found)
    assert next(encoder.model.parameters()).dtype == torch.float32, "the caller's model stays as it was"


def test_an_error_on_the_way_leaves_threads_as_they_were_and_waits_for_nothing(encoder, monkeypatch):
    begun: list[int] = []

    def failing(model, mask, rows):
        begun.append(len(rows))
        time.sleep(0.05)
        raise RuntimeError("no memory")

    monkeypatch.setattr(pseudo_likelihood, "BATCH_TOKENS", 1)
    monkeypatch.setattr(pseudo_likelihood, "_sums", failing)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no memory"):
        pseudo_log_likelihoods(encoder.model, encoder.tokenizer, encode(encoder.tokenizer, sentences(500, 9)), "fp32")
    assert torch.get_num_threads() == threads and len(begun) < 500


def test_the_last_layer_at_one_place_is_that_of_the_whole_layer(encoder):
    layer, hidden = encoder.model.roberta.encoder.layer[-1], torch.randn(5, 7, 64)
    places = torch.tensor([0, 6, 3, 3, 1])
    with torch.inference_mode():
        whole = layer(hidden, None)[torch.arange(5), places]
        assert torch.allclose(pseudo_likelihood.last_layer(layer, hidden, places), whole, atol=1e-5)


def test_transformers_gives_the_same_sums(encoder, tmp_path):
    from transformers import AutoModelForMaskedLM

    encoder.model.save_pretrained(tmp_path)
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    text = " ".join(WORDS[:5])
    (row,) = encode(encoder.tokenizer, [text])
    ids, places, targets = pseudo_likelihood.masked_rows([row], encoder.tokenizer.token_to_id("<mask>"))
    with torch.inference_mode():
        logits = theirs(ids).logits[torch.arange(len(ids)), places].log_softmax(-1)
    ours = pseudo_log_likelihoods(encoder.model, encoder.tokenizer, [row], "fp32")
    assert ours[0] == pytest.approx(logits.gather(1, targets[:, None]).sum().item(), abs=1e-3)


def test_counts_by_hand():
    names = ["b", "b", "a", "b"]
    rows = summarise(
        names,
        np.array([-1.0, -2, -3, -4]),
        np.array([-2.0, -2, -1, -3]),
        np.array([3, 3, 4, 5]),
        np.array([3, 3, 4, 4]),
    )
    shown = {row.name: (row.pairs, row.accuracy, row.ties, row.unequal, row.accuracy_equal) for row in rows}
    assert list(shown) == ["b", "a", ALL]
    assert shown["b"] == (3, pytest.approx(1 / 3), 1, 1, 0.5)
    assert shown["a"] == (1, 0.0, 0, 0, 0.0)
    assert shown[ALL] == (4, 0.25, 1, 1, pytest.approx(1 / 3))
    (row, _) = summarise(["c"], np.array([1.0]), np.array([0.0]), np.array([1]), np.array([2]))
    assert row.accuracy_equal is None and row.accuracy == 1


def test_a_paradigm_named_as_the_last_row_is_told_apart_from_it():
    one = np.ones(3, int)
    rows = summarise(["all", "b", "all"], np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 2.0]), one, one)
    assert [(row.name, row.pairs, row.accuracy) for row in rows] == [
        (NAMED_ALL, 2, 0.5), ("b", 1, 0.0), (ALL, 3, pytest.approx(1 / 3)),
    ]  # fmt: skip


def test_pairs_are_scored_once_each_sentence_and_long_ones_are_named(encoder):
    one, other = " ".join(WORDS[:4]), " ".join(WORDS[4:8])
    long = " ".join(WORDS * 10)
    pairs = [Pair(one, other, "p", "f, line 1"), Pair(other, one, "p", "f, line 2"), Pair(one, one, "q", "f, line 3")]
    told: list[int] = []
    rows, out = score_pairs(
        encoder.model, encoder.tokenizer, [*pairs, Pair(one, long, "q", "f, line 4")], "fp32", told.append
    )
    assert sum(told) == 2 and len(out) == 1 and out[0].startswith("f, line 4: ") and "takes 64" in out[0]
    by_name = {row.name: row for row in rows}
    assert by_name["p"].accuracy == 0.5 and by_name["p"].ties == 0
    assert by_name["q"].accuracy == 0.0 and by_name["q"].ties == 1
    assert by_name[ALL].pairs == 3
    with pytest.raises(BadInput, match="No pair fits the model"):
        score_pairs(encoder.model, encoder.tokenizer, [Pair(long, one, "q", "f, line 4")])


def test_rounding_decides_no_close_pair(encoder, monkeypatch):
    texts = sentences(60, 5)
    pairs = [Pair(one, other, "p", "") for one, other in zip(texts[::2], texts[1::2])]
    asked: list[tuple[str, int]] = []
    real = pseudo_likelihood.pseudo_log_likelihoods
    sums = real(encoder.model, encoder.tokenizer, encode(encoder.tokenizer, texts), "fp32")
    close = float(np.median(np.abs(sums[::2] - sums[1::2])))  # this encoder's sums are far apart
    monkeypatch.setattr(minimal_pairs, "CLOSE_NATS", close)

    def noted(model, tokenizer, rows, precision, on_rows=lambda count: None):
        asked.append((precision, len(rows)))
        found = real(model, tokenizer, rows, "fp32", on_rows)
        return (
            found
            if precision == "fp32"
            else found + np.random.default_rng(0).uniform(-0.49 * close, 0.49 * close, len(found))
        )

    monkeypatch.setattr(pseudo_likelihood, "pseudo_log_likelihoods", noted)
    exact, _ = score_pairs(encoder.model, encoder.tokenizer, pairs, "fp32")
    rounded, _ = score_pairs(encoder.model, encoder.tokenizer, pairs, "bf16")
    assert rounded == exact
    (_, everything), (_, first), (again, few) = asked
    assert again == "fp32" and 0 < few < first == everything


def write(file: Path, *rows) -> Path:
    file.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf8"
    )
    return file


GOOD = {"sentence_good": "A b.", "sentence_bad": "B a.", "UID": "order", "field": "syntax"}


def test_files_are_read_and_bad_rows_named(tmp_path):
    write(tmp_path / "one.jsonl", "\ufeff" + json.dumps(GOOD), "", {"sentence_good": "C", "sentence_bad": "D"})
    rows = [GOOD] * 200
    rows[7:7] = ["{", {"sentence_good": "x"}]
    write(tmp_path / "two.jsonl", *rows)
    pairs, bad = read_pairs([tmp_path])
    assert [pair.paradigm for pair in pairs[:3]] == ["order", "one", "order"] and len(pairs) == 202
    assert pairs[1].where.endswith("one.jsonl, line 3")
    assert [line.split("two.jsonl, ")[1] for line in bad] == ["line 8: no JSON", "line 9: no text in sentence_bad"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([GOOD, "[1]"], "line 2: no JSON object"),
        ([GOOD, {"sentence_good": "x", "sentence_bad": " "}], "line 2: no text in sentence_bad"),
        ([GOOD, "[" * 100_000], "line 2: no JSON"),
        ([GOOD, GOOD | {"UID": "\ud800"}], "line 2: characters that cannot be written as UTF-8"),
        (
            [{"sentence_good": 3, "sentence_bad": "y"}, "nope"],
            r"line 1: no text in sentence_good \(2 such rows of 2\)",
        ),
        ([], "has no rows"),
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path, rows, words):
    with pytest.raises(BadInput, match=words) as caught:
        read_pairs([write(tmp_path / "x.jsonl", *rows)])
    assert "x.jsonl" in str(caught.value) and "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"sentence_good": "\xff"}\n')
    with pytest.raises(BadInput, match="line 1: the bytes at position 19 are not UTF-8"):
        read_pairs([tmp_path / "x.jsonl"])


def test_paths_that_are_not_there(tmp_path):
    with pytest.raises(BadInput, match="There is no"):
        pair_files([tmp_path / "none"])
    with pytest.raises(BadInput, match="holds no file"):
        pair_files([tmp_path])


def test_real_paradigms_are_read_whole():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not here")
    pairs, bad = read_pairs([REAL])
    assert bad == [] and len({pair.paradigm for pair in pairs}) == len(pairs) / 1000
