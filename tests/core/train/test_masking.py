"""Masking: counts and proportions, specials never masked, fresh each epoch, the same for the same (seed, epoch, row)."""

import pytest
import torch

from roberta_core.counter_random import mix_array, mix_tensor
from roberta_core.train.masking import IGNORED, NUM_SPECIAL, SPAN_WORDS, Masking, mask_batch, slots

VOCAB, LENGTH, BATCH = 5000, 128, 256
MASK = VOCAB - 1


def batch(seed: int = 0) -> torch.Tensor:
    ids = torch.randint(4, VOCAB - 1, (BATCH, LENGTH), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], ids[:, -1] = 0, 2
    ids[:, 60] = 2  # a separator within the row
    return ids


def masked(ids, epoch=0, seed=1, prob=0.15, first_row=0):
    rows = torch.arange(first_row, first_row + len(ids))
    return mask_batch(ids, rows, torch.full_like(rows, epoch), seed, prob, VOCAB)


@pytest.mark.parametrize("prob", [0.15, 0.3, 0.4])
def test_share_of_masked_tokens(prob):
    ids = batch()
    result = masked(ids, prob=prob)
    per_row = (result.labels != IGNORED).view(BATCH, -1).sum(1)
    eligible = LENGTH - 3
    assert ((per_row == int(prob * eligible)) | (per_row == int(prob * eligible) + 1)).all()
    assert per_row.float().mean() == pytest.approx(prob * eligible, abs=0.15)  # rounded at random, not down
    assert result.labels.shape == (BATCH * slots(LENGTH, prob),)


def test_labels_are_the_originals_and_the_rest_is_untouched():
    ids = batch()
    result = masked(ids)
    used = result.labels != IGNORED
    assert torch.equal(ids.flatten()[result.positions[used]], result.labels[used])
    assert len(result.positions[used].unique()) == used.sum()
    untouched = torch.ones(ids.numel(), dtype=torch.bool)
    untouched[result.positions[used]] = False
    assert torch.equal(result.input_ids.flatten()[untouched], ids.flatten()[untouched])


def test_eighty_ten_ten():
    ids = torch.cat([batch(seed) for seed in range(8)])
    result = masked(ids)
    used = result.labels != IGNORED
    now, before = result.input_ids.flatten()[result.positions[used]], result.labels[used]
    count = used.sum().item()
    assert (now == MASK).sum().item() / count == pytest.approx(0.8, abs=0.01)
    assert (now == before).sum().item() / count == pytest.approx(0.1, abs=0.01)
    other = now[(now != MASK) & (now != before)]
    assert other.min() >= 4 and other.max() < MASK
    assert other.float().mean() == pytest.approx((4 + MASK) / 2, rel=0.03)  # uniform over the plain tokens


def test_specials_are_never_masked():
    ids = batch()
    ids[:, 100:] = 1
    ids[::2, 50] = MASK  # a text that spells the token is encoded as text, but a packed file may hold anything
    ids[1] = 1
    ids[1, 0], ids[1, 1] = 0, 2  # a row without any eligible token
    result = masked(ids)
    used = result.labels != IGNORED
    assert ((result.labels[used] >= 4) & (result.labels[used] != MASK)).all()
    special = (ids < 4) | (ids == MASK)
    assert torch.equal(result.input_ids[special], ids[special])
    assert not used.view(BATCH, -1)[1].any()


def test_same_for_the_same_key_and_fresh_otherwise():
    ids = batch()
    first = masked(ids)
    assert all(torch.equal(a, b) for a, b in zip(first, masked(ids)))
    for other in (masked(ids, epoch=1), masked(ids, seed=2), masked(ids, first_row=1)):
        assert (first.positions != other.positions).float().mean() > 0.5


def test_a_rows_mask_does_not_depend_on_its_batch():
    ids = batch()
    whole = masked(ids)
    part = masked(ids[100:110], first_row=100)
    assert torch.equal(whole.input_ids[100:110], part.input_ids)


def test_every_position_is_chosen_about_equally_often():
    ids = batch()
    hits = torch.zeros(LENGTH)
    for epoch in range(40):
        result = masked(ids, epoch=epoch)
        hits += torch.bincount(result.positions[result.labels != IGNORED] % LENGTH, minlength=LENGTH)
    share = hits / (40 * BATCH)
    eligible = torch.ones(LENGTH, dtype=torch.bool)
    eligible[[0, 60, 127]] = False
    assert (share[~eligible] == 0).all()
    assert (share[eligible] - 0.15).abs().max() < 0.02


def test_numpy_and_torch_mix_alike():
    values = torch.randint(-(2**62), 2**62, (1000,), generator=torch.Generator().manual_seed(1))
    assert (mix_array(values.numpy().view("uint64")).view("int64") == mix_tensor(values).numpy()).all()


def words_of(ids, seed=3, one_token=0.6):
    """Where words begin, at random: bool [B, L], with no regard to specials."""
    return torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < one_token


def masked_units(ids, kind, prob=0.15, epoch=0, starts=None, first_row=0, most=None):
    rows = torch.arange(first_row, first_row + len(ids))
    starts = words_of(ids) if starts is None else starts
    return mask_batch(ids, rows, torch.full_like(rows, epoch), 1, prob, VOCAB, kind, starts, most)


def hidden(ids, result) -> torch.Tensor:
    """Which tokens are to be predicted: bool [B, L]."""
    found = torch.zeros(ids.numel(), dtype=torch.bool)
    found[result.positions[result.labels != IGNORED]] = True
    return found.view(ids.shape)


def word_lists(ids, starts) -> list[list[list[int]]]:
    """Words of each row as lists of places, by the definition: specials end a word and are none."""
    rows = []
    for row in range(len(ids)):
        words, open_word = [], False
        for place in range(ids.shape[1]):
            if ids[row, place] < NUM_SPECIAL or ids[row, place] == MASK:
                open_word = False
                continue
            if starts[row, place] or not open_word:
                words.append([])
            words[-1].append(place)
            open_word = True
        rows.append(words)
    return rows


@pytest.mark.parametrize("kind", ["tokens", "whole-word", "spans"])
@pytest.mark.parametrize("prob", [0.15, 0.4])
def test_every_kind_masks_its_share_exactly(kind, prob):
    ids = batch()
    result = masked_units(ids, kind, prob)
    count, eligible = hidden(ids, result).sum(1), LENGTH - 3
    assert ((count == int(prob * eligible)) | (count == int(prob * eligible) + 1)).all()
    assert count.float().mean() == pytest.approx(prob * eligible, abs=0.15)
    used = result.labels != IGNORED
    assert torch.equal(ids.flatten()[result.positions[used]], result.labels[used])
    now, before = result.input_ids.flatten()[result.positions[used]], result.labels[used]
    assert (now == MASK).float().mean() == pytest.approx(0.8, abs=0.03)
    assert (now == before).float().mean() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("one_token", [0.9, 0.6, 0.3])
def test_words_are_masked_whole_or_not_at_all(one_token):
    ids = batch()
    ids[:, 100:] = 1
    starts = words_of(ids, one_token=one_token)
    chosen = hidden(ids, masked_units(ids, "whole-word", starts=starts))
    for row, words in enumerate(word_lists(ids, starts)):
        for word in words:
            assert chosen[row, word].all() or not chosen[row, word].any()
    lengths = torch.tensor([len(word) for words in word_lists(ids, starts) for word in words])
    assert lengths.max() > 1 and chosen.any(1).all()


def test_long_words_are_chosen_as_often_as_short_ones():
    ids, hits, all_ = batch()[:64], torch.zeros(12), torch.zeros(12)
    starts = words_of(ids)
    words = word_lists(ids, starts)
    for epoch in range(30):
        chosen = hidden(ids, masked_units(ids, "whole-word", epoch=epoch, starts=starts))
        for row, there in enumerate(words):
            for word in there:
                if len(word) < 12:
                    hits[len(word)] += chosen[row, word[0]]
                    all_[len(word)] += 1
    share = hits / all_
    assert (share[1:5] - 0.15).abs().max() < 0.035  # what fills up a row is words of one token: a little more of these


def test_a_row_of_one_word_and_rows_without_words_of_one_token():
    ids = batch()[:4]
    starts = torch.zeros_like(ids, dtype=torch.bool)
    chosen = hidden(ids, masked_units(ids, "whole-word", starts=starts))
    assert not chosen.any()  # both words are longer than the share
    starts[:, ::2] = True  # words of two tokens
    count = hidden(ids, masked_units(ids, "whole-word", starts=starts)).sum(1)
    assert ((count >= int(0.15 * (LENGTH - 3)) - 1) & (count <= int(0.15 * (LENGTH - 3)) + 1)).all()


def test_spans_are_runs_of_words_with_the_lengths_of_the_paper():
    ids = torch.randint(4, MASK, (200, 1024), generator=torch.Generator().manual_seed(0))
    starts = torch.ones_like(ids, dtype=torch.bool)
    result = masked_units(ids, "spans", 0.02, starts=starts)  # so few that two seldom touch
    chosen = hidden(ids, result).int()
    lengths = []
    for row in chosen:
        edges = torch.diff(row, prepend=torch.zeros(1), append=torch.zeros(1))
        lengths += (torch.where(edges < 0)[0] - torch.where(edges > 0)[0]).tolist()
    lengths = torch.tensor(lengths).float()
    assert (lengths > SPAN_WORDS).float().mean() < 0.08
    # 3.8 words in the mean (Joshi et al. 2020); the last one of a row is cut, and some touch
    assert lengths.mean() == pytest.approx(3.6, abs=0.4)
    # one fate a span: neighbours that are both predicted mostly share it
    replaced = result.input_ids.eq(MASK)
    pairs = chosen[:, 1:].bool() & chosen[:, :-1].bool()
    assert (replaced[:, 1:] == replaced[:, :-1])[pairs].float().mean() > 0.93


@pytest.mark.parametrize("kind", ["whole-word", "spans"])
def test_units_are_a_pure_function_of_seed_epoch_and_row(kind):
    ids = batch()
    starts = words_of(ids)
    whole = masked_units(ids, kind, starts=starts)
    assert all(torch.equal(a, b) for a, b in zip(whole, masked_units(ids, kind, starts=starts)))
    part = masked_units(ids[100:110], kind, starts=starts[100:110], first_row=100)
    assert torch.equal(whole.input_ids[100:110], part.input_ids)
    other = masked_units(ids, kind, epoch=1, starts=starts)
    assert (hidden(ids, whole) & hidden(ids, other)).sum() < 0.4 * hidden(ids, whole).sum()


def test_every_token_is_in_a_span_about_equally_often():
    ids, hits = batch(), torch.zeros(LENGTH)
    for epoch in range(60):
        hits += hidden(ids, masked_units(ids, "spans", epoch=epoch)).sum(0)
    share = hits / (60 * BATCH)
    eligible = torch.ones(LENGTH, dtype=torch.bool)
    eligible[[0, 60, 127]] = False
    assert (share[~eligible] == 0).all() and (share[eligible] - 0.15).abs().max() < 0.025


def test_a_share_that_changes_keeps_the_shape():
    plan = Masking("tokens", 0.4, 0.15)
    assert plan.most == 0.4 and [plan.prob_at(done) for done in (0, 0.5, 1, 2)] == pytest.approx(
        [0.4, 0.275, 0.15, 0.15]
    )
    assert Masking("tokens", 0.15).prob_at(0.7) == Masking("tokens", 0.15).most == 0.15
    ids = batch()
    early, late = (masked_units(ids, "tokens", plan.prob_at(done), most=plan.most) for done in (0, 1))
    assert early.labels.shape == late.labels.shape
    assert torch.equal(late.input_ids, masked(ids).input_ids)  # what is masked at 15 % does not hang on the slots
    assert hidden(ids, late).sum(1).float().mean() == pytest.approx(0.15 * (LENGTH - 3), abs=0.15)
    assert not (hidden(ids, late) & ~hidden(ids, early)).any()  # of the same tokens, fewer
