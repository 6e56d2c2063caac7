"""The graph as DVC has it, staleness in words, and the order of dvc.lock."""

import shutil

import pytest

from flows.graph import (
    LOCK_ORDER,
    PipelineUnreadable,
    check_inputs,
    lock_keys,
    read_stages,
    read_stale,
    remember_lock_order,
    restore_lock_order,
)
from roberta_core.errors import BadInput, TryAgain

from .conftest import REPO, dvc


def test_stages_come_in_the_order_of_repro_with_what_they_need(project):
    stages = {stage.name: stage.needs for stage in read_stages(project)}
    assert list(stages) == ["a@x", "a@y", "b", "c", "d"]
    assert stages["b"] == ("a@x", "a@y")
    assert stages["d"] == ("b", "c")
    printed = [line for line in dvc(project, "repro").stdout.splitlines() if line.startswith("Running")]
    assert [line.split("'")[1] for line in printed] == list(stages)
    assert lock_keys(project) == list(stages)
    assert read_stale(project) == {}


def test_the_real_pipeline_reads_and_is_in_topological_order():
    stages = read_stages(REPO)
    seen = set()
    for stage in stages:
        assert set(stage.needs) <= seen, stage
        seen.add(stage.name)
    assert {"dedup", "pretrain", "summary"} <= seen


def test_stale_says_why(project):
    dvc(project, "repro", "-s", "c")
    assert list(read_stale(project)) == ["a@x", "a@y", "b", "d"]
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("seed: 1907", "seed: 7"))
    assert read_stale(project)["c"] == ["deps: seed modified"]


def test_a_pipeline_that_cannot_be_read_is_one_line(project):
    (project / "dvc.yaml").write_text("stages:\n  a:\n    cmd: echo ${nowhere}\n")
    for read in (read_stages, read_stale):
        with pytest.raises(PipelineUnreadable, match="nowhere") as told:
            read(project)
        assert "\n" not in str(told.value)


def test_lock_order_is_restored_to_the_byte(project, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(project, other)
    dvc(project, "repro", "a@x", "a@y", "c")
    remember_lock_order(other)
    for stage in ("c", "a@y", "a@x"):
        dvc(other, "repro", "-s", stage)
    assert (other / "dvc.lock").read_bytes() != (project / "dvc.lock").read_bytes()
    restore_lock_order(other, read_stages(other))
    assert (other / "dvc.lock").read_bytes() == (project / "dvc.lock").read_bytes()


def test_old_stages_keep_their_place_in_the_lock(project):
    dvc(project, "repro", "-s", "c")
    remember_lock_order(project)
    # a run that was killed here left its remembered order, which the next one must not overwrite
    dvc(project, "repro", "-s", "a@y")
    remember_lock_order(project)
    dvc(project, "repro", "-s", "a@x")
    restore_lock_order(project, read_stages(project))
    assert lock_keys(project) == ["c", "a@x", "a@y"]


def test_another_dvc_at_work_is_said_and_nothing_is_lost(project):
    from dvc.repo import Repo

    dvc(project, "repro", "-s", "c")
    (project / LOCK_ORDER).parent.mkdir()
    (project / LOCK_ORDER).write_text('{"stages": []}')
    dvc(project, "repro", "-s", "a@y")
    with Repo(str(project)) as repo, repo.lock:
        with pytest.raises(TryAgain, match="Another dvc command is at work here"):
            read_stale(project)
        assert not restore_lock_order(project, read_stages(project))
    assert restore_lock_order(project, read_stages(project))
    assert lock_keys(project) == ["a@y", "c"]


def test_an_input_that_is_not_there_is_told_before_anything_runs(project):
    check_inputs(project)  # what stages make is missing too, and that is as it should be
    (project / "work.sh").rename(project / "elsewhere.sh")
    with pytest.raises(BadInput, match=r"There is no work.sh, which a@x reads. Put it back."):
        check_inputs(project)


def test_a_source_that_is_not_there_is_told_with_its_key(project):
    text = (project / "dvc.yaml").read_text()
    stage = "  download:\n    foreach: [notes]\n    do:\n      cmd: cat ${item}\n      deps: [my-texts]\n"
    (project / "dvc.yaml").write_text(text + stage)
    with pytest.raises(
        BadInput, match=r"There is no my-texts, .* or set corpus.sources.notes.path to one that exists"
    ):
        check_inputs(project)


def test_a_folder_without_git_is_told_what_to_do_and_that_helps(project):
    shutil.rmtree(project / ".git")
    with pytest.raises(PipelineUnreadable, match=r"is no git repository.*git init .*core.no_scm true") as told:
        read_stages(project)
    assert "\n" not in str(told.value)
    dvc(project, "config", "--local", "core.no_scm", "true")
    assert len(read_stages(project)) == 5


def test_the_stages_up_to_some_are_those_and_what_they_need(project):
    from flows.graph import needed_for
    from roberta_core.errors import BadInput

    plan = read_stages(project)
    assert {stage.name for stage in needed_for(plan, ["b"])} == {"a@x", "a@y", "b"}
    assert {stage.name for stage in needed_for(plan, ["a", "c"])} == {"a@x", "a@y", "c"}
    assert needed_for(plan, ["d"]) == plan
    with pytest.raises(BadInput, match=r"There is no stage e. There are: .*a@x"):
        needed_for(plan, ["e"])
