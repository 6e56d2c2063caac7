"""The section `finetune` of params.yaml: tasks that a user brings, one entry a task."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from roberta_core.own.metrics import METRICS
from tasks.params_data import Positive, Section, Share, once
from tasks.params_finetune import Options

KINDS = tuple(METRICS)
TASK_NAME = r"^[a-z0-9][a-z0-9-]*$"
MAX_NAME = 64
"""Characters of a name: files and a registered model are called after it."""


class OwnTask(Section):
    kind: Literal[KINDS] = Field(
        description="classification: one label a row; multi-label: any number of them; regression: a number; "
        "tokens: a tag a word (entities); questions: answers that stand in a context.",
    )
    path: str = Field(
        min_length=1,
        description="The training file; or the folder that holds it and others. DVC watches it as a whole. "
        "Tables: csv, tsv, jsonl, Parquet; tokens: columns, as CoNLL's; questions: SQuAD's JSON. Each may be packed (.gz, .zst, …).",
    )
    train: str = Field("", description="Training file in path, where path is a folder; empty: the one called train.")
    dev: str = Field(
        "",
        description="Dev file in path; empty: the one called dev or validation; without one, dev_share is held out.",
    )
    test: str = Field("", description="Test file in path; empty: the one called test; its labels may be absent.")
    dev_share: Annotated[float, Field(gt=0, lt=0.9)] = Field(
        0.1,
        description="Without a dev file: so much of train is held out, by a hash of the text (questions: of the article), so nothing stands on both sides.",
    )
    test_share: Annotated[float, Field(ge=0, lt=0.9)] = Field(
        0.0, description="Without a test file: so much of train is held out as test, in the same way; 0: none."
    )
    text: str | list[str] = Field("text", description="Tables: the column of the text, or the two of a pair.")
    label: str | list[str] = Field(
        "label",
        description="Tables: the column of the label; multi-label: one column with a list, or a list of columns of 0 and 1.",
    )
    separator: str = Field(",", min_length=1, description="multi-label: between the labels of a row.")
    token: int = Field(1, description="tokens: number of the column of words, from 1; negative: from the end.")
    tag: int = Field(-1, description="tokens: number of the column of tags.")
    metric: str = Field(
        "",
        description="What early stopping, the kept seed and the gate look at; empty: the first of "
        + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in METRICS.items())
        + ". tokens with accuracy takes any tags, not only of entities.",
    )
    max_length: Annotated[int, Field(ge=8)] = Field(
        128,
        description="Tokens of a row. Longer texts are cut and counted; sentences and contexts come in windows that overlap.",
    )
    stride: Annotated[int, Field(ge=0)] | None = Field(
        None, description="tokens, questions: tokens that two windows share; null: a third of max_length."
    )
    epochs: Positive = Field(3, description="Passes over the training rows.")
    max_steps: Annotated[int, Field(ge=0)] = Field(0, description="Stop earlier than the epochs; 0 does not.")
    batch_size: Positive = Field(16, description="Rows an update.")
    peak_lr: Annotated[float, Field(gt=0)] = Field(
        1e-4, description="Highest learning rate; 1e-5 to 3e-5 for base and large models, 3e-4 for small ones."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.1, description="Decoupled weight decay.")
    warmup_ratio: Share = Field(0.06, description="Share of the updates until the learning rate is at its peak.")
    dropout: Share = Field(0.1, description="In the layers, in attention and in the head.")
    seeds: Annotated[list[int], AfterValidator(once)] = Field(
        [1], min_length=1, description="One fine-tuning each; the score is the median, the model the median one's."
    )
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Of the forward and backward pass.")
    options: Options = Field(Options(), description="What the recipe may have beside: the keys of glue.options.")

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of texts."""
        return (self.text,) if isinstance(self.text, str) else tuple(self.text)

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of labels."""
        return (self.label,) if isinstance(self.label, str) else tuple(self.label)

    @property
    def primary(self) -> str:
        """The metric that counts."""
        return self.metric or METRICS[self.kind][0]

    @model_validator(mode="after")
    def _fits(self) -> "OwnTask":
        known = METRICS[self.kind]
        if self.metric and self.metric not in known:
            raise ValueError(f"a task of kind {self.kind} takes the metric {' or '.join(known)}, got {self.metric!r}")
        if not 1 <= len(self.texts) <= 2 or len(set(self.texts)) != len(self.texts):
            raise ValueError("text takes one column, or the two of a pair")
        if not self.labels or (len(self.labels) > 1 and self.kind != "multi-label"):
            raise ValueError("label takes one column; a list of columns is for kind: multi-label")
        if set(self.texts) & set(self.labels):
            raise ValueError("text and label are the same column")
        if not self.token or not self.tag or self.token == self.tag:
            raise ValueError("token and tag are two numbers of columns, from 1 or, negative, from the end")
        if self.dev_share + self.test_share >= 1:
            raise ValueError("dev_share and test_share leave nothing for training")
        if self.options.class_weights != "none" and self.kind != "classification":
            raise ValueError("options.class_weights is for kind: classification")
        if (self.options.delete_words or self.options.swap_words) and self.kind in ("tokens", "questions"):
            raise ValueError(
                "options.delete_words and swap_words are for texts: words with tags or answers stay where they are"
            )
        if self.stride is not None and self.stride >= self.max_length // 2:
            raise ValueError("stride is at most half of max_length")
        return self


class Finetune(Section):
    """Tasks of your own: one stage `finetune@<name>` each, from a file to a registered model. docs/finetune.md shows each kind."""

    encoder: str = Field(
        "models/encoder",
        min_length=1,
        description="The encoder that is fine-tuned: what this project pretrains, or another folder (roberta import).",
    )
    tasks: dict[Annotated[str, Field(pattern=TASK_NAME, max_length=MAX_NAME)], OwnTask] = Field(
        {}, description="By name; none by default. An entry has the keys below."
    )
