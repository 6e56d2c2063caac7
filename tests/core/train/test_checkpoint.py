"""Checkpoints: written beside the training, whole or absent, and what cannot be written loses nothing older."""

import errno
import resource
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from roberta_core.atomic import digest_of
from roberta_core.errors import BadInput, Preempted
from roberta_core.model import RobertaForMaskedLM
from roberta_core.train import checkpoint, saver
from roberta_core.train.checkpoint import Checkpoints, clear_finished
from roberta_core.train.tensor_file import DTYPES, write_tensors
from tests.core.train.tiny_run import build


@contextmanager
def small_disk(most: int = 1000):
    """No file may grow past `most` bytes: writing fails as on a full disk, by another number of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_is_what_the_library_writes(tmp_path):
    torch.manual_seed(0)
    tensors = {f"b{number}": (torch.randn(3, 5) * 9).to(dtype) for number, dtype in enumerate(DTYPES)}
    tensors |= {"a": torch.randn(2, 3), "scalar": torch.tensor(7.0), "empty": torch.zeros(0, 4)}
    digest = write_tensors(tmp_path / "ours", tensors)
    assert digest == digest_of(tmp_path / "ours")
    read = load_file(tmp_path / "ours")
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in tensors)
    floats = {name: tensor for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    write_tensors(tmp_path / "ours", floats)
    save_file(floats, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_training_goes_on_while_a_checkpoint_is_written_and_the_next_one_waits(tmp_path, monkeypatch):
    training = build(tmp_path, steps=8, checkpoint_s=1e9)
    go_on, written = threading.Event(), []

    def slow(file, tensors):
        assert go_on.wait(60)
        written.append(threading.current_thread())
        return write_tensors(file, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    training.saver.save(1, {"history": {}})
    before = {name: tensor.clone() for name, tensor in training.model.saved_weights()}
    training.update(1e-2)  # changes the weights, not the copy that is being written
    assert not written
    waiting = threading.Thread(target=training.saver.save, args=(2, {"history": {}}))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive(), "two saves were in flight"
    go_on.set()
    waiting.join(60)
    training.saver.wait()
    assert names(tmp_path / "work") == ["step-000000001", "step-000000002"]
    assert all(thread is not threading.main_thread() for thread in written)
    first, second = (load_file(tmp_path / "work" / name / "model.safetensors") for name in names(tmp_path / "work"))
    assert all(torch.equal(first[name], before[name]) for name in before)
    assert all(torch.equal(second[name], now) for name, now in training.model.saved_weights())
    assert not torch.equal(first["lm_head.dense.weight"], second["lm_head.dense.weight"])


def test_a_full_disk_is_told_and_loses_nothing_older(tmp_path, capfd):
    whole = build(tmp_path / "whole", steps=8, checkpoint_s=1e9)
    whole.train()
    limit = small_disk()

    def stop() -> bool:  # asked once an update: the disk is full from the fifth on
        if training.step == 4:
            training.saver.wait()
            limit.__enter__()
        return False

    training = build(tmp_path / "full", steps=8, should_stop=stop)
    try:
        training.train()  # it ends well: no checkpoint is worth more than the run
    finally:
        limit.__exit__(None, None, None)
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 4 and said[0] == (
        "pretrain: the checkpoint of update 5 could not be written (File too large); "
        "the checkpoint of update 4 stays, and training goes on. Make room, or mend the permissions."
    )
    assert names(tmp_path / "full" / "work") == ["step-000000003", "step-000000004"]
    resumed = build(tmp_path / "full", steps=8)
    assert resumed.step == 4
    resumed.train()
    for one, other in zip(whole.weights().values(), resumed.weights().values()):
        assert torch.equal(one, other)


def test_a_stop_without_room_says_where_the_next_run_goes_on(tmp_path, capfd):
    training = build(tmp_path, steps=8, checkpoint_s=1e9, should_stop=lambda: training.step == 2)
    with small_disk(), pytest.raises(Preempted, match="update 3, whose checkpoint could not be written") as told:
        training.train()
    assert told.value.exit_code == 75
    assert "there is none older" in capfd.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path, capfd, monkeypatch):
    """The tests may run as root, whom no permission stops: so the system's answer is made here."""

    def refused(*args):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(checkpoint, "write_tensors", refused)
    training = build(tmp_path, steps=3, checkpoint_s=1e9)
    training.train()
    assert "update 3 could not be written (Read-only file system)" in capfd.readouterr().err
    assert names(tmp_path / "work") == []


def test_milestones_are_whole_models_and_stay(tmp_path):
    training = build(tmp_path, steps=9, milestone_steps=4)
    (tmp_path / "tokenizer.json").write_text("{}")
    training.checkpoints.milestones, training.checkpoints.tokenizer = tmp_path / "kept", [tmp_path / "tokenizer.json"]
    training.train()
    training.checkpoints.finish()
    assert names(tmp_path / "kept") == ["step-000000004", "step-000000008"]
    assert names(tmp_path / "kept" / "step-000000004") == ["config.json", "model.safetensors", "tokenizer.json"]
    RobertaForMaskedLM.from_pretrained(tmp_path / "kept" / "step-000000008")
    assert names(tmp_path / "work") == ["finished", "step-000000009"]


def test_the_average_is_the_mean_of_the_last_evaluations_and_survives_a_stop(tmp_path):
    points = {}
    whole = build(tmp_path / "whole", steps=25, average_last=2, checkpoint_s=1e9)  # evaluated after 10, 20 and 25
    whole.on_point = lambda step, numbers: points.setdefault(
        step, {name: tensor.clone() for name, tensor in whole.model.saved_weights()}
    )
    scored = whole.train()
    assert names(tmp_path / "whole" / "work" / "average") == ["step-000000020", "step-000000025"]
    for name, mean in whole.weights().items():
        torch.testing.assert_close(mean, (points[20][name] + points[25][name]) / 2)
    assert scored.loss == whole.held_out.score(whole.model, whole.run.device, "fp32").loss
    assert scored.loss != whole.history.validation[-1]["loss"]

    stopped = build(tmp_path / "killed", steps=25, average_last=2, should_stop=lambda: stopped.step == 21)
    with pytest.raises(Preempted):
        stopped.train()
    again = build(tmp_path / "killed", steps=25, average_last=2)
    assert again.train() == scored
    assert build(tmp_path / "killed", steps=25, average_last=2).train() == scored  # a repeat of a run that is done
    for one, other in zip(whole.weights().values(), again.weights().values()):
        assert torch.equal(one, other)
    (tmp_path / "killed" / "work" / "average" / "step-000000020" / "model.safetensors").write_bytes(b"spoilt")
    with pytest.raises(BadInput, match="The weights of update 20, which the average needs"):
        build(tmp_path / "killed", steps=25, average_last=2).train()


def test_a_point_of_the_average_that_cannot_be_written_ends_the_run(tmp_path):
    training = build(tmp_path, steps=12, average_last=1, checkpoint_s=1e9)
    with small_disk(), pytest.raises(BadInput, match=r"average_last needs could not be written \(File"):
        training.train()
    assert names(tmp_path / "work") == ["average"] and names(tmp_path / "work" / "average") == []


def test_checkpoints_that_cost_too_much_come_less_often(tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 10))  # each look at the clock is ten seconds later
    monkeypatch.setattr(saver, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    training = build(tmp_path, steps=1)
    training.saver.save(1, {"history": {}})
    training.saver.wait()
    assert training.saver.cost_s == 20  # from the start of the copy to the end of the writing
    assert training.saver.due(0, 0) and not training.saver.due(0, 0.02) and not training.saver.due(1e9, 0)
    next(each for each in clock if each > 20 / 0.02)
    assert training.saver.due(0, 0.02)


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    left = tmp_path / "work" / ".step-000000001.tmp"
    left.mkdir(parents=True)
    build(tmp_path, steps=2).train()
    assert names(tmp_path / "work") == ["step-000000001", "step-000000002"]


def test_finished_runs_go_when_another_starts_and_unfinished_ones_stay(tmp_path):
    for name in ("done", "open", "now"):
        (tmp_path / name / "step-000000001").mkdir(parents=True)
    for name in ("done", "now"):
        Checkpoints(tmp_path / name, name, 1).finish()
    clear_finished(tmp_path, "now")
    assert names(tmp_path) == ["now", "open"]
    assert names(tmp_path / "now") == ["finished", "step-000000001"]
