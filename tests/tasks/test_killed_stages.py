"""SIGKILL at random moments over the data stages: what is there is whole, and the rerun gives the undisturbed bytes."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from roberta_core.atomic import digest_of
from tests.core.test_executor import alive, wait_for
from tests.tasks.stage_processes import OUT, STAGES, finish, start, write_project

KILLS = 20


def group(leader: int) -> list[int]:
    """Processes of a session that run."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split() if folder.name.isdigit() else []
        except OSError:
            continue
        if fields and int(fields[3]) == leader and alive(int(folder.name)):
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills(tmp_path):
    drawn = random.Random(1907)
    write_project(tmp_path, 4_000)
    seconds: dict[str, float] = {}
    for stage in STAGES:
        began = time.monotonic()
        code, said = finish(start(tmp_path, stage))
        assert code == 0, said
        seconds[stage] = time.monotonic() - began
    whole = {out: digest_of(tmp_path / out) for out in OUT.values()}
    killed = 0
    for number in range(KILLS):
        stage = STAGES[number % len(STAGES)]
        out = tmp_path / OUT[stage.split()[0]]
        if drawn.random() < 0.5:
            shutil.rmtree(out, ignore_errors=True)  # as DVC does before it runs a stage
        process = start(tmp_path, stage)
        time.sleep(drawn.uniform(0.3, 1.0) * seconds[stage])
        if drawn.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # its workers must see it by themselves
        killed += finish(process)[0] == -signal.SIGKILL
        assert wait_for(lambda leader=process.pid: not group(leader), 10), "a worker outlived its stage"
        for name in OUT.values():
            assert not (tmp_path / name).exists() or digest_of(tmp_path / name) == whole[name], (stage, name)
        if not out.exists():  # what the next stage reads
            code, said = finish(start(tmp_path, stage))
            assert code == 0, said
            assert digest_of(out) == whole[OUT[stage.split()[0]]]
    assert killed >= KILLS // 2, "the moments lie inside the stages"
    for stage in STAGES:
        assert finish(start(tmp_path, stage))[0] == 0
    assert {out: digest_of(tmp_path / out) for out in OUT.values()} == whole
    assert not [path for path in tmp_path.rglob("*.tmp") if ".work" not in path.parts]
