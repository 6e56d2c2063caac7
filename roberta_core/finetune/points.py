"""The fine-tunings of one task: a grid of settings, each with every seed, each done once.

Of a setting the median seed counts, of the settings the one whose median is highest; the model kept is that very one. What is
done stands on the disk, outside the stage's outputs, under a fingerprint of all that decides it: a killed stage goes on
with the next point, and one that takes long goes on within (`roberta_core.finetune.state`). Price: the weights of one
setting's seeds and of the best setting so far; of all others only the scores stay.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from roberta_core.atomic import atomic_dir, read_json, write_json
from roberta_core.finetune.recipe import Recipe
from roberta_core.finetune.state import Keeper
from roberta_core.train.checkpoint import Checkpoints, clear_finished

RESULT, OUTPUTS, MODEL = "result.json", "outputs.npz", "model"


@dataclass(frozen=True)
class Setting:
    """A point of the grid."""

    peak_lr: float
    batch_size: int

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with this setting's values."""
        return replace(recipe, peak_lr=self.peak_lr, batch_size=self.batch_size)

    @property
    def name(self) -> str:
        """`1e-05-32`."""
        return f"{self.peak_lr:g}-{self.batch_size}"


def median_seed(scores: dict[int, float]) -> int:
    """The seed with the median score, the lower of two middle ones; of equal ones the first."""
    return sorted(scores, key=scores.__getitem__)[(len(scores) - 1) // 2]


@dataclass
class Found:
    """What `Points.search` found.

    Attributes:
        setting: the best one.
        seed: its median seed, whose model is the result.
        results: of every setting, in the grid's order, and every seed: what `train` returned of it.
        folder: of the model kept, as its `save_pretrained` wrote it.
        outputs: of the model kept: by name, one array a row.
    """

    setting: Setting
    seed: int
    results: dict[Setting, dict[int, dict]]
    folder: Path
    outputs: dict[str, list[np.ndarray]]


class Points:
    """The points of one task.

    Args:
        runs: where the points of this task lie.
        run_fingerprint: over all that decides the results, beside setting and seed.
        every_s: seconds between two states of a point that takes long.
    """

    def __init__(self, runs: Path, run_fingerprint: str, every_s: float):
        self.folder, self.fingerprint, self.every_s = Path(runs) / run_fingerprint, run_fingerprint, every_s
        clear_finished(Path(runs), run_fingerprint)

    def search(
        self,
        settings: Sequence[Setting],
        seeds: Sequence[int],
        train: Callable[[Setting, int, Keeper], tuple[torch.nn.Module, dict, dict[str, list[np.ndarray]]]],
        score: Callable[[dict], float],
        on_done: Callable[[Setting, int, dict], None] = lambda setting, seed, result: None,
    ) -> Found:
        """Does what is not done yet.

        Args:
            train: fine-tunes a point, and gives the model, its result (JSON) and its outputs on dev by name.
            score: of a result, higher is better.
            on_done: called for every point, with those that were done before.
        """
        results: dict[Setting, dict[int, dict]] = {}
        best: tuple[float, Setting, int] | None = None
        for setting in settings:
            results[setting] = {}
            for seed in seeds:
                folder = self._of(setting, seed)
                if not folder.exists():
                    self._train(folder, setting, seed, train)
                results[setting][seed] = read_json(folder / RESULT)
                on_done(setting, seed, results[setting][seed])
            scores = {seed: score(result) for seed, result in results[setting].items()}
            seed = median_seed(scores)
            if best is None or scores[seed] > best[0]:
                best = (scores[seed], setting, seed)
            for point in [(one, other) for one in results for other in seeds]:
                if point != best[1:]:
                    self._forget(*point)
        assert best is not None, "a grid has a setting"
        kept = self._of(*best[1:])
        return Found(best[1], best[2], results, kept / MODEL, _read_outputs(kept / OUTPUTS))

    def finish(self) -> None:
        """Notes that the task's output is written; what is here goes when the task is fine-tuned in another way."""
        (self.folder / "finished").touch()

    def _of(self, setting: Setting, seed: int) -> Path:
        return self.folder / f"{setting.name}-{seed}"

    def _train(self, folder: Path, setting: Setting, seed: int, train: Callable) -> None:
        states = self.folder / f"state-{setting.name}-{seed}"
        model, result, outputs = train(setting, seed, Keeper(Checkpoints(states, self.fingerprint, 1), self.every_s))
        with atomic_dir(folder) as made:
            model.save_pretrained(made / MODEL)
            _write_outputs(made / OUTPUTS, outputs)
            write_json(made / RESULT, result)
        shutil.rmtree(states, ignore_errors=True)

    def _forget(self, setting: Setting, seed: int) -> None:
        """Keeps the result alone."""
        shutil.rmtree(self._of(setting, seed) / MODEL, ignore_errors=True)
        (self._of(setting, seed) / OUTPUTS).unlink(missing_ok=True)


def _write_outputs(file: Path, outputs: dict[str, list[np.ndarray]]) -> None:
    """Arrays of one number of axes and any shape, as flat values and shapes: no pickle."""
    flat = {}
    for name, rows in outputs.items():
        flat[f"values/{name}"] = np.concatenate([row.reshape(-1) for row in rows])
        flat[f"shapes/{name}"] = np.array([row.shape for row in rows])
    np.savez(file, **flat)


def _read_outputs(file: Path) -> dict[str, list[np.ndarray]]:
    result = {}
    with np.load(file) as flat:
        for key in flat.files:
            kind, _, name = key.partition("/")
            if kind == "values":
                shapes = flat[f"shapes/{name}"]
                cuts = np.cumsum(shapes.prod(axis=1))[:-1]
                parts = np.split(flat[key], cuts)
                result[name] = [part.reshape(shape) for part, shape in zip(parts, shapes)]
    return result
