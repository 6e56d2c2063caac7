"""The funnel: what came in, what went out, why the rest was dropped, with a few examples of each reason."""

from dataclasses import dataclass, field

EXAMPLES = 3
EXAMPLE_CHARS = 160


@dataclass
class Funnel:
    """Counts of documents through one step. Nothing is dropped without a reason that is counted here.

    Attributes:
        seen: documents that came in.
        kept: documents that went out.
        chars: characters (code points) of the documents that went out.
        dropped: documents lost, by the name of the reason.
        changed: documents kept but altered, by the name of the change.
        examples: up to three excerpts per reason.
    """

    seen: int = 0
    kept: int = 0
    chars: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, text: str) -> None:
        """Counts one document that goes on."""
        self.seen += 1
        self.kept += 1
        self.chars += len(text)

    def drop(self, reason: str, excerpt: str, count: int = 1) -> None:
        """Counts one document (or `count` of them) lost for `reason`, and keeps an excerpt."""
        self.seen += count
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        self._example(reason, excerpt)

    def change(self, reason: str, excerpt: str = "") -> None:
        """Counts an alteration to a document that goes on."""
        self.changed[reason] = self.changed.get(reason, 0) + 1
        if excerpt:
            self._example(reason, excerpt)

    def _example(self, reason: str, excerpt: str) -> None:
        held = self.examples.setdefault(reason, [])
        if len(held) < EXAMPLES:
            # A lone surrogate cannot be written as UTF-8; the excerpt shows it as an escape.
            held.append(
                " ".join(excerpt[: 2 * EXAMPLE_CHARS].encode("utf8", "backslashreplace").decode("utf8").split())[
                    :EXAMPLE_CHARS
                ]
            )

    def merge(self, other: "Funnel") -> "Funnel":
        """Adds `other` to this funnel (call in shard order: the examples kept are the first ones). Returns this funnel."""
        self.seen += other.seen
        self.kept += other.kept
        self.chars += other.chars
        for mine, theirs in ((self.dropped, other.dropped), (self.changed, other.changed)):
            for reason, count in theirs.items():
                mine[reason] = mine.get(reason, 0) + count
        for reason, excerpts in other.examples.items():
            for excerpt in excerpts:
                self._example(reason, excerpt)
        return self

    def to_dict(self) -> dict:
        """For `funnel.json`; reasons in name order, so that the bytes do not depend on which came first."""
        return {
            "seen": self.seen,
            "kept": self.kept,
            "chars": self.chars,
            "dropped": dict(sorted(self.dropped.items())),
            "changed": dict(sorted(self.changed.items())),
            "examples": dict(sorted(self.examples.items())),
        }

    @classmethod
    def from_dict(cls, value: dict) -> "Funnel":
        """The inverse of `to_dict`."""
        return cls(**value)

    def metrics(self) -> dict[str, int]:
        """Flat numbers for the stage's metrics file."""
        flat = {"seen": self.seen, "kept": self.kept, "chars": self.chars}
        return flat | {f"dropped_{reason}": count for reason, count in sorted(self.dropped.items())}
