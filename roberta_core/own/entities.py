"""Tags of words into entities, and raw text into words: what a tagger needs on both sides.

A tagger is trained on files that come in words. Served, it gets raw text and cuts it itself: at blanks, punctuation by itself,
and a word a character in scripts that are written without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese), whose
data sets are mostly tagged by character. Where a file was cut in another way the tags suffer a little there; the
characters that an answer names are those of the raw text in any case.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_NO_BLANKS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
_MARKS = "\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u102b-\u103e\u17b4-\u17d3\u3099\u309a"
WORDS = re.compile(
    rf"[{_NO_BLANKS}][{_MARKS}]*"
    rf"|[@#]?(?:(?![{_NO_BLANKS}])[\w{_MARKS}])+(?:[-.'’_&/](?:(?![{_NO_BLANKS}])\w)+)*"
    rf"|[^\w\s]"
)
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
