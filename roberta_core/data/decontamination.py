"""Evaluation text in the corpus: n-grams of 13 words (GPT-3, Brown et al. 2020, appendix C) found, reported or cut out.

An evaluation set is a bag of strings: every cell of a table, every string of a JSON, every line of a text. Of each, all
runs of `words` words are looked for in the corpus; of a shorter one the whole, down to `min_words`, below which a match
says nothing ("I don't know"). Words are those of the near-duplicate search: lower case, punctuation left out, a
character where a script sets no spaces. So a sentence is found however it is cased, punctuated or wrapped.

Corpus text is hashed a block at a time, whole arrays of words for every length that is asked for; a table of bits says
no for nearly every hash, and what is left is searched for in the sorted hashes of all sets. A match is by 64-bit hash:
with a million evaluation n-grams, one false match in 10^13 words. A part of the corpus is a unit of work (`search_part`);
each worker reads the sets once. Price: some 30 MB of text a second on one core, and 16 bytes for each evaluation n-gram.
"""

import csv
import fnmatch
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from roberta_core.data.archives import DAMAGED, Bound, seekable, unpack
from roberta_core.data.documents import open_shard
from roberta_core.data.formats import detect
from roberta_core.data.lines import lines_of
from roberta_core.data.paragraphs import Repeats, without_paragraphs
from roberta_core.data.words import WORD, blocks, gram_hashes, shingle_hashes, word_hashes
from roberta_core.errors import BadInput

FLAG_BITS = 24
"""The table of bits has 2^24 places (as bytes, 16 MB): a million n-grams fill 6 % of it."""

_TRAILING = re.compile(r"[^\w\s]*")


@dataclass
class EvaluationSet:
    """The n-grams of one set, and what was found of it.

    Attributes:
        name: as the params name it.
        hashes: uint64 [grams], sorted.
        text_of: int64 [grams]; the number of the text that a gram is from.
        texts: strings that are looked for; too_short: those that are not.
        found: bool [texts]; seen in the corpus.
        documents: documents of the corpus with a match.
    """

    name: str
    hashes: np.ndarray
    text_of: np.ndarray
    texts: int
    too_short: int
    found: np.ndarray = field(init=False)
    documents: int = 0

    def __post_init__(self) -> None:
        self.found = np.zeros(self.texts, dtype=bool)

    def row(self) -> dict:
        """For the table: what was looked for, and what was found."""
        return {
            "texts": self.texts,
            "too_short": self.too_short,
            "found": int(self.found.sum()),
            "documents": self.documents,
        }


# -- reading ------------------------------------------------------------------------------------------------------------


def _strings(value: object) -> Iterator[str]:
    """Every string inside a JSON value or a table's row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _rows(content: BinaryIO) -> Iterator[dict]:
    import pyarrow as pa

    content = seekable(content)
    first = content.read(6)
    content.seek(0)
    if first.startswith(b"PAR1"):
        import pyarrow.parquet as pq

        batches = pq.ParquetFile(content).iter_batches(1024)
    elif first == b"ARROW1":
        reader = pa.ipc.open_file(content)
        batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        batches = iter(pa.ipc.open_stream(content))
    for batch in batches:
        yield from batch.to_pylist()


def strings_of(handle: BinaryIO, name: str) -> Iterator[str]:
    """All strings of an evaluation file, compressed or not: cells of csv, tsv, Parquet and Arrow; strings anywhere in
    JSON and JSON lines; lines of anything else.

    Raises:
        UnicodeDecodeError, or one of `archives.DAMAGED`: the file is broken.
    """
    content = unpack(handle, Bound(lambda: 1 << 40))
    format_name = detect(name, b"")
    if format_name in ("parquet", "arrow"):
        for row in _rows(content):
            yield from _strings(row)
        return
    lines = (line.decode("utf8") for line in lines_of(content))
    if format_name == "csv":
        csv.field_size_limit(1 << 30)
        for cells in csv.reader(lines):
            yield from cells
    elif format_name == "jsonl" or name.endswith(".json"):
        yield from _json_strings(lines)
    else:
        for line in lines:
            line = line.rstrip("\r\n")
            yield from line.split("\t") if format_name == "tsv" else [line]


def _json_strings(lines: Iterator[str]) -> Iterator[str]:
    """Of JSON lines, or of one JSON value over several lines."""
    held = ""
    for line in lines:
        held += line
        if not held.strip():
            continue
        try:
            yield from _strings(json.loads(held))
            held = ""
        except json.JSONDecodeError:
            held += "".join(lines)
            try:
                yield from _strings(json.loads(held))
            except json.JSONDecodeError as error:
                raise OSError(f"it is not JSON: {error}") from None
            return


def find_sets(root: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each evaluation set.

    Args:
        root: a file, or a folder.
        names: files, folders or patterns under it (`glue/*/dev*.tsv`), each a set; none: every file and folder in it.

    Raises:
        BadInput: something named is not there.
    """
    root = Path(root)
    if root.is_file():
        return {root.name: [root]}
    if not root.is_dir():
        raise BadInput(f"There is no file or folder {root}.", "Set decontaminate.path to the evaluation sets.")
    named = {path: path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()}
    named = {path: name for path, name in named.items() if not any(part.startswith(".") for part in name.split("/"))}
    sets: dict[str, list[Path]] = {}
    for name in names or sorted({relative.split("/")[0] for relative in named.values()}):
        name = name.strip("/")
        sets[name] = [
            path
            for path, relative in named.items()
            if relative == name or relative.startswith(name + "/") or fnmatch.fnmatchcase(relative, name)
        ]
        if not sets[name]:
            raise BadInput(f"No file under {root} is, or matches, {name}.", "Mend decontaminate.sets.")
    if not sets:
        raise BadInput(f"The folder {root} holds no file.", "Set decontaminate.path to the evaluation sets.")
    return sets


def read_set(name: str, paths: Sequence[Path], words: int, min_words: int) -> EvaluationSet:
    """The n-grams of one evaluation set.

    Raises:
        BadInput: a file of it cannot be read, or it has no text that is long enough.
    """
    texts: dict[str, None] = {}
    for path in paths:
        try:
            with open(path, "rb") as handle:
                texts.update(dict.fromkeys(strings_of(handle, path.name)))
        except (*DAMAGED, UnicodeDecodeError) as error:
            raise BadInput(f"The evaluation set {name} cannot be read: {path}: {error}.", "Mend the file.") from None
    texts.pop("", None)
    hashes, text_of, kept = [], [], 0
    held = list(texts)
    for block in blocks(held):
        grams, counts = shingle_hashes(block, words)
        long_enough = word_hashes(block)[1] >= min_words
        grams = grams[np.repeat(long_enough, counts)]
        hashes.append(grams)
        text_of.append(np.repeat(kept + np.arange(long_enough.sum()), counts[long_enough]))
        kept += int(long_enough.sum())
    if not kept:
        raise BadInput(
            f"The evaluation set {name} has no text of {min_words} words or more.",
            "Take it out of decontaminate.sets, or lower decontaminate.min_words.",
        )
    joined, owners = np.concatenate(hashes), np.concatenate(text_of)
    order = np.argsort(joined, kind="stable")
    return EvaluationSet(name, joined[order], owners[order], kept, len(held) - kept)


# -- searching ----------------------------------------------------------------------------------------------------------


class Decontaminator:
    """Looks for the n-grams of evaluation sets in texts; counts in the sets what it finds."""

    def __init__(self, sets: Sequence[EvaluationSet], words: int, min_words: int):
        self.sets, self.words, self.min_words = list(sets), words, min_words
        self.hashes = np.unique(np.concatenate([each.hashes for each in sets]))
        self._flags = np.zeros(1 << FLAG_BITS, dtype=bool)
        self._flags[self._places(self.hashes)] = True

    @staticmethod
    def _places(hashes: np.ndarray) -> np.ndarray:
        return (hashes & np.uint64((1 << FLAG_BITS) - 1)).astype(np.intp)

    def find(self, texts: Sequence[str]) -> dict[int, np.ndarray]:
        """The texts with a match, by place in `texts`: int64 [runs, 2], the first word and the one after the last of each run."""
        found: dict[int, np.ndarray] = {}
        start = 0
        for block in blocks(texts):
            for index, runs, matched in self._find(block):
                found[start + index] = runs
                self._count(matched)
            start += len(block)
        return found

    def _find(self, texts: Sequence[str]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each text with a match: its place, the runs of words, and the hashes that matched."""
        words, counts = word_hashes(texts)
        ends = np.cumsum(counts)
        # how many words of its own text follow a word, itself counted
        left = np.repeat(ends, counts) - np.arange(len(words))
        heads, lengths, hashes = [], [], []
        for length, grams in gram_hashes(words, self.words):
            if length < self.min_words:
                continue
            maybe = np.flatnonzero(self._flags[self._places(grams)] & (left >= length))
            slots = np.minimum(np.searchsorted(self.hashes, grams[maybe]), len(self.hashes) - 1)
            sure = maybe[self.hashes[slots] == grams[maybe]]
            heads.append(sure)
            lengths.append(np.full(len(sure), length))
            hashes.append(grams[sure])
        starts, sizes, matched = map(np.concatenate, (heads, lengths, hashes))
        if not len(starts):
            return
        order = np.argsort(starts, kind="stable")
        starts, sizes, matched = starts[order], sizes[order], matched[order]
        owners = np.searchsorted(ends, starts, side="right")
        for index in np.unique(owners):
            mine = owners == index
            first = int(ends[index] - counts[index])
            yield int(index), _join(starts[mine] - first, sizes[mine]), matched[mine]

    def _count(self, matched: np.ndarray) -> None:
        """Notes one document's matches in the sets that have them."""
        for each in self.sets:
            low = np.searchsorted(each.hashes, matched, side="left")
            high = np.searchsorted(each.hashes, matched, side="right")
            if (high > low).any():
                each.documents += 1
                for begin, end in zip(low[high > low], high[high > low]):
                    each.found[each.text_of[begin:end]] = True

    def take_counts(self) -> list[tuple[np.ndarray, int]]:
        """What was found since the last call: for each set the texts that were seen (numbers, ascending), and documents."""
        counts = [(np.flatnonzero(each.found), each.documents) for each in self.sets]
        for each in self.sets:
            each.found[:], each.documents = False, 0
        return counts

    def add_counts(self, counts: Sequence[tuple[np.ndarray, int]]) -> None:
        """Adds what `take_counts` of another process gave."""
        for each, (texts, documents) in zip(self.sets, counts):
            each.found[texts] = True
            each.documents += documents

    @staticmethod
    def spans(text: str, runs: np.ndarray) -> list[tuple[int, int]]:
        """Runs of words as places in the text: from the first letter to the punctuation behind the last."""
        words = [match.span() for match in WORD.finditer(text)]
        return [(words[first][0], _TRAILING.match(text, words[after - 1][1]).end()) for first, after in runs]

    def cut(self, text: str, runs: np.ndarray) -> str:
        """`text` without the runs of words, and the punctuation behind them; what stood around them become paragraphs.

        Cuts again where what came together matches: nothing of a set is left.
        """
        while True:
            pieces, at = [], 0
            for start, end in self.spans(text, runs):
                pieces.append(text[at:start].strip())
                at = end
            pieces.append(text[at:].strip())
            text = "\n\n".join(piece for piece in pieces if WORD.search(piece))
            again = [runs for _, runs, _ in self._find([text])] if text else []
            if not again:
                return text
            runs = again[0]


def _join(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Overlapping runs (starts ascending) as one: int64 [runs, 2]."""
    reach = np.maximum.accumulate(starts + sizes)
    fresh = np.concatenate([[True], starts[1:] >= reach[:-1]])
    last = np.concatenate([np.flatnonzero(fresh)[1:] - 1, [len(starts) - 1]])
    return np.stack([starts[fresh], reach[last]], axis=1)


# -- part by part -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """What to look for, and what to do with it: small, so that it travels to workers, who read the sets themselves.

    Attributes:
        path, sets: as `find_sets` takes them.
        words, min_words: as `read_set` takes them.
        remove: whether the texts found are cut, or only reported.
    """

    path: Path
    sets: tuple[str, ...]
    words: int
    min_words: int
    remove: bool


@lru_cache(maxsize=1)
def open_search(search: Search) -> Decontaminator:
    """The sets, read once in a process.

    Raises:
        BadInput: a set is not there, cannot be read, or has no text that is long enough.
    """
    files = find_sets(search.path, search.sets)
    sets = [read_set(name, paths, search.words, search.min_words) for name, paths in files.items()]
    return Decontaminator(sets, search.words, search.min_words)


@dataclass(frozen=True)
class PartFinds:
    """Evaluation text in one part.

    Attributes:
        documents: for each document with a match, by row of the part: an excerpt of the first match, and the text that is
            left without the matches ("" for none), or None where it is only reported.
        counts: as `Decontaminator.take_counts`.
    """

    documents: dict[int, tuple[str, str | None]]
    counts: list[tuple[np.ndarray, int]]


def search_part(work: tuple[Path, np.ndarray, Repeats], search: Search) -> PartFinds:
    """Looks through one part of the corpus.

    Args:
        work: the part; which of its documents are kept (bool [rows]); and its repeated paragraphs, by row, which are taken out
            before.
    """
    path, keep, repeats = work
    look = open_search(search)
    look.take_counts()  # what a search that broke off left
    documents: dict[int, tuple[str, str | None]] = {}
    reader, start = open_shard(path), 0
    for index in range(reader.num_record_batches):
        column = reader.get_batch(index).column("text")
        rows = np.flatnonzero(keep[start : start + len(column)])
        texts = column.take(rows).to_pylist()
        for place, row in enumerate((rows + start).tolist()):
            if row in repeats:
                texts[place] = without_paragraphs(texts[place], repeats[row])
        for place, runs in look.find(texts).items():
            text = texts[place]
            excerpt = " … ".join(" ".join(text[slice(*span)].split()) for span in look.spans(text, runs[:1]))
            documents[int(rows[place]) + start] = (excerpt, look.cut(text, runs) if search.remove else None)
        start += len(column)
    return PartFinds(documents, look.take_counts())
