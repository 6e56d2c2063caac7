"""A packed row gives each of its documents the logits that it has alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.model import isolation as module
from roberta_core.model.isolation import PADDING, isolate
from tests.core.model.test_model import randomised

VOCAB, LENGTH = 301, 24
CONFIG = RobertaConfig.named("tiny", VOCAB, LENGTH, dropout=0.1)


def packed(rows: list[list[int]], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and documents of rows given by the lengths of their documents; the rest of a row is padding."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.full((len(rows), LENGTH), CONFIG.pad_token_id)
    documents = torch.full((len(rows), LENGTH), PADDING, dtype=torch.int32)
    for row, lengths in enumerate(rows):
        at = 0
        for number, length in enumerate(lengths):
            here = slice(at, at + length)
            ids[row, here] = torch.randint(4, VOCAB, (length,), generator=draw)
            ids[row, at], ids[row, at + length - 1] = 0, 2
            documents[row, here] = number
            at += length
    return ids, documents


@pytest.fixture(scope="module")
def model():
    return randomised(RobertaForMaskedLM(CONFIG, seed=1))


ROWS = st.lists(
    st.lists(st.integers(2, LENGTH), min_size=1, max_size=8).filter(lambda row: sum(row) <= LENGTH),
    min_size=1,
    max_size=4,
)


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99))
def test_logits_of_a_packed_row_are_those_of_each_document_alone(model, rows, seed):
    ids, documents = packed(rows, seed)
    with torch.no_grad():
        together = model(ids, isolation=isolate(documents, CONFIG.pad_token_id))
        assert torch.isfinite(together).all(), "padding must not spoil anything"
        for row in range(len(rows)):
            for number in range(len(rows[row])):
                here = documents[row] == number
                alone = model(ids[row, here][None])[0]
                torch.testing.assert_close(together[row, here], alone, atol=1e-5, rtol=0)


def test_dense_attention_gives_something_else(model):
    """The test above can fail."""
    ids, documents = packed([[10, 14]], 0)
    with torch.no_grad():
        apart = model(ids, isolation=isolate(documents, CONFIG.pad_token_id))
        assert (apart - model(ids)).abs().max() > 0.1


def test_gradients_stay_within_the_document(model):
    ids, documents = packed([[10, 14]], 0)
    hidden = model.roberta.embeddings(ids, False, None, isolate(documents, CONFIG.pad_token_id)).detach()
    hidden.requires_grad_()
    seen = isolate(documents, CONFIG.pad_token_id)
    mixed = hidden
    for layer in model.roberta.encoder.layer:
        mixed = layer(mixed, seen)
    mixed[0, 3].sum().backward()
    assert hidden.grad[0, :10].abs().max() > 0 and not hidden.grad[0, 10:].any()


def test_positions_restart_after_padding_idx():
    _, documents = packed([[3, 4], [5]], 0)
    positions = isolate(documents, pad_token_id=1).position_ids
    assert positions[0].tolist() == [2, 3, 4, 2, 3, 4, 5] + [1] * (LENGTH - 7)
    assert positions[1].tolist() == [2, 3, 4, 5, 6] + [1] * (LENGTH - 5)


def varlen_by_hand(query, key, value, starts, starts_k, longest, longest_k):
    """What torch.nn.attention.varlen computes, in float32 on the CPU: its kernel runs on a GPU alone."""
    assert torch.equal(starts, starts_k) and longest == longest_k == LENGTH
    assert int(starts.diff().max()) <= longest and not (starts.diff() < 0).any()
    parts = []
    for begin, end in zip(starts.tolist(), starts[1:].tolist()):
        q, k, v = (each[begin:end].transpose(0, 1) for each in (query, key, value))  # [H, n, width]
        if end > begin:
            weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
            parts.append((weights @ v).transpose(0, 1))
    return torch.cat(parts)


def test_the_variable_length_path_gives_what_the_mask_gives(model, monkeypatch):
    """The kernel itself is replaced (there is no GPU here); what it is given, and what comes back, is real."""
    monkeypatch.setattr(module, "varlen_attn", varlen_by_hand)
    ids, documents = packed([[10, 14], [3, 3, 3], [24]], 5)
    real = documents != PADDING
    with torch.no_grad():
        masked = model(ids, isolation=isolate(documents, 1))
        listed = model(ids, isolation=isolate(documents, 1, varlen=True))
    torch.testing.assert_close(listed[real], masked[real], atol=1e-5, rtol=0)


def test_the_kernel_is_there_and_takes_these_arguments():
    """From torch 2.11 on; its signature is what `attend_within` relies on."""
    import inspect

    pytest.importorskip("torch.nn.attention.varlen")
    inspect.signature(module.varlen_attn).bind(*range(7))
    assert not module.has_varlen(torch.device("cpu"), "bf16", 0.0)
    assert isinstance(isolate(torch.zeros(1, 4, dtype=torch.int32), 1, varlen=True).starts, torch.Tensor)


def test_documents_of_packed_rows_fit(model, tmp_path):
    """From the packer to the model: every row of best-fit packing, against its documents alone."""
    from roberta_core.data.packed import PackedRows
    from roberta_core.data.packing import write_packed

    draw = np.random.default_rng(0)
    texts = [draw.integers(4, VOCAB - 1, length).astype(np.uint16) for length in draw.integers(1, 40, 30)]
    counts = write_packed(iter([texts]), tmp_path / "part-00000.arrow", "best-fit", LENGTH, VOCAB)
    (tmp_path / "manifest.json").write_text('{"mode": "best-fit"}')
    rows = PackedRows(tmp_path)
    assert rows.isolated and len(rows) == counts["rows"]
    numbers = np.arange(len(rows))
    ids, documents = torch.from_numpy(rows.rows(numbers)), torch.from_numpy(rows.documents(numbers))
    with torch.no_grad():
        together = model(ids, isolation=isolate(documents, CONFIG.pad_token_id))
        for row, number in {(at, int(n)) for at in range(len(rows)) for n in documents[at].unique() if n >= 0}:
            here = documents[row] == number
            alone = ids[row, here]
            assert alone[0] == 0 and alone[-1] == 2 and (alone[1:-1] > 3).all()
            torch.testing.assert_close(together[row, here], model(alone[None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("varlen", [False, True])
def test_it_compiles_as_one_graph(model, monkeypatch, varlen):
    """Rows with other documents need no new graph: the list of documents is filled up."""
    monkeypatch.setattr(module, "varlen_attn", lambda query, key, value, *rest: query + key + value)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch._dynamo.reset()
    for rows, seed in (([[10, 14]], 0), ([[3, 3, 3]], 1), ([[24]], 2)):
        ids, documents = packed(rows, seed)
        apart = isolate(documents, CONFIG.pad_token_id, varlen=varlen)
        with torch.no_grad(), torch.compiler.set_stance("default" if seed == 0 else "fail_on_recompile"):
            torch.testing.assert_close(compiled(ids, isolation=apart), model(ids, isolation=apart))
