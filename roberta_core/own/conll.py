"""Sentences in columns, as the CoNLL tasks write them: a token a line, a blank line between sentences.

Columns are parted by tabs where the file has any, else by blanks; which column is the token and which the tag are
numbers, counted from 1, from the end where negative. Comments (`# ` in files that have them before a sentence, as CoNLL-U)
and `-DOCSTART-` lines are no tokens.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roberta_core.data.funnel import Funnel
from roberta_core.errors import BadInput
from roberta_core.own.reading import read_text, refuse_if_bad

PREFIXES = ("B", "I", "E", "S")
"""Of tags: begin, inside, end, single (IOB, IOBES)."""


@dataclass
class Sentences:
    """The sentences of a file.

    Attributes:
        words: of each sentence its tokens.
        tags: of each sentence its tags; empty where the file hides them.
        lines: of each sentence its first line.
        notes: what was left out or mended, one line a reason.
    """

    words: list[list[str]] = field(default_factory=list)
    tags: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.words)

    def take(self, chosen: Sequence[int]) -> "Sentences":
        """The chosen sentences; notes stay with the file."""
        tags = [self.tags[row] for row in chosen] if self.tags else []
        return Sentences([self.words[row] for row in chosen], tags, [self.lines[row] for row in chosen])

    def keys(self) -> list[str]:
        """Of each sentence the text that decides on which side of a split it goes."""
        return [" ".join(each) for each in self.words]

    def texts_of_rows(self) -> list[str]:
        """The same: a row is its text."""
        return self.keys()

    def labelled_rows(self) -> list[tuple[str, tuple[str, ...]]]:
        """Of each sentence its text and its tags."""
        return list(zip(self.keys(), map(tuple, self.tags)))


def _blocks(text: str) -> list[list[tuple[int, str]]]:
    """Lines with their numbers, a list a sentence."""
    found: list[list[tuple[int, str]]] = [[]]
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.removesuffix("\r")
        if not line.strip():
            found.append([])
        elif not line.startswith("-DOCSTART-"):
            found[-1].append((number, line))
    return [each for each in found if each]


def _is_comment(line: str, separator: str | None) -> bool:
    return line.startswith("# ") and separator == "\t" and "\t" not in line


def _at(column: int, width: int) -> int:
    """Where a column stands among `width` fields, from 0."""
    return column - 1 if column > 0 else width + column


def _misfit(width: int, token: int, tag: int) -> str:
    """Why a line of so many fields does not have both columns; empty where it has."""
    needed = max(abs(token), abs(tag))
    if width < needed:
        return f"{width} columns, and column {needed} is asked for"
    return f"{width} columns, of which {token} and {tag} are one" if _at(token, width) == _at(tag, width) else ""


def entity_fault(tag: str) -> str:
    """Why a tag is none of an entity; empty where it is one."""
    prefix, mark, name = tag.partition("-")
    return "" if tag == "O" or (prefix in PREFIXES and mark and name) else f"{tag!r} is neither O nor B-… or I-…"


def read_conll(file: Path, token: int, tag: int, entities: bool, may_hide: bool = False) -> Sentences:
    """Reads a file in columns.

    Args:
        token, tag: numbers of the columns, from 1, or from the end where negative.
        entities: tags are `O`, `B-type`, `I-type` (or with E and S), and not any word.
        may_hide: a test set, which may have no column of tags.

    Raises:
        BadInput: the file cannot be read, has no such column, or holds other tags.
    """
    text, funnel = read_text(file), Funnel()
    separator = "\t" if "\t" in text else None
    result, mended = Sentences(), Counter()
    blocks = _blocks(text)
    width = max((len(line.split(separator)) for block in blocks for _, line in block), default=0)
    hidden = may_hide and bool(_misfit(width, token, tag))
    for block in blocks:
        words, tags, fault = [], [], ""
        for number, line in block:
            if _is_comment(line, separator):
                continue
            fields = line.split(separator)
            if not hidden and (misfit := _misfit(len(fields), token, tag)):
                fault = f"{file}, line {number}: {misfit}: {line[:60]}"
                break
            words.append(fields[0 if len(fields) < abs(token) else _at(token, len(fields))].strip())
            if not words[-1]:
                fault = f"{file}, line {number}: the token is empty"
                break
            if hidden:
                continue
            tags.append(fields[_at(tag, len(fields))].strip())
            if entities and (wrong := entity_fault(tags[-1])):
                raise BadInput(
                    f"{file}, line {number}: {wrong}.",
                    "Mend the tag or the column's number; for tags that are no entities set metric: accuracy.",
                )
            kind = tags[-1][2:]
            before = tags[-2] if len(tags) > 1 else "O"
            if entities and tags[-1][0] in "IE" and (before == "O" or before[2:] != kind):
                mended[f"{file}, line {number}"] += 1
        if fault:
            funnel.drop("unreadable_sentence", fault)
        elif words:
            result.words.append(words)
            result.lines.append(block[0][0])
            if not hidden:
                result.tags.append(tags)
    result.notes = refuse_if_bad(file, funnel, len(result))
    if mended:
        result.notes.append(
            f"{len(mended):,} entities begin without B-, and are counted as entities, as conlleval does ({next(iter(mended))})"
        )
    if hidden:
        result.notes.append(f"{file} hides its tags: predicted, and not scored")
    return result


def tag_names(train: Sentences, file: Path) -> list[str]:
    """The tags that occur in training, `O` first; for an entity type that only ever begins, its `I-` is not made up.

    Raises:
        BadInput: there is one tag only.
    """
    seen = {tag for tags in train.tags for tag in tags}
    if len(seen) < 2:
        told = f"every token has the tag {next(iter(seen))!r}" if seen else "no token has a tag"
        raise BadInput(f"{file}: {told}.", "There is nothing to tell apart; is it the wrong column?")
    # a type's B- and I- side by side
    return sorted(seen, key=lambda tag: (tag != "O", tag.partition("-")[::-1]))


def unseen_tags(rows: Sentences, names: Sequence[str], file: Path) -> list[str]:
    """One line for each tag that training does not know: a model cannot give it, so its tokens count as wrong.

    Raises:
        BadInput: no tag but `O` is one that training knows.
    """
    known, found = set(names), {}
    for line, tags in zip(rows.lines, rows.tags):
        for at, tag in enumerate(tags):
            if tag not in known:
                found.setdefault(tag, []).append(line + at)
    if found and not any(tag in known and tag != "O" for tags in rows.tags for tag in tags):
        tag, at = next(iter(found.items()))
        raise BadInput(
            f"{file}, line {at[0]}: the tag {tag!r}, like all others there, never occurs in training.",
            f"Training knows: {', '.join(names[:20])}.",
        )
    return [
        f"the tag {tag!r} never occurs in training: {len(at):,} {'token counts' if len(at) == 1 else 'tokens count'} "
        f"as wrong ({file}, line {at[0]})"
        for tag, at in sorted(found.items())
    ]
