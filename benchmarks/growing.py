"""A corpus of any size from a small one: real text, repeated with edits that no deduplication takes for repeats.

The base is English Wikipedia (WikiExtractor files) and books (markdown), in files of about a megabyte and less, taken
in turns so that every size has the same mixture. Round 0 is the text as it is. In round r every fourth word of a line
changes its place with the one that stands r times eleven such words further: the words and their counts stay, so that a
tokenizer sees the same language, and hardly any five-word shingle is left (Jaccard below 0.1 to every other round).
"""

from collections.abc import Iterator
from pathlib import Path

STEP = 4
"""Every fourth word moves: no run of five words stays whole."""


def edited(text: str, round_: int) -> str:
    """The text with every fourth word moved; as it is in round 0. Lines that are marks (`<doc`, `#`) stay."""
    if not round_:
        return text
    lines = text.split("\n")
    words = [line.split(" ") for line in lines]
    places = [
        (at, place)
        for at, (line, row) in enumerate(zip(lines, words))
        if not line.startswith(("<", "#"))
        for place in range(0, len(row), STEP)
    ]
    taken = [words[at][place] for at, place in places]
    shift = (11 * round_) % max(len(taken), 1)
    for (at, place), word in zip(places, taken[shift:] + taken[:shift]):
        words[at][place] = word
    return "\n".join(" ".join(row) for row in words)


def base_files(data: Path) -> list[tuple[str, Path]]:
    """Source and file, in an order in which any beginning has the mixture of the whole."""
    found = {"wiki": sorted(data.glob("wiki_en/text/AA/wiki_*")), "books": sorted(data.glob("books_en/*/*.md"))}
    placed = [
        ((number + 0.5) / len(paths), source, path)
        for source, paths in found.items()
        for number, path in enumerate(paths)
    ]
    return [(source, path) for _, source, path in sorted(placed)]


def pieces(data: Path, size_mb: float, first_round: int = 0) -> Iterator[tuple[str, str, str]]:
    """Source, name and text of each file until `size_mb` MB are reached; rounds follow one another."""
    left, round_ = size_mb * 1e6, first_round
    files = base_files(data)
    while left > 0:
        for source, path in files:
            text = edited(path.read_text(encoding="utf8"), round_)
            name = path.name if source == "wiki" else f"{path.parent.name}-{path.name}"
            yield source, f"r{round_}/{name}", text
            left -= len(text.encode("utf8"))
            if left <= 0:
                return
        round_ += 1


def write_corpus(data: Path, folder: Path, size_mb: float, first_round: int = 0) -> dict[str, float]:
    """Writes `folder/wiki` and `folder/books`. Returns the MB of each."""
    sizes: dict[str, float] = {}
    for source, name, text in pieces(data, size_mb, first_round):
        file = folder / source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf8")
        sizes[source] = sizes.get(source, 0.0) + file.stat().st_size / 1e6
    return sizes
