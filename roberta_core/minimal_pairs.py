"""Minimal pairs: which of two sentences does an encoder find likelier, the good one or the bad one?

Nothing is trained: a pair counts as right where the good sentence has the higher pseudo-log-likelihood
(`roberta_core.pseudo_likelihood`). Files are JSON lines as BLiMP's (Warstadt et al. 2020, arXiv 1912.00582): `sentence_good`,
`sentence_bad`, and `UID`, the paradigm, which is the file's name where a row has none. Other keys are not read, so any
file with two sentences a line will do.

A sum over tokens favours the sentence with fewer of them. So the table says how many pairs have sentences of unequal
length (in tokens of this tokenizer), and the share of right ones among those of equal length.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from roberta_core.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from roberta_core.model import RobertaForMaskedLM

MAX_BAD_SHARE = 0.01
"""A larger share of rows that cannot be used makes the file a damaged one, or one of another layout."""

CLOSE_NATS = 0.5
"""In bf16 a sum is off by about 0.1 nats (docs/decisions.md), so a pair closer than this is scored again in float32."""

ALL = "all"
NAMED_ALL = "all (a paradigm)"
"""The table's name of a paradigm that a file calls as the table calls its last row."""


@dataclass(frozen=True)
class Pair:
    """One row: the two sentences, the paradigm it belongs to, and where it stands, for messages."""

    good: str
    bad: str
    paradigm: str
    where: str


@dataclass(frozen=True)
class Paradigm:
    """What the pairs of one paradigm, or all of them, came to.

    Attributes:
        accuracy: share of the pairs whose good sentence is strictly likelier; a tie is not right.
        ties: pairs whose sentences are equally likely, to the bit.
        unequal: pairs whose sentences have different numbers of tokens.
        accuracy_equal: the accuracy on the other pairs; None where there are none.
    """

    name: str
    pairs: int
    accuracy: float
    ties: int
    unequal: int
    accuracy_equal: float | None


def pair_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant: of a folder all its *.jsonl, by name.

    Raises:
        BadInput: there is no such file or folder, or a folder without such files.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not path.exists():
            raise BadInput(f"There is no {path}.", "Give files of JSON lines, or a folder that holds some.")
        if not found:
            raise BadInput(
                f"{path} holds no file that ends in .jsonl.", "Give another folder, or the files themselves."
            )
        files += found
    return files


def _pair(raw: bytes, name: str, where: str) -> Pair | str:
    """A row, or what is wrong with it."""
    try:
        row = json.loads(raw.decode("utf8"))
    except UnicodeDecodeError as error:
        return f"the bytes at position {error.start} are not UTF-8"
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(row, dict):
        return "no JSON object"
    for key in ("sentence_good", "sentence_bad"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            return f"no text in {key}"
    pair = Pair(row["sentence_good"], row["sentence_bad"], str(row.get("UID") or name), where)
    # half a character, as JSON may hold
    if any("\ud800" <= letter <= "\udfff" for letter in pair.good + pair.bad + pair.paradigm):
        return "characters that cannot be written as UTF-8"
    return pair


def read_pairs(paths: Sequence[Path]) -> tuple[list[Pair], list[str]]:
    """Reads files of minimal pairs.

    Returns:
        The pairs, in the files' order; and a line for each row that was left out: file, line, why. Blank lines are no rows.

    Raises:
        BadInput: no file, no usable row in one, or more than `MAX_BAD_SHARE` of a file's rows cannot be used.
    """
    pairs: list[Pair] = []
    bad: list[str] = []
    for file in pair_files(paths):
        known, wrong = len(pairs), len(bad)
        with open(file, "rb") as handle:
            for number, raw in enumerate(handle, 1):
                if raw.strip():
                    where = f"{file}, line {number}"
                    found = _pair(raw.removeprefix(b"\xef\xbb\xbf"), file.name.removesuffix(".jsonl"), where)
                    if isinstance(found, Pair):
                        pairs.append(found)
                    else:
                        bad.append(f"{where}: {found}")
        read, wrong = len(pairs) - known, len(bad) - wrong
        if wrong > MAX_BAD_SHARE * (read + wrong):
            others = f" ({wrong} such rows of {read + wrong})" if wrong > 1 else ""
            raise BadInput(
                f"{bad[-wrong]}{others}.",
                'A row is {"sentence_good": "…", "sentence_bad": "…", "UID": "…"}; mend it, or take it out.',
            )
        if not read:
            raise BadInput(f"{file} has no rows.", "Give the whole file.")
    return pairs, bad


def summarise(
    names: Sequence[str], good: np.ndarray, bad: np.ndarray, good_tokens: np.ndarray, bad_tokens: np.ndarray
) -> list[Paradigm]:
    """Counts by paradigm, in the order of their first pair, and over `ALL` pairs at the end.

    Args:
        names: the paradigm of each pair.
        good, bad: pseudo-log-likelihoods of the two sentences, float [pairs].
        good_tokens, bad_tokens: their lengths in tokens, int [pairs].
    """
    shown = [NAMED_ALL if name == ALL else name for name in names]
    belongs = np.asarray(shown)
    rows = []
    for name in [*dict.fromkeys(shown), ALL]:
        chosen = belongs == name if name != ALL else np.ones(len(names), dtype=bool)
        right, equal = (good > bad)[chosen], (good_tokens == bad_tokens)[chosen]
        rows.append(
            Paradigm(
                name,
                int(chosen.sum()),
                float(right.mean()),
                int((good == bad)[chosen].sum()),
                int((~equal).sum()),
                float(right[equal].mean()) if equal.any() else None,
            )
        )
    return rows


def score_pairs(
    model: "RobertaForMaskedLM",
    tokenizer: "Tokenizer",
    pairs: Sequence[Pair],
    precision: str = "bf16",
    on_sentences: Callable[[int], None] = lambda count: None,
) -> tuple[list[Paradigm], list[str]]:
    """Scores pairs with a masked-language model.

    Args:
        precision: `fp32`; or `bf16`, three times as fast on a CPU that has it, and then pairs within `CLOSE_NATS` again
            in float32, so that rounding decides none.
        on_sentences: called with the number of sentences that were scored since the last call; each different one counts once.

    Returns:
        The paradigms, `ALL` last; and a line for each pair left out: a sentence has no token, or too many for the model.

    Raises:
        BadInput: no pair is left.
    """
    from roberta_core.pseudo_likelihood import encode, pseudo_log_likelihoods

    places: dict[str, int] = {}  # a sentence that comes again is scored once
    for pair in pairs:
        for sentence in (pair.good, pair.bad):
            places.setdefault(sentence, len(places))
    rows = encode(tokenizer, list(places))
    left: list[Pair] = []
    out: list[str] = []
    for pair in pairs:
        both = [rows[places[each]] for each in (pair.good, pair.bad)]
        longest = max(len(row.ids) for row in both)
        if longest > model.config.max_length:
            out.append(f"{pair.where}: {longest} tokens, and the model takes {model.config.max_length}")
        elif not all(row.places for row in both):  # a tokenizer may drop characters
            out.append(f"{pair.where}: a sentence without tokens")
        else:
            left.append(pair)
    if not left:
        raise BadInput(
            f"No pair fits the model: {out[0]}." if out else "There are no pairs.", "Give shorter sentences."
        )
    wanted = sorted({places[each] for pair in left for each in (pair.good, pair.bad)})
    sums = np.full(len(rows), np.nan)
    sums[wanted] = pseudo_log_likelihoods(model, tokenizer, [rows[at] for at in wanted], precision, on_sentences)
    good, bad = (np.array([places[getattr(pair, side)] for pair in left]) for side in ("good", "bad"))
    if precision == "bf16":
        close = np.abs(sums[good] - sums[bad]) < CLOSE_NATS
        again = np.unique(np.concatenate((good[close], bad[close])))
        sums[again] = pseudo_log_likelihoods(model, tokenizer, [rows[at] for at in again], "fp32")
    lengths = np.array([len(row.ids) for row in rows])
    return summarise([pair.paradigm for pair in left], sums[good], sums[bad], lengths[good], lengths[bad]), out
