"""Masking: counts and proportions, specials never masked, fresh each epoch, the same for the same (seed, epoch, row)."""

import pytest
import torch

from roberta_core.counter_random import mix_array, mix_tensor
from roberta_core.train.masking import IGNORED, mask_batch, slots

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
