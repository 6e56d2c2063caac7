"""What a user can get wrong, at the doors where it comes in: one line with the mend, and nothing half-written."""

import copy
import errno
import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import SafetensorError

from roberta_core.errors import BadInput, BadParams
from roberta_core.lock import held_lock
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.model.folder import read_config
from roberta_core.own.served import check_texts
from roberta_core.train.checkpoint import Checkpoints
from tasks import taskdata
from tasks.params_file import load_params
from tasks.stage import main

ROOT = Path(__file__).parents[2]
SMOKE = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text(encoding="utf8"))
OWN = {"kind": "classification", "path": "own.csv"}
GONE = object()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_params(changes: dict) -> None:
    """The smoke preset with some keys changed; `GONE` takes a key out."""
    values = copy.deepcopy(SMOKE)
    for key, value in changes.items():
        *path, last = key.split(".")
        at = values
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
        if value is GONE:
            del at[last]
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf8")


def told() -> str:
    """The line that a stage would print for params.yaml."""
    with pytest.raises(BadParams) as caught:
        load_params()
    line = str(caught.value)
    assert "\n" not in line
    assert "params.yaml" in line
    return line


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("seed", None, "seed takes a whole number, got nothing"),
        ("seed", 2**64, "seed: should be less than"),
        ("clean", None, "clean takes keys of its own, below it, got nothing"),
        ("clean.min_char", 3, "unknown key clean.min_char; did you mean min_chars?"),
        ("clean.min_mean_word_chars", float("nan"), "takes a finite number, got nan"),
        ("dedup.near", "maybe", "dedup.near takes true or false, got 'maybe'"),
        ("shard.shard_mb", float("inf"), "shard.shard_mb takes a finite number"),
        ("tokenizer.vocab_size", 1.5, "tokenizer.vocab_size takes a whole number, got 1.5"),
        ("pack.mode", "full", "or 'best-fit', got 'full'"),
        ("pretrain.optimiser", "adam", "unknown key pretrain.optimiser"),
        ("corpus.sources", {}, "corpus.sources takes one entry at least"),
        ("corpus.sources", {"My notes": {"kind": "files", "path": "x"}}, "the name 'My notes' has other characters"),
        ("corpus.sources.python-docs.path", "", "path takes text that is not empty"),
        ("glue.tasks", "CoLA", "glue.tasks takes a list, got 'CoLA'"),
        ("glue.tasks", ["CoLA", "CoLA"], "glue.tasks: it has CoLA twice"),
        ("glue.seeds", [1, 2, 1], "glue.seeds: it has 1 twice"),
        ("glue.path", "", "glue.path takes text that is not empty"),
        ("registry.encoder", "a/b", "registry.encoder takes letters, digits"),
        ("finetune.tasks", {"x" * 65: OWN}, "finetune.tasks: a name has 65 characters, 64 at most"),
        ("finetune.tasks", {"t": OWN | {"text": 3}}, "params.yaml: finetune.tasks.t.text takes text, got 3. Mend"),
        ("finetune.tasks", {"t": OWN | {"options": {"keepbest": 1}}}, "options.keepbest; did you mean keep_best?"),
        (
            "glue.options",
            {"class_weights": [1, 0]},
            "yaml: glue.options.class_weights.1: should be greater than 0, got 0. M",
        ),
        ("glue.options", {"class_weights": "flat"}, "class_weights: should be 'none' or 'balanced', got 'flat'. Mend"),
        ("runtime.device", "gpu", "should be 'auto', 'cpu' or 'cuda', got 'gpu'"),
    ],
)
def test_a_wrong_value_names_the_key_and_what_it_takes(key, value, words):
    write_params({key: value})
    assert words in told()


@pytest.mark.parametrize(
    "text, words",
    [
        (b"a:\n\tb: 1", "line 2: found character '\\t'"),
        (b"corpus: [1", "line 1: expected ',' or ']'"),
        (b"pack:\n  max_length: 1\n  max_length: 2", "line 3: the key max_length stands there twice"),
        (b"seed: 1\nseed: 2", "line 2: the key seed stands there twice"),
        (b"a: 1\n---\nb: 2", "line 2: but found another document"),
        (b"a: \x00", "is not valid YAML"),
        (b"a: \xff", "is not UTF-8 (byte 3)"),
        (b"", "holds no sections"),
    ],
)
def test_broken_yaml_names_the_line(text, words):
    Path("params.yaml").write_bytes(text)
    assert words in told()


def test_a_folder_in_the_place_of_params_is_one_line_too():
    Path("params.yaml").mkdir()
    assert "cannot be read: Is a directory" in told()


@pytest.mark.parametrize("key", ["seed", "clean", "pack", "glue.dropout", "glue.path"])
def test_a_key_that_dvc_watches_and_the_file_leaves_out_is_named_before_dvc_stops_at_it(key):
    write_params({key: GONE})
    load_params()  # every one of them has a default
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    assert f"leaves out {key}, which DVC watches" in told()
    write_params({})
    load_params()


def stopped_run(folder: Path) -> Checkpoints:
    """Two checkpoints of a tiny model."""
    kept = Checkpoints(folder, "f" * 16, keep=2)
    model = RobertaForMaskedLM(RobertaConfig.named("tiny", 300, 16, 0.1), 1)
    config, weights = model.config.to_hugging_face(model.architecture), dict(model.saved_weights())
    for step in (1, 2):
        kept.save(step, config, weights, {"m": torch.full((4,), float(step))}, {"history": {}})
    return kept


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: flip(folder / "model.safetensors"),
        lambda folder: flip(folder / "training/optimizer.safetensors"),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "training/state.json").write_text("{}"),
        lambda folder: (folder / "training/state.json").write_text("[]"),
        lambda folder: shutil.rmtree(folder / "training"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_good(here, spoil):
    """One flipped bit in the optimizer's state would go unseen, and a tensor of another shape ends the process."""
    kept = stopped_run(here)
    spoil(kept.latest())
    with pytest.raises(BadInput, match=r"step-000000002 is damaged \(.*Delete that folder to resume"):
        kept.load(kept.latest())
    shutil.rmtree(kept.latest())
    tensors, state = kept.load(kept.latest())
    assert state["step"] == 1 and tensors["m"].tolist() == [1.0] * 4


def stage_line(capsys, run, *arguments: str, stage: str = "pack") -> str:
    """What the frame prints for a stage that fails: one line, after an exit code that is not 0."""
    assert main(stage, run, list(arguments)) != 0
    printed = capsys.readouterr()
    assert "done" not in printed.out
    (line,) = printed.err.splitlines()
    return line


def fails(error: BaseException):
    def run(params):
        raise error

    return run


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device", "data/x"), "The disk is full (data/x). Free some space"),
        # as tokenizers and safetensors say it
        (Exception("No space left on device (os error 28)"), "The disk is full"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "The disk is full",
        ),
        (OSError("54000 requested and 1520 written"), "The disk is full"),  # as numpy says it
        (OSError(errno.EROFS, "x", "data/x"), "data/x cannot be read or written (Read-only file system)"),
        (FileExistsError(errno.EEXIST, "x", "data"), "data is in the way (File exists). Move it"),
        (BrokenProcessPool("x"), "A worker process was killed, most often for lack of memory"),
        (MemoryError(), "The memory does not suffice. Lower runtime.micro_batch"),
        (torch.OutOfMemoryError("CUDA"), "The memory does not suffice"),
    ],
)
def test_what_the_machine_lacks_is_one_line(capsys, error, words):
    write_params({})
    assert words in stage_line(capsys, fails(error))
    assert not Path("metrics").exists()


def test_wrong_arguments_are_told_with_the_right_ones(capsys):
    write_params({})
    assert "0 arguments were given, 1 wanted. Use: python -m tasks.download <source>" in stage_line(
        capsys, lambda params, source: {}, stage="download"
    )
    assert "1 arguments were given, 0 wanted. Use: python -m tasks.pack" in stage_line(capsys, lambda params: {}, "x")


def test_a_second_process_of_a_stage_is_told_to_wait(capsys):
    write_params({})
    with held_lock(Path(".work/stages/pack.lock"), ""):
        line = stage_line(capsys, lambda params: {})
    assert f"Another pack is going on here (process {os.getpid()})" in line
    assert main("pack", lambda params: {}, []) == 0


@pytest.mark.parametrize("text", ["[]", "{", '"x"', ""])
def test_a_models_config_that_is_none_is_one_line(here, text):
    (here / "config.json").write_text(text)
    with pytest.raises(BadInput, match=r"config\.json is not a JSON object. Export the model again."):
        read_config(here)


def test_a_text_that_is_not_utf8_is_shown():
    """As Python holds it when it comes from the command line."""
    with pytest.raises(BadInput, match=r"The text 'caf\\udce9' is not UTF-8"):
        check_texts(["good", os.fsdecode(b"caf\xe9")])
    assert check_texts(["\U0001f600 \u05e9\u05dc\u05d5\u05dd"])


def test_a_local_task_with_a_missing_column_names_the_users_own_file(here):
    folder = here / "mine" / "SST-2"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text("sentence\tlabel\ngood\t1\nbad\t0\n")
    (folder / "dev.tsv").write_text("sentence\tlabels\ngood\t1\n")
    write_params({"glue.data": "local", "glue.path": "mine", "glue.tasks": ["SST-2"]})
    with pytest.raises(
        BadInput, match=r"mine/SST-2/dev.tsv, line 1: the column label is missing \(found: sentence, labels\)"
    ):
        taskdata.run(load_params())
    assert not list(Path("data").iterdir())
    (folder / "dev.tsv").write_text("sentence\tlabel\ngood\t1\n")
    assert taskdata.run(load_params()) == {"SST-2.train": 2, "SST-2.dev": 1}
