"""What the GLUE leaderboard takes: a zip of eleven flat tab-separated files, `index` and `prediction`, no more and no less.

The names, the numbers of rows and the spelling of labels are the leaderboard's; a zip that lacks a file or a row is refused
there after the upload, or scored as 0. So nothing is written here before all of it is whole. The same predictions
give the same bytes: a zip's own dates are fixed.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roberta_core.atomic import atomic_file
from roberta_core.errors import BadInput
from roberta_core.glue.tasks import SCORE_MAX, TASKS

MOST_NAMED = 5
"""Things that are not whole are named one by one up to here; after that they are counted."""


@dataclass(frozen=True)
class SubmissionFile:
    """One file of the zip.

    Attributes:
        name: without `.tsv`.
        task: whose test rows it answers.
        source: the test file that holds these rows, in the task's folder.
        rows: how many the leaderboard expects, without the header.
    """

    name: str
    task: str
    source: str
    rows: int

    @property
    def model(self) -> str:
        """The task whose model answers: MNLI's for the diagnostic."""
        return TASKS[self.task].predicted_by or self.task


FILES = (
    SubmissionFile("AX", "AX", "diagnostic.tsv", 1_104),
    SubmissionFile("CoLA", "CoLA", "test.tsv", 1_063),
    SubmissionFile("MNLI-m", "MNLI", "test_matched.tsv", 9_796),
    SubmissionFile("MNLI-mm", "MNLI", "test_mismatched.tsv", 9_847),
    SubmissionFile("MRPC", "MRPC", "test.tsv", 1_725),
    SubmissionFile("QNLI", "QNLI", "test.tsv", 5_463),
    SubmissionFile("QQP", "QQP", "test.tsv", 390_965),
    SubmissionFile("RTE", "RTE", "test.tsv", 3_000),
    SubmissionFile("SST-2", "SST-2", "test.tsv", 1_821),
    SubmissionFile("STS-B", "STS-B", "test.tsv", 1_379),
    SubmissionFile("WNLI", "WNLI", "test.tsv", 146),
)
"""The eleven files, and the rows of the official test files that gluebenchmark.com hands out."""


def lines_of(file: SubmissionFile, predictions: Sequence[float]) -> str:
    """The content of one file: labels as the task's own files write them, scores clipped to 0 to 5, with three digits."""
    values = TASKS[file.task].values
    shown = [values[int(each)] if values else f"{min(max(each, 0.0), SCORE_MAX):.3f}" for each in predictions]
    return "index\tprediction\n" + "".join(f"{index}\t{text}\n" for index, text in enumerate(shown))


def faults(predictions: Mapping[str, Sequence[float]], files: Sequence[SubmissionFile] = FILES) -> list[str]:
    """What a submission lacks, one line each; empty where it is whole."""
    found = []
    for file in files:
        if file.name not in predictions:
            found.append(f"{file.name} is missing")
        elif len(predictions[file.name]) != file.rows:
            found.append(f"{file.name} has {len(predictions[file.name]):,} rows instead of {file.rows:,}")
        elif not np.isfinite(predictions[file.name]).all():
            found.append(f"{file.name} holds a value that is no number")
    return found + [
        f"{name} is no file of a submission" for name in predictions if name not in {f.name for f in files}
    ]


def refuse(found: Sequence[str], mend: str) -> None:
    """Raises what is not whole as one line; does nothing where `found` is empty.

    Raises:
        BadInput: something was found.
    """
    if found:
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise BadInput(f"The submission is not whole: {'; '.join(found[:MOST_NAMED])}{more}.", mend)


def write_zip(path: Path, predictions: Mapping[str, Sequence[float]], files: Sequence[SubmissionFile] = FILES) -> None:
    """Writes the zip, or nothing.

    Args:
        predictions: by the file's name: ids of labels, or scores of STS-B, one a row, in the order of the test file.

    Raises:
        BadInput: a file is missing, or has another number of rows than the leaderboard expects.
    """
    refuse(faults(predictions, files), "Predict every row of the official test files.")
    with atomic_file(path, "wb") as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(f"{file.name}.tsv", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, lines_of(file, predictions[file.name]))
