"""Every knob of params.yaml, once: the schema. `tasks.params_file` reads the file.

Sections `clean` to `registry` change results, and DVC watches them; `runtime` changes only speed, and nothing is
rebuilt when it changes.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tasks.params_data import (
    Clean,
    Corpus,
    Decontaminate,
    Dedup,
    Pack,
    Positive,
    Section,
    Shard,
    Share,
    Source,
    Tokenizer,
    once,
)
from tasks.params_finetune import Batches, Grid, Options
from tasks.params_own import Finetune, OwnTask

__all__ = ["Corpus", "OwnTask", "Params", "Section", "Source", "Tokenizer"]

TASKS = ("CoLA", "SST-2", "MRPC", "STS-B", "RTE", "WNLI", "QNLI", "QQP", "MNLI")
STAGED = ("RTE", "STS-B", "MRPC")
"""Tasks that the paper's test models start from the MNLI model (Liu et al. 2019, section 5.1)."""
SIZES = ("tiny", "mini", "small", "medium", "base", "large")

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A registered name: `/`, `:` and `@` have a meaning in models:/name@alias."""


class Pretrain(Section):
    """An empty value (null) means: the recipe's own. `roberta_core.train.recipes` has both recipes in full."""

    size: Literal[SIZES] = Field("mini", description="Layers and widths; base and large are the paper's.")
    recipe: Literal["fast", "paper"] = Field(
        "fast",
        description="paper: AdamW as in Liu et al. 2019; fast: Muon for the matrices of the layers, made to leave the unigram plateau early.",
    )
    init: str = Field(
        "",
        description="Weights to go on from: a model folder, a name on the hub (FacebookAI/roberta-base), or models:/roberta-encoder@champion; "
        "empty: a fresh draw. The shape is the model's then, and size is not used; its tokenizer must be the data's (tokenizer.init).",
    )
    init_path: str = Field(
        "tasks/start.py",
        min_length=1,
        description="What DVC watches of it: the folder itself where init is one; else tasks/start.py, which it watches anyway.",
    )
    max_steps: Positive = Field(description="Updates.")
    batch_size: Positive = Field(description="Sequences an update, over all ranks and accumulation.")
    mask_prob: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15,
        description="Share of tokens chosen for prediction; of these 80 % are masked, 10 % replaced, 10 % left as they are.",
    )
    mask_prob_end: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="mask_prob changes to this in a straight line over the run; null: it does not. Evaluation always masks 15 % of the tokens.",
    )
    masking: Literal["tokens", "whole-word", "spans"] = Field(
        "tokens",
        description="What is masked together: single tokens, whole words, or runs of words (as SpanBERT). Words are told from the vocabulary, or from the rows where the pack stage stored their boundaries.",
    )
    optimizer: Literal["adamw", "stable-adamw", "muon"] | None = Field(
        None,
        description="muon: for the layers' matrices, with adamw for the rest. stable-adamw clips updates that outgrow their second moment.",
    )
    schedule: Literal["linear", "cosine", "wsd"] | None = Field(
        None, description="How the learning rate falls to 0; wsd: warmup, stable, then 1 - sqrt over the rest."
    )
    decay_from: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="Share of the run after which the learning rate falls."
    )
    max_minutes: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Time of the run, evaluation and checkpoints included; the learning rate then follows the clock and is 0 at its end, "
        "so the result cannot be repeated to the bit. max_steps still holds: with it far away, the clock decides.",
    )
    batch_from: Positive | None = Field(
        None, description="Batch of the first update, where it grows; null: it does not."
    )
    batch_warmup_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="Updates over which the batch grows from batch_from to batch_size, in even steps."
    )
    peak_lr: Annotated[float, Field(gt=0)] | None = Field(None, description="Highest learning rate.")
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Updates until the learning rate is at its peak; with max_minutes, its share of max_steps is its share of the time.",
    )
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(None, description="Decoupled weight decay.")
    dropout: Share | None = Field(None, description="In the layers and in attention.")
    clip_norm: Annotated[float, Field(ge=0)] | None = Field(
        None, description="0 switches clipping off, as in the paper."
    )
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Of the forward and backward pass.")
    spike_sigmas: Annotated[float, Field(ge=0)] = Field(
        6.0,
        description="An update whose loss is this many standard deviations above the mean of the last 128 is left out; 0: only one whose loss or gradient is no number.",
    )
    max_skipped: Positive = Field(10, description="So many updates left out in a row end the run.")
    eval_every: Positive = Field(100, description="Updates between two evaluations.")
    eval_rows: Positive = Field(512, description="Held-out rows that are scored (all where there are fewer).")
    log_every: Positive = Field(10, description="Updates between two points of the training curve.")
    average_last: Annotated[int, Field(ge=0)] = Field(
        0,
        description="The encoder is the mean of the weights at this many last evaluations; 0: the last weights. It helps where the learning rate does not fall to 0.",
    )

    @model_validator(mode="after")
    def _growing_batch(self) -> "Pretrain":
        if (self.batch_from is None) != (self.batch_warmup_steps == 0):
            raise ValueError("batch_from and batch_warmup_steps go together: set both, or neither")
        return self


class Glue(Section):
    """Fine-tuning. `data: sample` makes sample tasks from the corpus; they are not GLUE and are never called so."""

    data: Literal["sample", "local", "parquet", "hub"] = Field(
        "sample",
        description="Where the tasks come from: made from the corpus, a local folder of official files, one of the hub's parquet files, or the hub.",
    )
    path: str = Field(
        "data/shards",
        min_length=1,
        description="sample: the document shards to make tasks from. local: a folder in GLUE's official layout. parquet: a folder with the hub's files, <config>/<split>-*.parquet. hub: a file to watch (constraints.txt).",
    )
    hub_name: str = Field("nyu-mll/glue", description="hub: the dataset's name.")
    hub_revision: str = Field("main", description="hub: commit or tag.")
    encoder: str = Field(
        "models/encoder",
        min_length=1,
        description="The encoder that is fine-tuned: what this project pretrains, or another folder (roberta import), RoBERTa or BERT.",
    )
    sample_rows: Positive = Field(2000, description="sample: training rows a task; dev has a quarter of that.")
    tasks: Annotated[list[Literal[TASKS]], AfterValidator(once)] = Field(
        min_length=1, description="One fine-tuning stage each."
    )
    max_length: Annotated[int, Field(ge=8)] = Field(128, description="Tokens a row; longer rows are cut and counted.")
    epochs: Positive = Field(3, description="Passes over the training rows.")
    max_steps: Annotated[int, Field(ge=0)] = Field(0, description="Stop earlier than the epochs; 0 does not.")
    batch_size: Positive = Field(32, description="Rows an update.")
    peak_lr: Annotated[float, Field(gt=0)] = Field(
        1e-4, description="Highest learning rate; the paper's grid for its sizes is 1e-5, 2e-5, 3e-5."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Decoupled weight decay (Liu et al. 2019, table 10)."
    )
    warmup_ratio: Share = Field(
        0.06, description="Share of the updates until the learning rate is at its peak (Liu et al. 2019, table 10)."
    )
    dropout: Share = Field(0.1, description="In the layers, in attention and in the head.")
    seeds: Annotated[list[int], AfterValidator(once)] = Field(
        [1], min_length=1, description="One fine-tuning each; the score is the median, the model the median one's."
    )
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Of the forward and backward pass.")
    protocol: Literal["quick", "paper", "staged"] = Field(
        "quick",
        description="quick: the values of this section, for every seed of it. paper (Liu et al. 2019): every pair of grid_lr and grid_batch, seeds 1 to 5, "
        "up to ten epochs of which the best on dev counts, warm-up 6 %, weight decay 0.1; the median of the best pair. staged: as quick, and the tasks of `staged` start from the MNLI model.",
    )
    staged: Annotated[list[Literal[STAGED]], AfterValidator(once)] = Field(
        [],
        description="protocol staged: the tasks that start from this run's MNLI model. They stand here instead of in tasks.",
    )
    grid_lr: Annotated[Grid, AfterValidator(once)] = Field(
        [1e-5, 2e-5, 3e-5], description="protocol paper: highest learning rates; the paper's are for its own sizes."
    )
    grid_batch: Annotated[Batches, AfterValidator(once)] = Field(
        [16, 32], description="protocol paper: rows an update."
    )
    options: Options = Field(Options(), description="What the recipe may have beside; see below.")

    @property
    def all_tasks(self) -> list[str]:
        """Every task of the run, the staged ones last."""
        return [*self.tasks, *self.staged]

    @model_validator(mode="after")
    def _staged_from_mnli(self) -> "Glue":
        if (self.protocol == "staged") != bool(self.staged):
            raise ValueError("protocol staged and the list staged go together: set both, or neither")
        if twice := [task for task in self.staged if task in self.tasks]:
            raise ValueError(f"the task {twice[0]} stands in tasks and in staged; it is one of the two")
        if self.staged and "MNLI" not in self.tasks:
            raise ValueError("the tasks of staged start from the MNLI model, and MNLI is not in tasks")
        return self


class Gate(Section):
    """The margins of a promotion, beside `registry.min_gain`: candidate against champion on the same dev rows."""

    max_p: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="In the mean over the tasks, the gain must be this unlikely to be luck (paired bootstrap)."
    )
    max_task_loss: Annotated[float, Field(ge=0)] = Field(
        0.03, description="No task of the mean may lose more than this of its metric."
    )
    max_size_ratio: Annotated[float, Field(ge=0)] = Field(
        1.5, description="Bytes of the weights, at most this many times the champion's; 0: any."
    )
    max_latency_ratio: Annotated[float, Field(ge=0)] = Field(
        1.5, description="Time of a prediction on this machine, at most this many times the champion's; 0: any."
    )
    resamples: Annotated[int, Field(ge=1000)] = Field(10_000, description="Draws of the bootstrap.")


class Registry(Section):
    encoder: Annotated[str, Field(pattern=NAME)] = Field(
        "roberta-encoder", description="Registered name of the encoder."
    )
    task_prefix: Annotated[str, Field(pattern=NAME)] = Field(
        "roberta-",
        description="Registered name of a classifier: the prefix and the task in lower case (roberta-cola).",
    )
    min_gain: float = Field(
        0.0,
        description="A later version must beat the champion by more than this: encoder, mean of the task scores; classifier, its score.",
    )
    gate: Gate = Field(Gate(), description="Margins of a promotion; see below.")


class Runtime(Section):
    """What changes speed only. DVC does not watch it."""

    workers: Annotated[int, Field(ge=0)] = Field(0, description="Processes for shards; 0: one a core.")
    dask_scheduler: str = Field(
        "",
        description="Address of a Dask scheduler (tcp://host:8786) whose workers take the shards instead; docs/scale.md. Empty: processes here.",
    )
    downloads: Positive = Field(4, description="Files of a list of addresses that are fetched at once.")
    threads: Annotated[int, Field(ge=0)] = Field(0, description="Torch threads in pretraining; 0: one a core.")
    processes: Annotated[int, Field(ge=0)] = Field(
        0, description="Processes that pretrain together on this machine; 0: one a GPU, or one without a GPU."
    )
    shard: Literal["none", "fsdp"] = Field(
        "none",
        description="Several processes: none, each holds the whole model; fsdp, each holds a part of weights, gradients and optimizer state (FSDP2), for models that one GPU cannot hold.",
    )
    glue_threads: Positive = Field(1, description="Torch threads of each fine-tuning; several tasks run side by side.")
    parallel_stages: Positive = Field(2, description="Stages that may run side by side.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one.")
    micro_batch: Annotated[int, Field(ge=0)] = Field(
        0, description="Sequences a forward pass; 0: the whole batch. Smaller ones need less memory."
    )
    compile: bool = Field(
        False, description="torch.compile the model; on a CPU with dropout it is not, as that is slower."
    )
    checkpoint_minutes: Annotated[float, Field(gt=0)] = Field(2.0, description="Minutes between two checkpoints.")
    checkpoint_share: Share = Field(
        0.02,
        description="Checkpoints come less often where they would cost more than this share of the run; 0: they come as asked.",
    )
    keep_checkpoints: Positive = Field(2, description="Newest checkpoints kept for resume.")
    milestone_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="Every so many updates the model is kept for good, in models/milestones; 0: never."
    )


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1907
    corpus: Corpus
    clean: Clean = Clean()
    dedup: Dedup = Dedup()
    decontaminate: Decontaminate = Decontaminate()
    shard: Shard = Shard()
    tokenizer: Tokenizer = Tokenizer()
    pack: Pack = Pack()
    pretrain: Pretrain
    glue: Glue
    finetune: Finetune = Finetune()
    registry: Registry = Registry()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _task_names(self) -> "Params":
        taken = {task.lower() for task in TASKS}
        if name := next((name for name in self.finetune.tasks if name in taken), ""):
            raise ValueError(f"finetune.tasks.{name} has the name of a GLUE task; call it otherwise")
        return self
