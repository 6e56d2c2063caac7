"""docs/params.md is the schema, word for word."""

from pathlib import Path

from tasks import params_doc
from tasks.params import Params

ROOT = Path(__file__).parents[2]


def test_the_page_in_the_repo_is_up_to_date():
    assert (ROOT / params_doc.PAGE).read_text(encoding="utf8") == params_doc.page(), "run: python -m tasks.params_doc"


def test_every_key_of_every_section_has_a_row_with_a_meaning():
    rows = [line.split(" | ") for line in params_doc.page().splitlines() if line.startswith("| `")]
    sections = [field.annotation for name, field in Params.model_fields.items() if name not in ("seed", "corpus")]
    keys = [key for section in sections for key in section.model_fields]
    assert len(rows) > len(keys)
    assert {f"| `{key}`" for key in keys} <= {row[0] for row in rows}
    assert [row[0] for row in rows if row[-1].strip(" |") == ""] == []


def test_kinds_read_as_yaml():
    pretrain = Params.model_fields["pretrain"].annotation.model_fields
    rate = pretrain["peak_lr"]
    assert params_doc.kind_of(rate.annotation, rate.metadata) == "number (more than 0) or null"
    assert params_doc.kind_of(pretrain["recipe"].annotation) == "`fast`, `paper`"
