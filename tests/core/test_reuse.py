"""Files of an earlier run: linked when nothing that they depend on has changed, made again when anything has."""

import json
import os
from functools import partial
from pathlib import Path

import pytest

from roberta_core import reuse as reuse_module
from roberta_core.reuse import Reuse


def shout(job: tuple[Path, Path], mark: str, made: Path) -> dict:
    """Writes the input in capitals; tells that it did."""
    source, file = job
    with open(made, "a") as log:
        log.write(f"{source.name}\n")
    file.write_text(source.read_text().upper() + mark)
    return {"chars": len(source.read_text())}


@pytest.fixture
def run(tmp_path):
    def run(texts: dict[str, str], mark: str = "!", workers: int = 1):
        """Files, results, and the names of those that were made, in a new output folder as a stage has it."""
        out, made = tmp_path / f"out{len(list(tmp_path.iterdir()))}", tmp_path / "made.log"
        out.mkdir()
        made.write_text("")
        (tmp_path / "in").mkdir(exist_ok=True)
        for name, text in texts.items():
            (tmp_path / "in" / name).write_text(text)
        jobs = [(tmp_path / "in" / name, out / name) for name in texts]
        kept = Reuse(tmp_path / "kept")
        results = list(kept.map(partial(shout, mark=mark, made=made), jobs, workers, {"mark": mark}))
        kept.forget_others()
        files = {file.name: file.read_text() for file in sorted(out.iterdir())}
        assert results == [{"chars": len(text)} for text in texts.values()]
        assert files == {name: text.upper() + mark for name, text in sorted(texts.items())}
        names = sorted(made.read_text().split())
        assert kept.taken == len(texts) - len(names)
        return names

    return run


def test_what_is_unchanged_is_not_made_again(run, tmp_path):
    assert run({"a": "one", "b": "two"}) == ["a", "b"]
    assert run({"a": "one", "b": "two"}) == []
    assert run({"a": "one", "b": "two, and more", "c": "three"}, workers=2) == ["b", "c"]
    assert run({"x": "one"}) == [], "by content, not by name"
    assert len(list((tmp_path / "kept").iterdir())) == 2, "what a run does not use is not kept for the next"
    assert run({"a": "one", "b": "two"}) == ["b"]
    assert run({"a": "one", "b": "two"}, mark="?") == ["a", "b"], "other parameters"


def test_other_code_makes_all_anew(run, monkeypatch):
    run({"a": "one"})
    monkeypatch.setattr(reuse_module, "code_digest", lambda: "another")
    assert run({"a": "one"}) == ["a"]


@pytest.mark.parametrize("what", ["file", "told", "gone", "no links"])
def test_a_damaged_store_only_costs_time(run, tmp_path, monkeypatch, what):
    run({"a": "one"})
    for path in (tmp_path / "kept").iterdir():
        if what == "file" and not path.suffix:
            path.write_text("SPOILT")
        if what == "told" and path.suffix:
            path.write_text(json.dumps({"sha256": "0"}))
        if what == "gone" and not path.suffix:
            path.unlink()
    if what == "no links":

        def refused(*_):
            raise OSError("no hard links here")

        monkeypatch.setattr(os, "link", refused)
    assert run({"a": "one"}) == ["a"]
