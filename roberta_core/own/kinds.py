"""The kinds of tasks by name."""

from roberta_core.own.kind import Kind, Settings
from roberta_core.own.question_kind import QuestionKind
from roberta_core.own.text_kinds import ClassKind, MultiLabelKind, NumberKind
from roberta_core.own.token_kind import TokenKind

KINDS: dict[str, type[Kind]] = {
    "classification": ClassKind,
    "multi-label": MultiLabelKind,
    "regression": NumberKind,
    "tokens": TokenKind,
    "questions": QuestionKind,
}


def kind_of(settings: Settings) -> Kind:
    """The task that the settings describe."""
    return KINDS[settings.kind](settings)
