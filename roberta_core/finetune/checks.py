"""What is odd about a task's rows and does not stop it: told with the score, so that nobody believes it too much."""

from collections.abc import Sequence


def shared_rows(train: Sequence[tuple[str, ...]], other: Sequence[tuple[str, ...]]) -> int:
    """Rows of `other` whose texts, all of them, stand in `train` too."""
    known = set(train)
    return sum(row in known for row in other)


def empty_rows(texts: Sequence[tuple[str, ...]]) -> int:
    """Rows with a text that is empty or all spaces."""
    return sum(not all(text.strip() for text in row) for row in texts)


def oddities(
    train: Sequence[tuple[str, ...]], dev: Sequence[tuple[str, ...]], truncated: int, max_length: int
) -> tuple[dict[str, int], list[str]]:
    """Counts by name, and a note for each that is not 0. `truncated`: rows of both that were cut."""
    counts = {
        "shared": shared_rows(train, dev),
        "empty": empty_rows(train) + empty_rows(dev),
        "truncated": truncated,
    }
    notes = []
    if counts["shared"]:
        notes.append(f"{counts['shared']:,} of {len(dev):,} dev rows stand in train too: the score flatters")
    if counts["empty"]:
        notes.append(f"{counts['empty']:,} rows have an empty text; they are used as they are")
    if truncated:
        notes.append(f"{truncated:,} rows are longer than {max_length} tokens and were cut")
    return counts, notes
