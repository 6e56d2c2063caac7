"""A model folder put to use: vectors and fills from an encoder, labels from a classifier, entities, answers.

The folder alone decides what it is (`architectures` in its config.json); nothing but torch and tokenizers is needed, so
the command line, the registry's served models and a script of three lines share this file. Arithmetic is float32 on
the CPU or GPU that `pick_device` finds; texts longer than the model's positions are cut.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from roberta_core.data.tokenizer import specials_of
from roberta_core.errors import BadInput
from roberta_core.finetune import Classification, Objective, Regression, tokenise
from roberta_core.finetune.rows import pad_rows
from roberta_core.glue.tasks import SCORE_MAX
from roberta_core.model import RobertaForMaskedLM, RobertaForSequenceClassification
from roberta_core.own.labels import THRESHOLD, MultiLabel
from roberta_core.own.models import AnswererModel, TaggerModel
from roberta_core.own.served import Served, check_texts

BATCH_TEXTS = 32

SAMPLES = ("The function returns a list of strings.", "This is one text,\tand this is the other one.", "Short.")
"""What a version predicts on before it is registered: one text, a pair, and padding in the batch."""


class EncoderModel(Served):
    """A masked-language model: vectors for texts, and words for gaps."""

    kind = "encoder"
    samples = SAMPLES
    opens = RobertaForMaskedLM
    plain_text = False

    def __init__(self, folder: Path | str, device: str = "auto"):
        super().__init__(folder, device)
        self.mask = specials_of(self.tokenizer).mask  # <mask>, or BERT's [MASK]
        self.tokenizer.enable_truncation(self.config.max_length)

    def _batch(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
        ids = [each.ids for each in self.tokenizer.encode_batch(list(texts))]
        return pad_rows(ids, self.config.pad_token_id, next(self.model.parameters()).device)

    def predict(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text: the mean of the last layer's hidden states over its tokens, `<s>` and `</s>` included.

        Returns:
            [texts][hidden size] floats.
        """
        texts = check_texts(texts)
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH_TEXTS):
                ids, mask = self._batch(texts[start : start + BATCH_TEXTS])
                hidden = self.model.roberta(ids, mask)
                real = torch.ones_like(ids) if mask is None else mask.long()
                mean = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)
                vectors += mean.float().cpu().tolist()
        return vectors

    def fill(self, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
        """The `top` likeliest tokens with their probabilities, for each `<mask>` (BERT: `[MASK]`) in the text, in order.

        Raises:
            BadInput: the text has no mask within the model's length.
        """
        ids, _ = self._batch(check_texts([text]))
        gaps = (ids[0] == self.tokenizer.token_to_id(self.mask)).nonzero()[:, 0]
        if not len(gaps):
            raise BadInput(
                f"The text has no {self.mask} in its first {self.config.max_length} tokens.",
                f'Write one where a word shall come: "It is a {self.mask} day."',
            )
        with torch.inference_mode():
            best = self.model(ids, positions=gaps).float().softmax(-1).topk(top)
        return [
            [(self.tokenizer.decode([token]), value) for token, value in zip(tokens, values)]
            for tokens, values in zip(best.indices.tolist(), best.values.tolist())
        ]


class ClassifierModel(Served):
    """A sequence classifier or regressor. A text of two parts, for a task on pairs, has a tab between them."""

    kind = "classifier"
    samples = SAMPLES
    opens = RobertaForSequenceClassification

    def __init__(self, folder: Path | str, device: str = "auto"):
        super().__init__(folder, device)
        config, task = self.config, self.task
        self.texts = task.get("texts", 2)
        names = tuple(config.id2label.values())
        self.objective: Objective = Classification("", names)
        if config.problem_type == "regression":
            # STS-B's models say score / 5; those of a user's tasks say the number itself
            self.objective = Regression("", config.id2label[0], 1.0 if task else SCORE_MAX)
        elif config.problem_type == "multi_label_classification":
            self.objective = MultiLabel("", names)

    def predict(self, texts: Sequence[str]) -> list[dict[str, str | float]] | list[list[dict[str, str | float]]]:
        """For each text its likeliest `label` and the `score`: its probability, or for a regressor the value itself.

        Of a model with any number of labels a text, for each text the list of such, the likeliest first.
        """
        whole = check_texts(texts)
        parts = [tuple(text.split("\t")[:2]) if self.texts == 2 else (text,) for text in whole]
        if not parts:
            return []
        # rows of one part and of two are encoded apart
        outputs: list[np.ndarray | None] = [None] * len(parts)
        for width in (1, 2):
            chosen = [row for row, each in enumerate(parts) if len(each) == width]
            if chosen:
                pieces = [parts[row] for row in chosen]
                rows = tokenise(self.tokenizer, pieces, [], self.max_length, self.config.has_token_types)
                for row, output in zip(chosen, self.outputs(self.objective, rows)):
                    outputs[row] = output
        names = self.config.id2label
        if isinstance(self.objective, MultiLabel):
            return [
                [
                    {"label": names[int(at)], "score": float(each[at])}
                    for at in np.argsort(-each, kind="stable")
                    if each[at] > THRESHOLD
                ]
                for each in outputs
            ]
        return [{"label": names[int(each.argmax())], "score": float(each.max())} for each in outputs]


Model = EncoderModel | ClassifierModel | TaggerModel | AnswererModel

ENDINGS: dict[str, type[Model]] = {
    "ForSequenceClassification": ClassifierModel,
    "ForTokenClassification": TaggerModel,
    "ForQuestionAnswering": AnswererModel,
}
"""What a folder is, by the end of its architecture's name; else an encoder."""


def load_model(folder: Path | str, device: str = "auto") -> Model:
    """The model in a Hugging Face folder: an encoder, or fine-tuned for a kind of task, as its config.json says.

    Raises:
        BadInput: the folder is no RoBERTa model's.
    """
    file = Path(folder) / "config.json"
    try:
        architectures = json.loads(file.read_text(encoding="utf8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        raise BadInput(
            f"{folder} is no model folder: it has no readable config.json.", "Give a folder such as models/encoder."
        ) from None
    for ending, found in ENDINGS.items():
        if any(str(each).endswith(ending) for each in architectures):
            return found(folder, device)
    return EncoderModel(folder, device)
