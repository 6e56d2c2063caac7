"""Every knob of params.yaml, once: the schema. `tasks.params_file` reads the file.

Sections `clean` to `registry` change results, and DVC watches them; `runtime` changes only speed, and nothing is
rebuilt when it changes.
"""

import codecs
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from roberta_core.data.rules import NAMES

TASKS = ("CoLA", "SST-2", "MRPC", "STS-B", "RTE", "WNLI", "QNLI", "QQP", "MNLI")
SIZES = ("tiny", "mini", "small", "medium", "base", "large")

SECRET_WORDS = ("token", "password", "secret", "signature", "api_key", "apikey", "access_key", "credential")
"""Parts of the names of query keys that open an address to whoever has it."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A registered name: `/`, `:` and `@` have a meaning in models:/name@alias."""


def _once(values: list) -> list:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"it has {twice} twice")
    return values


def _encoding(name: str) -> str:
    if name != "auto":
        try:
            codecs.lookup(name)
        except LookupError:
            raise ValueError("no encoding of that name is known; for example: utf-8, latin-1, gb18030") from None
    return name


def _secret_in(url: str) -> bool:
    """Whether an address carries a password, or a query that signs or opens it."""
    parts = urlsplit(url)
    keys = {key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)}
    return "@" in parts.netloc or any(word in key for key in keys for word in SECRET_WORDS)


class Section(BaseModel):
    """A section of the params file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(Section):
    """One corpus source. `kind` says how it is read; the other keys depend on it."""

    kind: Literal["files", "python-docs", "hub", "http"] = Field(
        description="How the source is read: local files, the docstrings of this Python, a dataset of the Hugging Face hub, or files from http addresses."
    )
    path: str = Field(
        min_length=1,
        description="files without url: the file or folder to read. http without url: a list of addresses, a line each: its SHA-256 and the address. Otherwise: a file here whose change makes the source stale (constraints.txt).",
    )
    format: Literal[
        "auto", "txt", "md", "jsonl", "html", "csv", "tsv", "parquet", "arrow", "wikiextractor", "mediawiki"
    ] = Field(
        "auto",
        description="files, http: how to read each file; auto goes by name and first bytes. Each may be compressed (gz, bz2, xz, zst) and inside tar or zip.",
    )
    encoding: Annotated[str, AfterValidator(_encoding)] = Field(
        "auto",
        description="files, http: of text files; auto is UTF-8, or UTF-16 and UTF-32 by their byte order mark. Others by name: latin-1, gb18030.",
    )
    pattern: str = Field(
        "",
        description="files: read only files under path whose names match, for example *.txt; a * also crosses folders.",
    )
    text_field: str = Field("text", description="jsonl, tables, hub: the field or column that holds the text.")
    packages: list[str] = Field(
        [], description="python-docs: installed distributions whose docstrings are read, beside the standard library."
    )
    name: str = Field("", description="hub: the dataset's name, for example wikimedia/wikipedia.")
    config: str = Field("", description="hub: the dataset's configuration, for example 20231101.en.")
    split: str = Field("train", description="hub: the split to read.")
    revision: str = Field("main", description="hub: commit or tag; a commit makes the source reproducible.")
    streaming: bool = Field(False, description="hub: read without downloading the whole first.")
    url: str = Field(
        "",
        description="http: the address of one file; empty: path is a list of them. files: a file or folder of any storage that fsspec opens (s3://bucket/folder, gs://, hf://datasets/owner/name/folder); empty: path.",
    )
    sha256: str = Field("", description="http: what the file at url must hash to.")
    max_bad_share: Share = Field(
        0.01,
        description="Stop where a larger share of the documents cannot be read (not UTF-8, broken JSON); fewer are left out and counted.",
    )
    max_docs: Annotated[int, Field(ge=0)] = Field(0, description="Stop after this many documents; 0 reads all.")

    @model_validator(mode="after")
    def _keys_of_kind(self) -> "Source":
        needed = {"hub": ("name",), "http": ("sha256",) if self.url else ()}.get(self.kind, ())
        if self.kind == "files" and any(mark in self.path + self.url for mark in "*?"):
            raise ValueError("path and url take a file or folder; put the glob under pattern")
        for name, address in (("url", self.url), ("path", self.path if "://" in self.path else "")):
            if _secret_in(address):
                raise ValueError(
                    f"{name} holds a password or a key, and params.yaml goes into every registered version and the report; "
                    "name an address without one"
                )
        for key in needed:
            if not getattr(self, key):
                raise ValueError(f"a source of kind {self.kind} needs the key {key}")
        return self


class Corpus(Section):
    sources: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")], Source] = Field(
        min_length=1, description="By name, in the order of preference: of duplicates, the first source's is kept."
    )


class Clean(Section):
    min_chars: Annotated[int, Field(ge=0)] = Field(200, description="Shorter documents are dropped.")
    max_symbol_share: Share = Field(
        0.35,
        description="Documents with a larger share of characters that are neither letters, digits nor spaces are dropped.",
    )
    min_mean_word_chars: float = Field(
        2.0, description="Documents with shorter words on average are dropped (Gopher's rule has 3)."
    )
    max_mean_word_chars: float = Field(
        12.0, description="Documents with longer words on average are dropped (Gopher's rule has 10)."
    )
    max_repeated_line_share: Share = Field(
        0.3,
        description="Documents with a larger share of repeated lines are dropped (Gopher, Rae et al. 2021, table A1).",
    )
    mend: bool = Field(
        False, description="Mend text that was decoded wrongly (schÃ¶n), with ftfy; before everything else."
    )
    drop_repeated_lines: bool = Field(False, description="Take out lines that stand in the same document already.")
    boilerplate_documents: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Take out lines that stand in at least this many documents of a raw part (16 MB of text): menus, footers. 0: off.",
    )
    rules: Annotated[list[Literal[NAMES]], AfterValidator(_once)] = Field(
        [], description="Rules with their published thresholds, by name; gopher and c4 stand for all of theirs."
    )
    rules_off: Annotated[list[Literal[NAMES]], AfterValidator(_once)] = Field(
        [], description="Rules of a group in rules that are left out."
    )
    mask: Annotated[list[Literal["email", "phone", "ip"]], AfterValidator(_once)] = Field(
        [], description="Personal data that is replaced by [email], [phone], [ip]."
    )
    languages: Annotated[list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]], AfterValidator(_once)] = Field(
        [], description="Keep only documents in these languages (ISO 639 codes: en, de, zh); empty: all."
    )
    min_language_probability: Share = Field(
        0.5, description="With languages: documents whose language is less sure are dropped."
    )
    shingle_words: Positive = Field(5, description="Words in a shingle, for near-duplicates.")
    num_hashes: Annotated[int, Field(ge=16, le=512)] = Field(
        112, description="Entries of a document's MinHash signature."
    )


class Dedup(Section):
    exact: bool = Field(True, description="Drop documents with the same text.")
    near: bool = Field(True, description="Drop near-duplicates.")
    paragraphs: bool = Field(
        False,
        description="Take out paragraphs (lines) that stand, word for word, in an earlier document or earlier in their own.",
    )
    paragraph_chars: Positive = Field(100, description="paragraphs: shorter lines are left alone.")
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="Jaccard similarity of shingle sets from which two documents count as near-duplicates."
    )


def _off(value: object) -> object:
    return "off" if value is False else value  # YAML 1.1 reads the word off as false


class Decontaminate(Section):
    """Text of evaluation sets in the corpus: runs of `words` words, whole texts where they are shorter. Works in the stage `shard`."""

    mode: Annotated[Literal["off", "report", "remove"], BeforeValidator(_off)] = Field(
        "off", description="report: count what is found, in data/shards/decontamination.json; remove: cut it out too."
    )
    path: str = Field(
        "constraints.txt",
        min_length=1,
        description="The folder (or file) that holds the evaluation sets; DVC watches it. off: a file that is there (constraints.txt).",
    )
    sets: Annotated[list[str], AfterValidator(_once)] = Field(
        [],
        description="Files, folders or patterns under path (glue/*/dev*.tsv), each a line of the table; empty: each file and folder in path is one.",
    )
    words: Annotated[int, Field(ge=2, le=50)] = Field(
        13, description="Words in a row that count as a match (13: Brown et al. 2020, appendix C)."
    )
    min_words: Positive = Field(5, description="Shorter texts are not looked for: a match says nothing.")

    @model_validator(mode="after")
    def _lengths(self) -> "Decontaminate":
        if self.min_words > self.words:
            raise ValueError("min_words must not be more than words")
        return self


class Shard(Section):
    shard_mb: Annotated[float, Field(gt=0)] = Field(64, description="Text a shard, in MB; 64 to 256 is usual.")
    validation_share: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.02, description="Share of documents held out, chosen by a hash of the text."
    )


class Tokenizer(Section):
    start: Literal["learn", "take", "continue"] = Field(
        "learn",
        description="learn: from the corpus alone; take: the one at init as it is; continue: learn more merges on top of the one at init, up to vocab_size.",
    )
    init: str = Field(
        "constraints.txt",
        min_length=1,
        description="take, continue: a tokenizer.json or a folder that has one; DVC watches it. learn: a file that is there (constraints.txt).",
    )
    vocab_size: Annotated[int, Field(ge=300, le=1_000_000)] = Field(
        8192, description="Entries, the five special tokens included."
    )
    min_frequency: Positive = Field(2, description="Pairs seen less often are not merged.")
    max_token_bytes: Annotated[int, Field(ge=0)] = Field(
        0,
        description="No longer tokens are learned; 0: any. Chinese has no spaces that end a token: 12 (four characters) keeps whole phrases out.",
    )
    sample_mb: Annotated[float, Field(gt=0)] = Field(
        64, description="Text that the merges are learned from; documents are chosen by hash."
    )

    @model_validator(mode="after")
    def _init_of_start(self) -> "Tokenizer":
        if self.start != "learn" and self.init == "constraints.txt":
            raise ValueError(f"start: {self.start} needs init, the tokenizer.json to {self.start}")
        return self


class Pack(Section):
    mode: Literal["full-sentences", "doc-sentences", "best-fit"] = Field(
        "full-sentences",
        description="full-sentences: rows run on across documents, with a separator between; doc-sentences: a row never crosses a document; best-fit: several documents share a row, and attention stays within each.",
    )
    max_length: Annotated[int, Field(ge=16, le=8192)] = Field(128, description="Tokens a row, <s> and </s> included.")
    word_boundaries: Literal["bpe", "jieba"] = Field(
        "bpe",
        description="Where words begin, for masking of whole words. bpe: at spaces, as the vocabulary tells, nothing is stored; jieba: Chinese is cut into words, stored with the rows (extra chinese).",
    )


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

    data: Literal["sample", "local", "hub"] = Field(
        "sample", description="Where the tasks come from: made from the corpus, a local folder, or the hub."
    )
    path: str = Field(
        "data/shards",
        min_length=1,
        description="sample: the document shards to make tasks from. local: a folder in GLUE's official layout. hub: a file to watch (constraints.txt).",
    )
    hub_name: str = Field("nyu-mll/glue", description="hub: the dataset's name.")
    hub_revision: str = Field("main", description="hub: commit or tag.")
    encoder: str = Field(
        "models/encoder",
        min_length=1,
        description="The encoder that is fine-tuned: what this project pretrains, or another folder (roberta import), RoBERTa or BERT.",
    )
    sample_rows: Positive = Field(2000, description="sample: training rows a task; dev has a quarter of that.")
    tasks: Annotated[list[Literal[TASKS]], AfterValidator(_once)] = Field(
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
    seeds: Annotated[list[int], AfterValidator(_once)] = Field(
        [1], min_length=1, description="One fine-tuning each; the score is the median, the model the median one's."
    )
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Of the forward and backward pass.")


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
    registry: Registry = Registry()
    runtime: Runtime = Runtime()
