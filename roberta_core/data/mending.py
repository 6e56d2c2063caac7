"""Optional alterations of a text: wrong decoding mended, repeated and boilerplate lines out, personal data masked.

Each is off until params.clean names it, and counted by its name where it changed something. The language of a text is
found here too. ftfy and py3langid are imported only when asked for; py3langid's model is in its package, so nothing is
fetched. Price on one core: ftfy 1 to 2 MB/s, the language 1 ms a document, the rest some 20 MB/s.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

LANGUAGE_CHARS = 2000
"""Beginning of a text that its language is told from."""

MAX_BOILERPLATE_CHARS = 300
"""A longer line is not a menu or a footer; as a repeated paragraph it is for the deduplication."""


@lru_cache(maxsize=1)
def _fixer():
    import ftfy

    # curly quotes and full-width characters are spelling, not damage; NFC and controls are the normal form's work
    config = ftfy.TextFixerConfig(
        uncurl_quotes=False,
        fix_character_width=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
    )
    return lambda text: ftfy.fix_text(text, config)


def mend(text: str) -> str:
    """`schÃ¶n` -> `schön`: text that was decoded with the wrong encoding, HTML entities, ligatures."""
    return text if text.isascii() and "&" not in text else _fixer()(text)


# -- lines --------------------------------------------------------------------------------------------------------------


def _key(line: str) -> str:
    return " ".join(line.split())


def boilerplate(texts: Iterable[str], documents: int) -> frozenset[str]:
    """Lines that stand in at least `documents` of the texts, with single spaces."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({_key(line) for line in text.split("\n") if 0 < len(line) <= MAX_BOILERPLATE_CHARS})
    return frozenset(line for line, count in counts.items() if line and count >= documents)


def without_lines(text: str, lines: frozenset[str]) -> str:
    """The text without those lines."""
    return "\n".join(line for line in text.split("\n") if not line or _key(line) not in lines)


def without_repeats(text: str) -> str:
    """The text without lines that stand in it already."""
    seen: set[str] = set()
    kept = []
    for line in text.split("\n"):
        if line and line in seen:
            continue
        seen.add(line)
        kept.append(line)
    return "\n".join(kept)


# -- personal data ------------------------------------------------------------------------------------------------------

_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9][\w.%+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,24}(?![\w-])"
)
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IP4 = re.compile(rf"(?<![\w.])(?:{_BYTE}\.){{3}}{_BYTE}(?!\w|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_PHONES = (
    re.compile(r"(?<![\w+./-])(?:\+|00)[1-9]\d{0,2}(?:[ ./-]{0,2}\(?\d{1,5}\)?){2,6}(?![\w-]|\.\d)"),
    re.compile(r"(?<![\w+./-])\(?[2-9]\d{2}\)?[ .-]{1,2}[2-9]\d{2}[ .-]\d{4}(?![\w-]|\.\d)"),
)


def _mask_ip6(match: re.Match) -> str:
    found = match.group()
    if not any(character.isdigit() for character in found):
        return found  # `a::b` is a name in a program
    try:
        ipaddress.IPv6Address(found)
    except ValueError:
        return found
    return "[ip]"


def _mask_phone(match: re.Match) -> str:
    found = match.group()
    return "[phone]" if 8 <= sum(character.isdigit() for character in found) <= 15 else found


def mask(text: str, kinds: Iterable[str]) -> tuple[str, list[str]]:
    """The text with `[email]`, `[phone]` and `[ip]` in the place of such data, and what was masked.

    Phone numbers are those with a country code (+49 30 …) and North American ones (212-555-0123): other groups of
    digits are as often dates, prices and part numbers. A version of four numbers (1.2.3.4) is masked as an address.
    """
    used = []
    for kind in kinds:
        before = text
        if kind == "email" and "@" in text:
            text = _EMAIL.sub("[email]", text)
        elif kind == "ip":
            text = _IP6.sub(_mask_ip6, _IP4.sub("[ip]", text)) if "." in text or ":" in text else text
        elif kind == "phone":
            for pattern in _PHONES:
                text = pattern.sub(_mask_phone, text)
        if text != before:
            used.append(f"masked_{kind}")
    return text, used


# -- language -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def languages() -> list[str]:
    """The codes (ISO 639) that can be told apart."""
    return sorted(_identifier().labels)


def language(text: str) -> tuple[str, float]:
    """The likeliest language of a text by its beginning, and its probability."""
    return _identifier().classify(text[:LANGUAGE_CHARS])
