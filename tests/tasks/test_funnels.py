"""`roberta funnel`: the funnels in the order of the stages, with reasons and excerpts."""

import pytest

from roberta_core.atomic import write_json
from roberta_core.data.funnel import Funnel
from roberta_core.errors import BadInput
from tasks.funnels import lines


def test_the_funnels_of_what_has_run(tmp_path):
    raw, clean = Funnel(), Funnel()
    for funnel in (raw, clean):
        funnel.keep("x" * 1200)
    clean.drop("too_short", "Tiny text")
    clean.drop("empty", "")
    clean.drop("too_short", "Other tiny text")
    clean.change("nfc")
    write_json(tmp_path / "data/raw/b/funnel.json", raw.to_dict())
    write_json(tmp_path / "data/clean/b/funnel.json", clean.to_dict())
    told = list(lines(tmp_path, ["a", "b"], examples=True))
    assert told[0] == "download b: 1 of 1 documents kept (100.0%), 1,200 characters"
    assert told[1] == "clean b: 1 of 4 documents kept (25.0%), 1,200 characters"
    assert [line.split() for line in told[2:4]] == [["dropped", "2", "50.0%", "too_short"], ["|", "Tiny", "text"]]
    assert told[-1].split() == ["altered", "1", "25.0%", "nfc"]
    assert not any("Tiny" in line for line in lines(tmp_path, ["b"], examples=False))


def test_the_table_of_evaluation_sets(tmp_path):
    write_json(tmp_path / "data/shards/funnel.json", Funnel().to_dict())
    row = {"texts": 1043, "too_short": 7, "found": 2, "documents": 3}
    write_json(tmp_path / "data/shards/decontamination.json", {"mode": "report", "sets": {"CoLA/dev.tsv": row}})
    assert list(lines(tmp_path, [], True))[-1] == (
        "  CoLA/dev.tsv: 2 of 1,043 texts, in 3 documents, 7 too short to look for"
    )


def test_nothing_has_run(tmp_path):
    with pytest.raises(BadInput, match="No data stage has run here yet"):
        list(lines(tmp_path, ["a"], True))
