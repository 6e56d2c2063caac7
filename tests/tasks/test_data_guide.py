"""docs/data.md: what it shows in YAML is taken by the schema, and the rules that it lists are all there are."""

import re
from pathlib import Path

import pytest
import yaml

from roberta_core.data.rules import C4, GOPHER
from tasks.params import Params

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/data.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split(":")[0])
def test_a_block_of_the_guide_is_a_section_that_works(block):
    base = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf8"))
    section = yaml.safe_load(block)
    assert Params.model_validate({**base, **section}).model_fields_set >= set(section)


def test_the_guide_has_blocks_and_names_every_rule():
    assert len(BLOCKS) >= 3
    shown = GUIDE.replace("`…_line_chars`", "gopher_repeated_line_chars").replace(
        "`…_paragraph_chars`", "gopher_repeated_paragraph_chars"
    )
    assert [name for name in (*GOPHER, *C4) if name not in shown] == []
