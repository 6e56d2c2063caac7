"""Tags of words into entities, and raw text into words: what a tagger needs on both sides.

A tagger is trained on files that come in words. Served, it gets raw text and cuts it itself: at blanks, punctuation by itself,
and a word a character in scripts that are written without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese), whose
data sets are mostly tagged by character. Where a file was cut in another way the tags suffer a little there; the
characters that an answer names are those of the raw text in any case.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

_NO_BLANKS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)


def _marks() -> str:
    """Signs that belong to the letter before: accents, vowels of Hindi, points of Hebrew and Arabic, joiners of Persian.

    `\w` has none of them. Those above U+12000 are of music, and of signs chosen for Chinese characters.
    """
    codes = [code for code in range(0x300, 0x12000) if unicodedata.category(chr(code))[0] == "M"] + [0x200C, 0x200D]
    return "".join(map(chr, codes))


_MARKS = _marks()
_LETTER = rf"(?:(?![{_NO_BLANKS}])\w[{_MARKS}]*)"
WORDS = re.compile(rf"[{_NO_BLANKS}][{_MARKS}]*|[@#]?{_LETTER}+(?:[-.'’_&/]{_LETTER}+)*|[^\w\s][{_MARKS}]*")
"""A character of a script without blanks; a word, with what holds its parts together (`U.S`, `O'Neil`, `@name`); one sign."""


class Span(NamedTuple):
    """An entity: its type, and its first word and the one after its last."""

    type: str
    first: int
    end: int


def words_of(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word of a raw text, in characters."""
    return [match.span() for match in WORDS.finditer(text)]


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence's tags, as conlleval and seqeval read them: an `I-` that follows nothing begins one."""
    found: list[Span] = []
    open_type, first = "", 0
    for at, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        goes_on = open_type and prefix in ("I", "E") and kind == open_type
        if open_type and not goes_on:
            found.append(Span(open_type, first, at))
            open_type = ""
        if prefix != "O" and not goes_on:
            open_type, first = kind, at
        if open_type and prefix in ("E", "S"):
            found.append(Span(open_type, first, at + 1))
            open_type = ""
    return found
