"""Cleaning: one normal form for every text, then a few named rules that say which documents are text at all.

Normal form: Unicode NFC, no control or invisible characters, single spaces, at most one blank line. It is idempotent
(cleaning twice changes nothing), so that a cleaned corpus can be a source again. The rules are the plain ones of
Gopher (Rae et al. 2021, table A1) that hold in any language with letters, each with its threshold in params; a rule
that fails names the reason in the funnel. What alters more, or holds for some corpora only, is switched on by name:
mending and masking (`mending`), the full rules of Gopher and C4 (`rules`), languages. Price, without these: some 15 µs a
kB on one core; everything is a C-level pass over the text, with no Python loop over characters.

One raw part is one unit of work: it gives one clean part and one part of signatures (content hash and MinHash) with
the same rows, and needs memory for one record batch.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from roberta_core.data.documents import SCHEMA, open_shard
from roberta_core.data.funnel import Funnel
from roberta_core.data.mending import boilerplate, language, mask, mend, without_lines, without_repeats
from roberta_core.data.minhash import MinHasher
from roberta_core.data.rules import broken_rule, drop_lines, is_spaced

HASH_BYTES = 16
"""Of the content hash: 2^64 documents before a chance collision is likely."""

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# C0 and C1 controls but tab and newline; soft hyphen, zero-width space, word joiner and invisible operators, direction
# marks, byte order mark, interlinear annotation, noncharacters. Zero-width (non-)joiners stay: they are spelling in
# Persian and many Indic scripts.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff]"
)
_ASCII_INVISIBLE = bytes([*range(0x09), *range(0x0E, 0x20), 0x7F])
_SPACES = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
# Whatever the patterns above and below one could change, beside what a substring test finds: most texts have none of it.
_UNUSUAL = re.compile(
    f"[{_LINE_ENDS.pattern[_LINE_ENDS.pattern.index('[') + 1 : -1]}{_INVISIBLE.pattern[1:-1]}"
    "\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]"
)
_BLANK_LINES = re.compile(r"\n{3,}")
_NOT_SYMBOLS = bytes(code for code in range(128) if chr(code).isalnum() or chr(code).isspace())
_ASCII = re.compile(r"[\x00-\x7f]+")


@dataclass(frozen=True)
class Rules:
    """Thresholds of the named rules; params.clean has the same names and says what each means."""

    min_chars: int = 200
    max_symbol_share: float = 0.35
    min_mean_word_chars: float = 2.0
    max_mean_word_chars: float = 12.0
    max_repeated_line_share: float = 0.3
    mend: bool = False
    drop_repeated_lines: bool = False
    boilerplate_documents: int = 0
    names: frozenset[str] = frozenset()
    mask: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    min_language_probability: float = 0.5


def normalise(text: str) -> tuple[str, list[str]]:
    """The normal form of a text, and the names of what was altered beyond spacing (`control_characters`, `nfc`)."""
    changes = []
    plain = text.isascii()
    # Most text has single spaces and nothing unusual: substring tests, a byte table and one search are many times faster
    # there than the patterns.
    unusual = not plain and _UNUSUAL.search(text) is not None
    if unusual or any(end in text for end in "\r\x0b\x0c\x1c\x1d\x1e"):
        text = _LINE_ENDS.sub("\n", text)
    if plain:
        fewer = text.encode().translate(None, _ASCII_INVISIBLE).decode()
    else:
        fewer = _INVISIBLE.sub("", text) if unusual else text
    if len(fewer) != len(text):
        changes.append("control_characters")
        text = fewer
    if not plain and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        changes.append("nfc")
    if unusual or "  " in text or "\t" in text:
        text = _SPACES.sub(" ", text)
    if " \n" in text or "\n " in text:
        text = "\n".join([line.strip(" ") for line in text.split("\n")])
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip(), changes


@lru_cache(maxsize=1 << 16)
def _is_symbol(character: str) -> bool:
    # Marks belong to the letters before them: without them Hindi or Thai would count as symbols.
    return unicodedata.category(character)[0] not in "LMNZ"


def symbol_share(text: str) -> float:
    """Share of characters that are neither letters (with their marks), digits nor spaces; 0 for an empty text."""
    if text.isascii():
        return len(text.encode().translate(None, _NOT_SYMBOLS)) / max(len(text), 1)
    rest = _ASCII.sub("", text)
    found = sum(count for character, count in Counter(rest).items() if _is_symbol(character))
    found += len(text.encode("ascii", "ignore").translate(None, _NOT_SYMBOLS))
    return found / len(text)


def rejected(text: str, rules: Rules) -> str:
    """The name of the first rule that a text in normal form breaks; "" when it passes them all.

    `empty`, `too_short`, `too_many_symbols`, `words_too_short`, `words_too_long`, `repeated_lines`.
    """
    if not text:
        return "empty"
    if len(text) < rules.min_chars:
        return "too_short"
    if symbol_share(text) > rules.max_symbol_share:
        return "too_many_symbols"
    # Where words are not set apart by spaces, the length of what stands between two spaces says nothing.
    spaced = is_spaced(text)
    words = text.count(" ") + text.count("\n") - text.count("\n\n") + 1  # normal form: one separator, or an empty line
    mean = (len(text) - words + 1) / words
    if spaced and mean < rules.min_mean_word_chars:
        return "words_too_short"
    if spaced and mean > rules.max_mean_word_chars:
        return "words_too_long"
    lines = [line for line in text.split("\n") if line]
    if len(lines) - len(set(lines)) > rules.max_repeated_line_share * len(lines):
        return "repeated_lines"
    return ""


def refine(text: str, rules: Rules, lines: frozenset[str]) -> tuple[str, list[str]]:
    """The alterations that the rules ask for, on a text in normal form and into it; and the names of those that did any.

    `lines` are the boilerplate of the part that the text is in.
    """
    changes: list[str] = []
    if lines and (fewer := without_lines(text, lines)) != text:
        changes.append("boilerplate_lines")
        text = fewer
    if rules.drop_repeated_lines and (fewer := without_repeats(text)) != text:
        changes.append("repeated_lines_removed")
        text = fewer
    text, used = drop_lines(text, rules.names)
    text, masked = mask(text, rules.mask)
    changes += used + masked
    return (normalise(text)[0] if changes else text), changes


def unwanted(text: str, rules: Rules) -> str:
    """As `rejected`, by the rules that are switched on by name: their names, or `language_…`."""
    if rules.names and (name := broken_rule(text, rules.names)):
        return name
    if rules.languages:
        code, probability = language(text)
        if code not in rules.languages:
            return f"language_{code}"
        if probability < rules.min_language_probability:
            return "language_unsure"
    return ""


def content_hash(text: str) -> bytes:
    """16 bytes of BLAKE2b of the text in UTF-8: equal texts, equal hashes, on every machine."""
    return hashlib.blake2b(text.encode("utf8"), digest_size=HASH_BYTES).digest()


def signature_schema(num_hashes: int) -> pa.Schema:
    """Columns of a part of signatures, row for row with its part of documents."""
    return pa.schema([("hash", pa.binary(HASH_BYTES)), ("minhash", pa.list_(pa.uint32(), num_hashes))])


def clean_batch(
    batch: pa.RecordBatch, rules: Rules, funnel: Funnel, lines: frozenset[str] = frozenset()
) -> pa.RecordBatch:
    """The documents of a batch that pass, in normal form; counts the others, and the alterations, in the funnel."""
    texts, rows = [], []
    for row, raw in enumerate(batch.column("text").to_pylist()):
        mended = mend(raw) if rules.mend else raw
        text, changes = normalise(mended)
        text, more = refine(text, rules, lines)
        changes += [*more, *(["mended"] if mended != raw else [])]
        reason = rejected(text, rules) or unwanted(text, rules)
        if reason:
            funnel.drop(reason, text)
            continue
        for change in changes:
            funnel.change(change)
        funnel.keep(text)
        texts.append(text)
        rows.append(row)
    kept = batch.take(pa.array(rows, pa.int64()))
    return pa.record_batch(
        [pa.array(texts, pa.string()), *(kept.column(name) for name in SCHEMA.names[1:])], schema=SCHEMA
    )


def _texts(reader: pa.RecordBatchFileReader) -> Iterator[str]:
    for index in range(reader.num_record_batches):
        yield from reader.get_batch(index).column("text").to_pylist()


def clean_shard(raw: Path, folder: Path, rules: Rules, hasher: MinHasher) -> dict:
    """Cleans one raw part into `folder`: the part of the same name and its `signatures-…`. Returns the funnel's dict."""
    funnel = Funnel()
    reader = open_shard(raw)
    lines = boilerplate(_texts(reader), rules.boilerplate_documents) if rules.boilerplate_documents else frozenset()
    schema = signature_schema(hasher.num_hashes)
    signatures = folder / raw.name.replace("part-", "signatures-")
    with (
        pa.ipc.new_file(folder / raw.name, SCHEMA) as texts_out,
        pa.ipc.new_file(signatures, schema) as signatures_out,
    ):
        for index in range(reader.num_record_batches):
            clean = clean_batch(reader.get_batch(index), rules, funnel, lines)
            if not len(clean):
                continue
            texts = clean.column("text").to_pylist()
            hashes = pa.array([content_hash(text) for text in texts], schema.field("hash").type)
            minhash = pa.FixedSizeListArray.from_arrays(
                pa.array(hasher(clean.column("text")).reshape(-1)), hasher.num_hashes
            )
            texts_out.write_batch(clean)
            signatures_out.write_batch(pa.record_batch([hashes, minhash], schema=schema))
    return funnel.to_dict()
