"""The part of params.yaml about data: sources, cleaning, duplicates, shards, tokenizer, packing. `tasks.params` has the whole."""

import codecs
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from roberta_core.data.rules import NAMES

SECRET_WORDS = ("token", "password", "secret", "signature", "api_key", "apikey", "access_key", "credential")
"""Parts of the names of query keys that open an address to whoever has it."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


def once(values: list) -> list:
    """The list; refused where it has a value twice."""
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
    rules: Annotated[list[Literal[NAMES]], AfterValidator(once)] = Field(
        [], description="Rules with their published thresholds, by name; gopher and c4 stand for all of theirs."
    )
    rules_off: Annotated[list[Literal[NAMES]], AfterValidator(once)] = Field(
        [], description="Rules of a group in rules that are left out."
    )
    mask: Annotated[list[Literal["email", "phone", "ip"]], AfterValidator(once)] = Field(
        [], description="Personal data that is replaced by [email], [phone], [ip]."
    )
    languages: Annotated[list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]], AfterValidator(once)] = Field(
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
    sets: Annotated[list[str], AfterValidator(once)] = Field(
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
