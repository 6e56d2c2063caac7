"""What a run has shown so far: curves that a resumed run continues, and draws bit for bit as an undisturbed one."""

from dataclasses import dataclass, field
from pathlib import Path

from roberta_core.atomic import atomic_file


@dataclass
class History:
    """Saved in checkpoints.

    Attributes:
        train, validation: points of the curves; nothing in them depends on speed.
        tokens: seen, padding not counted.
        slots: seen, padding counted.
        loss_sum: of the accepted updates since the last point of the curve.
        accepted: updates that were accepted by then.
        guard: of `train.guard`, as of the last checkpoint.
        used_s: seconds of the run's time that are used up; only runs with a time budget go by it.
    """

    train: list[dict]
    validation: list[dict]
    tokens: int = 0
    slots: int = 0
    loss_sum: float = 0.0
    accepted: int = 0
    guard: dict = field(default_factory=dict)
    used_s: float = 0.0


def write_curve(points: list[dict], file: Path) -> None:
    """Writes points of a curve as CSV, for `dvc plots`."""
    with atomic_file(file) as handle:
        columns = list(points[0])
        handle.write(",".join(columns) + "\n")
        for point in points:
            cells = (f"{point[name]:.9g}" if isinstance(point[name], float) else str(point[name]) for name in columns)
            handle.write(",".join(cells) + "\n")
