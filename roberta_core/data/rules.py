"""The rules of Gopher and C4 by name, with their published thresholds. Each one is switched on by its name in params.

Rules on documents name the reason for which a text is dropped; rules on lines take lines out. Gopher: Rae et al. 2021,
appendix A.1 and table A1. C4: Raffel et al. 2020, section 2.2. Where a paper leaves something open, it says so here:
a repeat is each occurrence after the first; the most frequent n-gram counts only when it occurs twice. C4's list of
bad words is not here: its licence is unclear and what it catches is disputed. Both papers speak of English: the word
rules are left out for text whose script sets no spaces, and `gopher_stop_words` should be for other languages.

Price on one core, documents of 250 words: some 0.1 ms for the quality rules, 0.5 ms for the n-grams.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np

from roberta_core.data.words import UNSPACED, gram_hashes, mix

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
BULLETS = ("•", "‣", "◦", "▪", "*", "-", "–")
TOP_GRAMS = {2: 0.20, 3: 0.18, 4: 0.16}
"""Largest share of characters in the most frequent n-gram (Gopher, table A1)."""

REPEATED_GRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Largest share of characters in repeated n-grams (Gopher, table A1)."""

_LETTER = re.compile(r"[^\W\d_]")
_CITATION = re.compile(r"\[\d{1,3}\]|\[edit\]|\[citation needed\]")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*(?:\s|$)|[。！？]+")
_TERMINAL = (".", "!", "?", '"', "”", "。", "！", "？")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


def is_spaced(text: str) -> bool:
    """Whether most of the text is in scripts that set words apart by spaces."""
    return text.isascii() or 2 * sum(map(len, UNSPACED.findall(text))) < len(text)


# -- documents ----------------------------------------------------------------------------------------------------------


def _repeats(parts: list[str]) -> tuple[float, float]:
    """Shares of the parts, and of their characters, that repeat an earlier one."""
    seen: set[str] = set()
    count = chars = 0
    for part in parts:
        if part in seen:
            count += 1
            chars += len(part)
        seen.add(part)
    return count / max(len(parts), 1), chars / max(sum(map(len, parts)), 1)


def _word_ids(words: list[str]) -> np.ndarray:
    """A number a word, the same for the same word, spread over 64 bits: uint64 [words]."""
    known: dict[str, int] = {}
    ids = np.fromiter((known.setdefault(word, len(known) + 1) for word in words), dtype=np.uint64, count=len(words))
    return mix(ids)


def gram_shares(words: list[str]) -> dict[int, float]:
    """Shares of the characters of the words: for 2 to 4, those in the most frequent n-gram; for 5 to 10, those in n-grams
    that occurred before (a character counts once)."""
    sizes = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    total, running = max(int(sizes.sum()), 1), np.concatenate([[0], np.cumsum(sizes)])
    shares = {}
    for length, grams in gram_hashes(_word_ids(words), max(REPEATED_GRAMS)):
        if length not in TOP_GRAMS and length not in REPEATED_GRAMS:
            continue
        shares[length] = 0.0
        grams = grams[: max(len(words) - length + 1, 0)]
        if not len(grams):
            continue
        _, firsts, inverse, counts = np.unique(grams, return_index=True, return_inverse=True, return_counts=True)
        if length in TOP_GRAMS:
            # of several that are as frequent, the one with the most characters
            chars = (running[firsts + length] - running[firsts]) * counts
            shares[length] = float(chars[counts == counts.max()].max() / total) if counts.max() > 1 else 0.0
            continue
        again = np.flatnonzero(firsts[inverse] != np.arange(len(grams)))
        covered = np.zeros(len(words) + 1, dtype=np.int64)
        np.add.at(covered, again, 1)
        np.add.at(covered, again + length, -1)
        shares[length] = float(sizes[np.cumsum(covered)[:-1] > 0].sum() / total)
    return shares


def _top_grams(shares: dict[int, float]) -> bool:
    return any(shares[length] > bound for length, bound in TOP_GRAMS.items())


def _repeated_grams(shares: dict[int, float]) -> bool:
    return any(shares[length] > bound for length, bound in REPEATED_GRAMS.items())


WORD_RULES: dict[str, Callable[[list[str], str], bool]] = {
    "gopher_word_count": lambda words, text: not 50 <= len(words) <= 100_000,
    "gopher_mean_word_length": lambda words, text: not 3 <= sum(map(len, words)) / len(words) <= 10,
    "gopher_symbol_ratio": lambda words, text: (
        text.count("#") > 0.1 * len(words) or text.count("...") + text.count("…") > 0.1 * len(words)
    ),
    "gopher_alphabetic_words": lambda words, text: sum(1 for word in words if _LETTER.search(word)) < 0.8 * len(words),
    "gopher_stop_words": lambda words, text: len(STOP_WORDS.intersection(text.lower().split())) < 2,
}
"""Rules that need words; true: the text breaks it."""

LINE_RULES: dict[str, Callable[[list[str]], bool]] = {
    "gopher_bullet_lines": lambda lines: sum(line.startswith(BULLETS) for line in lines) > 0.9 * len(lines),
    "gopher_ellipsis_lines": lambda lines: sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines),
    "gopher_repeated_lines": lambda lines: _repeats(lines)[0] > 0.3,
    "gopher_repeated_line_chars": lambda lines: _repeats(lines)[1] > 0.2,
}
PARAGRAPH_RULES: dict[str, Callable[[list[str]], bool]] = {
    "gopher_repeated_paragraphs": lambda paragraphs: _repeats(paragraphs)[0] > 0.3,
    "gopher_repeated_paragraph_chars": lambda paragraphs: _repeats(paragraphs)[1] > 0.2,
}
GRAM_RULES: dict[str, Callable[[dict[int, float]], bool]] = {
    "gopher_top_ngrams": _top_grams,
    "gopher_repeated_ngrams": _repeated_grams,
}
TEXT_RULES: dict[str, Callable[[str], bool]] = {
    "c4_lorem_ipsum": lambda text: "lorem ipsum" in text.lower(),
    "c4_curly_bracket": lambda text: "{" in text,
    "c4_sentences": lambda text: sum(1 for _ in _SENTENCE_END.finditer(text)) < 3,
}


def broken_rule(text: str, names: frozenset[str]) -> str:
    """The first of the named rules on documents that a text in normal form breaks; "" when it passes them all."""
    for name, breaks in TEXT_RULES.items():
        if name in names and breaks(text):
            return name
    spaced, words = is_spaced(text), text.split()
    for name, breaks in WORD_RULES.items():
        if name in names and spaced and breaks(words, text):
            return name
    lines = [line for line in text.split("\n") if line]
    for name, breaks in LINE_RULES.items():
        if name in names and breaks(lines):
            return name
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph]
    for name, breaks in PARAGRAPH_RULES.items():
        if name in names and breaks(paragraphs):
            return name
    if spaced and not names.isdisjoint(GRAM_RULES):
        shares = gram_shares(words)
        for name, breaks in GRAM_RULES.items():
            if name in names and breaks(shares):
                return name
    return ""


# -- lines --------------------------------------------------------------------------------------------------------------

C4_LINES: dict[str, Callable[[str], bool]] = {
    "c4_terminal_punctuation": lambda line: not line.endswith(_TERMINAL),
    "c4_line_words": lambda line: is_spaced(line) and len(line.split()) < 5,
    "c4_javascript": lambda line: "javascript" in line.lower(),
    "c4_policies": lambda line: any(words in line.lower() for words in _POLICIES),
}
"""Rules that take a line out where they hold."""

CITATIONS = "c4_citations"
"""Takes [1], [edit] and [citation needed] out."""


def drop_lines(text: str, names: frozenset[str]) -> tuple[str, list[str]]:
    """The text without the lines that the named rules take out, and the names of those that did."""
    used: list[str] = []
    if CITATIONS in names and "[" in text:
        fewer = _CITATION.sub("", text)
        if fewer != text:
            used.append(CITATIONS)
            text = fewer
    rules = {name: breaks for name, breaks in C4_LINES.items() if name in names}
    if not rules:
        return text, used
    kept = []
    for line in text.split("\n"):
        name = next((name for name, breaks in rules.items() if breaks(line)), "") if line else ""
        if not name:
            kept.append(line)
        elif name not in used:
            used.append(name)
    return "\n".join(kept), used


GOPHER = (*WORD_RULES, *LINE_RULES, *PARAGRAPH_RULES, *GRAM_RULES)
C4 = (*C4_LINES, CITATIONS, *TEXT_RULES)
GROUPS = {"gopher": GOPHER, "c4": C4}
NAMES = (*GROUPS, *GOPHER, *C4)
"""Every name that params.clean.rules takes; `gopher` and `c4` stand for all of theirs."""


def expand(names: Iterable[str], off: Iterable[str] = ()) -> frozenset[str]:
    """The rules behind the names, groups opened, without those that are switched off."""
    opened = {rule for name in names for rule in GROUPS.get(name, (name,))}
    return frozenset(opened.difference(*(GROUPS.get(name, (name,)) for name in off)))
