"""What all saved models share when they are put to use: how a folder is opened, what task.json says, which texts are taken."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from roberta_core.atomic import read_json
from roberta_core.device import pick_device
from roberta_core.errors import BadInput
from roberta_core.finetune.objectives import Objective
from roberta_core.finetune.predicting import predict
from roberta_core.finetune.rows import Rows
from roberta_core.model.folder import tokenizer_of
from roberta_core.model.heads import Saved
from roberta_core.own.reading import unwritable

TASK_FILE = "task.json"


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        BadInput: one is no text, or no UTF-8.
    """
    wrong = next((each for each in texts if not isinstance(each, str)), None)
    if wrong is not None:
        raise BadInput(f"A text is wanted, got {type(wrong).__name__} {wrong!r:.40}.", "Give a list of strings.")
    # how Python holds bytes of the command line that are not UTF-8
    broken = next(filter(unwritable, texts), None)
    if broken is not None:
        raise BadInput(f"The text {broken!r:.60} is not UTF-8.", "Give it as UTF-8.")
    return list(texts)


def read_task(folder: Path | str) -> dict:
    """What `task.json` says of a model; empty without one.

    Raises:
        BadInput: the file is damaged.
    """
    file = Path(folder) / TASK_FILE
    if not file.is_file():
        return {}
    try:
        found = read_json(file)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadInput(f"{file} is not a JSON object.", "Fine-tune the task again.")
    return found


class Served:
    """A model in a Hugging Face folder, and its tokenizer.

    Args:
        folder: of a RoBERTa or BERT of the kind that the subclass names.
        device: as in `pick_device`.

    Raises:
        BadInput: the folder is no such model.

    Attributes:
        kind: what it is called.
        samples: what a version predicts on before it is registered.
        opens: the model's class.
        plain_text: whether `<mask>` in a text is text, as it was to the fine-tuning; an encoder fills it.
        max_length: tokens of a row.
    """

    kind: str
    samples: Sequence[Any]
    opens: type[Saved]
    plain_text = True

    def __init__(self, folder: Path | str, device: str = "auto"):
        self.model = self.opens.from_pretrained(folder).to(pick_device(device))
        self.config, self.task = self.model.config, read_task(folder)
        self.tokenizer = tokenizer_of(Path(folder), self.config, self.plain_text)
        self.max_length = min(self.task.get("max_length", self.config.max_length), self.config.max_length)

    def outputs(self, objective: Objective, rows: Rows) -> list[np.ndarray]:
        """What the objective makes of rows, in their order."""
        return predict(objective, self.model, rows)


class Windowed(Served):
    """A model that reads long texts in windows.

    Attributes:
        stride: tokens that two windows share.
    """

    def __init__(self, folder: Path | str, device: str = "auto"):
        super().__init__(folder, device)
        self.stride = min(self.task.get("stride", self.max_length // 3), self.max_length // 2)
