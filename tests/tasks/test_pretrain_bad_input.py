"""Pretraining with what is not its own or not whole: one line, nothing mixed, nothing lost. Beside it: test_bad_input.py
(damaged checkpoints), test_start.py (weights to go on from), test_disk_full.py, test_pretrain_settings.py (too many ranks)."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from roberta_core.atomic import digest_of, read_json, write_json
from roberta_core.data.packing import write_packed
from roberta_core.data.tokenizer import save_tokenizer, train_tokenizer
from roberta_core.errors import BadInput
from tests.tasks.stage_processes import finish, start
from tests.tasks.test_pretrain_stage import write_inputs
from tests.tasks.test_start import here, job, write_params  # noqa: F401  (a fixture)


def other_tokenizer(folder):
    save_tokenizer(train_tokenizer(["a quick brown fox jumps over it "] * 50, 280, 2), folder / "models/tokenizer")


def other_data(folder, split="train"):
    """The same number of rows with other tokens."""
    packed = folder / "data/packed" / split
    manifest = read_json(packed / "manifest.json")
    (packed / "part-00000.arrow").unlink()
    rows = [np.arange(4, 64, dtype=np.uint16) for _ in range(20)]
    write_packed(iter([rows]), packed / "part-00000.arrow", "full-sentences", 32, 280)
    # the key under which the pack stage notes it
    digest = {"files_sha256": {"part-00000.arrow": digest_of(packed / "part-00000.arrow")}}
    write_json(packed / "manifest.json", manifest | digest)


def test_another_model_tokenizer_or_data_is_another_run(here):  # noqa: F811
    """A checkpoint is looked for under the run's fingerprint, and refused where it carries another one."""
    write_params()
    seen = {"as it was": job().fingerprint}
    write_params(size="mini")
    seen["model"] = job().fingerprint
    write_params(dropout=0.2)
    seen["model's dropout"] = job().fingerprint
    write_params(peak_lr=1e-4)
    seen["training"] = job().fingerprint
    write_params()
    other_data(here, "train")
    seen["data"] = job().fingerprint
    other_data(here, "validation")
    seen["held-out data"] = job().fingerprint
    assert len(set(seen.values())) == len(seen), seen

    begun = job()
    training = begun.training()
    training.train()
    moved = begun.checkpoints.folder.with_name("0" * 16)
    shutil.copytree(begun.checkpoints.folder, moved)
    begun.checkpoints.folder, begun.checkpoints.fingerprint = moved, "0" * 16
    with pytest.raises(BadInput, match="another model, data or tokenizer"):
        begun.training()


def test_rows_of_another_tokenizer_are_refused_before_anything_is_built(here):  # noqa: F811
    write_params()
    other_tokenizer(here)
    with pytest.raises(BadInput, match=r"packed rows were made with another tokenizer\. .*dvc repro pack"):
        job()
    assert not (here / ".work").exists()


def test_a_truncated_model_to_go_on_from(here):  # noqa: F811
    file = here / "given/model.safetensors"
    whole = file.read_bytes()
    for size in (0, 7, 200, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        write_params(init="given", init_path="given")
        with pytest.raises(BadInput, match=r"damaged"):
            job()


def test_fewer_rows_than_a_batch_has_are_seen_again(here):  # noqa: F811
    """Batches of nine of which each of three ranks has three, from fewer rows than that."""
    write_params(batch_size=9, max_steps=2)
    packed = here / "data/packed/train"
    (packed / "part-00000.arrow").unlink()
    rows = [np.arange(4, 94, dtype=np.uint16)]
    write_packed(iter([rows]), packed / "part-00000.arrow", "full-sentences", 32, 280)
    begun = job()
    assert len(begun.rows) < 9
    training = begun.training()
    for rank in range(3):
        training.ranks.rank, training.ranks.world = rank, 3
        batch = training.batches.at(0, training.ranks)
        assert batch.rows == 3 and (batch.masked.labels >= 0).any()


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, which can be made read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or os.geteuid()
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64m", "none", folder]).returncode
    ):
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_read_only_project_is_one_line(disk):
    write_inputs(disk)
    before = sorted(path.name for path in disk.rglob("*"))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, said = finish(start(disk, "pretrain"))
    assert code == 1 and "Read-only file system" in said and len(said.splitlines()) == 1, said
    assert sorted(path.name for path in disk.rglob("*")) == before
