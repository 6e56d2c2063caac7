"""Two commits of one project's data, compared from what git has of them."""

import json
import subprocess

import pytest
import yaml

from roberta_core.errors import BadInput
from tasks.data_diff import by_source, funnel, read_state, totals

from .tiny_models import REPO


def git(root, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def write(root, sources: dict[str, tuple[int, int, int, str]], tokens: int, short: int) -> None:
    """Params, lock and metrics of a state: source -> documents read, clean, unique, and the md5 of its data."""
    given = yaml.safe_load((REPO / "params.yaml").read_text())
    given["corpus"]["sources"] = {name: {"kind": "files", "path": name} for name in sources}
    (root / "params.yaml").write_text(yaml.safe_dump(given))
    stages = {
        f"download@{name}": {"outs": [{"path": f"data/raw/{name}", "md5": row[3]}]} for name, row in sources.items()
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    folder = root / "metrics"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    unique = sum(row[2] for row in sources.values())
    for name, (read, clean, _, _) in sources.items():
        (folder / f"download-{name}.json").write_text(json.dumps({"seen": read + 1, "kept": read}))
        (folder / f"clean-{name}.json").write_text(json.dumps({"kept": clean, "dropped_too_short": short}))
    kept = {f"kept_{name}": row[2] for name, row in sources.items()}
    (folder / "dedup.json").write_text(json.dumps({"kept": unique} | kept))
    (folder / "shard.json").write_text(json.dumps({"kept": unique, "chars": 100 * unique}))
    (folder / "pack.json").write_text(json.dumps({"train_tokens": tokens - 10, "validation_tokens": 10}))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three states in a folder below the repository's: two committed, the third only here."""
    top = tmp_path_factory.mktemp("diff")
    git(top, "init", "-q")
    root = top / "inside"
    root.mkdir()
    write(root, {"notes": (100, 90, 80, "a" * 32), "old": (10, 10, 10, "b" * 32)}, 1000, 5)
    git(top, "add", "-A")
    git(top, "commit", "-qm", "one")
    write(root, {"notes": (120, 108, 80, "c" * 32), "web": (50, 40, 30, "d" * 32)}, 1500, 7)
    git(top, "add", "-A")
    git(top, "commit", "-qm", "two")
    write(root, {"notes": (120, 108, 80, "c" * 32)}, 1200, 7)
    return root


def test_documents_tokens_sources_and_funnel(project):
    old, new = read_state(project, "HEAD~1"), read_state(project, "HEAD")
    rows = {row[""]: row for row in totals(old, new)}
    assert rows["documents found"] == {
        "": "documents found",
        "before": "112",
        "after": "172",
        "change": "+60 (+53.6%)",
    }
    assert rows["documents unique"]["change"] == "+20 (+22.2%)"
    assert rows["tokens"] == {"": "tokens", "before": "1,000", "after": "1,500", "change": "+500 (+50.0%)"}
    assert rows["characters kept"]["after"] == "11,000"
    assert by_source(old, new) == [
        {
            "source": "notes",
            "read": "100 -> 120",
            "clean": "90 -> 108",
            "unique": "80",
            "data": "aaaaaaaa -> cccccccc",
        },
        {"source": "old", "read": "10 -> -", "clean": "10 -> -", "unique": "10 -> -", "data": "gone"},
        {"source": "web", "read": "- -> 50", "clean": "- -> 40", "unique": "- -> 30", "data": "new"},
    ]
    assert [row[""] for row in funnel(old, new)] == [
        "clean-notes: dropped, too_short", "clean-old: dropped, too_short", "clean-web: dropped, too_short",
    ]  # fmt: skip
    assert funnel(old, new)[0]["change"] == "+2 (+40.0%)"


def test_the_folder_as_it_is_now_and_nothing_changed(project):
    new, here = read_state(project, "HEAD"), read_state(project, ".")
    assert [row["data"] for row in by_source(new, here)] == ["the same bytes", "gone"]
    assert all(row["change"] == "" for row in totals(here, here)) and funnel(here, here) == []


def test_the_command_shows_three_tables(project, monkeypatch):
    from typer.testing import CliRunner

    from flows.cli import app

    (project / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(project)
    lines = CliRunner().invoke(app, ["data", "diff", "HEAD~1", "HEAD"]).output.splitlines()
    assert any(line.split() == ["tokens", "1,000", "1,500", "+500", "(+50.0%)"] for line in lines)
    assert any(line.startswith("notes") and "aaaaaaaa -> cccccccc" in line for line in lines)
    assert any(line.startswith("clean-notes: dropped, too_short") for line in lines)


def test_what_cannot_be_compared_is_one_line(project):
    with pytest.raises(BadInput, match="git knows no commit HEAD~9 here"):
        read_state(project, "HEAD~9")
    with pytest.raises(BadInput, match=r"git knows no commit --help here"):
        read_state(project, "--help")
    git(project, "rm", "-rq", "--cached", "metrics")
    git(project, "commit", "-qm", "three")
    with pytest.raises(BadInput, match=r"HEAD holds no metrics of the data. Commit them with every run"):
        read_state(project, "HEAD")
