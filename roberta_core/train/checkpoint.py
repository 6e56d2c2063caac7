"""Checkpoints that resume exactly: a Hugging Face folder plus `training/`, written beside and renamed.

A run's checkpoints lie under a folder named after its fingerprint, the hash of everything that decides its outcome. A
run with other parameters, data or tokenizer has another fingerprint, so states can never mix; each checkpoint also
carries it inside, with the hashes of its files, so that a damaged one is refused before any of it is used (the price: about
a second a gigabyte). State is JSON and safetensors: nothing that is loaded can run code.
"""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from roberta_core.atomic import atomic_dir, digest_of, read_json, write_json
from roberta_core.errors import BadInput


def fingerprint(**parts: object) -> str:
    """16 hex digits over `parts` (JSON values): parameters, data and tokenizer hashes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


HASHED = ("config.json", "model.safetensors", "training/optimizer.safetensors")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: of this run.
        run_fingerprint: what must match to resume.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, run_fingerprint: str, keep: int):
        self.folder, self.fingerprint, self.keep = Path(folder), run_fingerprint, keep

    def _steps(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def save(self, step: int, model: torch.nn.Module, optimizer: dict[str, torch.Tensor], state: dict) -> None:
        """Writes `step-<number>/` and drops the oldest beyond `keep`. `state` is JSON."""
        with atomic_dir(self.folder / f"step-{step:09d}") as folder:
            model.save_pretrained(folder)
            (folder / "training").mkdir()
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in optimizer.items()}
            save_file(plain, folder / "training" / "optimizer.safetensors")
            known = {"fingerprint": self.fingerprint, "sha256": {name: digest_of(folder / name) for name in HASHED}}
            write_json(folder / "training" / "state.json", {**known, "step": step, **state})
        for old in self._steps()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Path | None:
        """The newest checkpoint, or None."""
        steps = self._steps()
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
            tensors = load_file(folder / "training" / "optimizer.safetensors")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            why = f"{error.filename} is missing" if isinstance(error, FileNotFoundError) else error
            raise BadInput(
                f"The checkpoint {folder} is damaged ({why}).", "Delete that folder to resume from the one before."
            ) from None
        if found != self.fingerprint:
            raise BadInput(f"The checkpoint {folder} is of another model, data or tokenizer.", "Delete that folder.")
        return tensors, state
