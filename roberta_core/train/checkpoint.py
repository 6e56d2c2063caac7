"""Checkpoints that resume exactly: a Hugging Face folder plus `training/`, written beside and renamed.

A run's checkpoints lie under a folder named after its fingerprint, the hash of everything that decides its outcome. A
run with other parameters, data or tokenizer has another fingerprint, so states can never mix; each checkpoint also
carries it inside, with the hashes of its files, so that a damaged one is refused before any of it is used (the price: about
a second a gigabyte). State is JSON and safetensors: nothing that is loaded can run code.

    <fingerprint>/step-000001200/     config.json, model.safetensors, tokenizer, training/: the newest few
    <fingerprint>/average/step-…/     weights alone: the newest few points that the result is the mean of
    <fingerprint>/finished            the run has written its output; see `clear_finished`

Milestones are models, not states to resume from (a third of the size): plain Hugging Face folders, kept for good,
beside the encoder and outside this folder.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from roberta_core.atomic import atomic_dir, digest_of, read_json, write_json
from roberta_core.errors import BadInput
from roberta_core.train.tensor_file import write_tensors

OPTIMIZER = "training/optimizer.safetensors"
HASHED = ("config.json", "model.safetensors", OPTIMIZER)


def fingerprint(**parts: object) -> str:
    """16 hex digits over `parts` (JSON values): parameters, data and tokenizer hashes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def step_folder(step: int) -> str:
    """`step-000001200`: names in the order of updates."""
    return f"step-{step:09d}"


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _drop(folder: Path) -> None:
    """Removes a folder that a reader must never see in parts: first the name, then the files."""
    gone = folder.with_name(f".{folder.name}.old.tmp")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: of this run.
        run_fingerprint: what must match to resume.
        keep: how many of the newest stay.
        milestones: where models of milestones lie, one folder each; None: there are none.
        tokenizer: files that make a folder of weights a whole model; copied into each checkpoint and milestone.
    """

    def __init__(
        self,
        folder: Path,
        run_fingerprint: str,
        keep: int,
        milestones: Path | None = None,
        tokenizer: Sequence[Path] = (),
    ):
        self.folder, self.fingerprint, self.keep = Path(folder), run_fingerprint, keep
        self.milestones, self.tokenizer = milestones, tuple(tokenizer)

    def _write_model(self, folder: Path, config: dict, weights: Mapping[str, torch.Tensor]) -> dict[str, str]:
        write_json(folder / "config.json", config)
        for file in self.tokenizer:
            shutil.copyfile(file, folder / file.name)
        return {
            "config.json": digest_of(folder / "config.json"),
            "model.safetensors": write_tensors(folder / "model.safetensors", weights),
        }

    def save(
        self,
        step: int,
        config: dict,
        weights: Mapping[str, torch.Tensor],
        optimizer: Mapping[str, torch.Tensor],
        state: dict,
    ) -> None:
        """Writes `step-<number>/`, and then drops the oldest beyond `keep`.

        Args:
            step: updates done.
            config: what `config.json` holds.
            weights, optimizer: whole tensors on the CPU.
            state: JSON.

        Raises:
            OSError: it could not be written; the older ones are as they were.
        """
        with atomic_dir(self.folder / step_folder(step)) as folder:
            (folder / "training").mkdir()
            hashes = self._write_model(folder, config, weights)
            hashes[OPTIMIZER] = write_tensors(folder / OPTIMIZER, optimizer)
            known = {"fingerprint": self.fingerprint, "sha256": {name: hashes[name] for name in HASHED}}
            write_json(folder / "training" / "state.json", {**known, "step": step, **state})
        self._prune(self.folder, self.keep)

    def save_milestone(self, step: int, config: dict, weights: Mapping[str, torch.Tensor]) -> None:
        """Writes the model of update `step` to be kept for good. Raises OSError."""
        assert self.milestones is not None
        with atomic_dir(self.milestones / step_folder(step)) as folder:
            self._write_model(folder, config, weights)

    def save_point(self, step: int, weights: Mapping[str, torch.Tensor], keep: int) -> None:
        """Writes weights for `average`, and drops all but the newest `keep`. Raises OSError."""
        with atomic_dir(self.folder / "average" / step_folder(step)) as folder:
            digest = write_tensors(folder / "model.safetensors", weights)
            write_json(folder / "state.json", {"sha256": digest})
        self._prune(self.folder / "average", keep)

    def average(self, steps: Sequence[int]) -> dict[str, torch.Tensor]:
        """The mean of the weights that `save_point` wrote at `steps`, summed in float64 in their order.

        Raises:
            BadInput: one of them is missing or damaged.
        """
        total: dict[str, torch.Tensor] = {}
        for step in steps:
            folder = self.folder / "average" / step_folder(step)
            try:
                if digest_of(folder / "model.safetensors") != read_json(folder / "state.json")["sha256"]:
                    raise ValueError("model.safetensors is not what was saved")
                weights = load_file(folder / "model.safetensors")
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                raise BadInput(
                    f"The weights of update {step}, which the average needs, cannot be read ({error}).",
                    f"Delete {self.folder} to train again.",
                ) from None
            for name, tensor in weights.items():
                total[name] = tensor.double() if name not in total else total[name].add_(tensor)
        return {name: tensor.div_(len(steps)).float() for name, tensor in total.items()}

    def _prune(self, folder: Path, keep: int) -> None:
        """Keeps the newest `keep`, and clears what killed writers left."""
        for old in _steps(folder)[:-keep]:
            _drop(old)
        for left in folder.glob(".step-*.tmp"):
            shutil.rmtree(left, ignore_errors=True)

    def latest(self) -> Path | None:
        """The newest checkpoint, or None."""
        steps = _steps(self.folder)
        return steps[-1] if steps else None

    def load(self, folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
        """Optimizer tensors and the state of a checkpoint.

        Raises:
            BadInput: it is damaged, or of another run.
        """
        try:
            state = read_json(folder / "training" / "state.json")
            found, hashes = state["fingerprint"], state["sha256"]
            for name in HASHED:
                if digest_of(folder / name) != hashes[name]:
                    raise ValueError(f"{name} is not what was saved")
            tensors = load_file(folder / OPTIMIZER)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            why = f"{error.filename} is missing" if isinstance(error, FileNotFoundError) else error
            raise BadInput(
                f"The checkpoint {folder} is damaged ({why}).", "Delete that folder to resume from the one before."
            ) from None
        if found != self.fingerprint:
            raise BadInput(f"The checkpoint {folder} is of another model, data or tokenizer.", "Delete that folder.")
        return tensors, state

    def finish(self) -> None:
        """Notes that the run's output is written. The newest checkpoint stays: see `clear_finished`."""
        self._prune(self.folder, 1)
        (self.folder / "finished").touch()


def clear_finished(runs: Path, current: str) -> None:
    """Removes the checkpoints of finished runs other than `current` under `runs`; unfinished ones stay.

    A finished run keeps its last checkpoint until a run with another fingerprint starts: who calls may still fail to
    record the output (DVC hashing on a full disk), and the repeat then takes seconds instead of the whole training.
    """
    for marker in sorted(runs.glob("*/finished")):
        if marker.parent.name != current:
            shutil.rmtree(marker.parent, ignore_errors=True)
