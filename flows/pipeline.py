"""The Prefect flow: each stage of dvc.yaml one task of the same name, then register, promote and report.

Prefect decides when and shows what happens; DVC decides what is stale. A stage that `dvc status` calls fresh, below
stages that did not run, is shown as up to date without starting DVC; one below a stage that ran is handed to DVC, which
skips it when its inputs came out the same. Prefect's own task cache stays off: two caches would disagree.

The loop submits a stage when all that it needs have ended, at most `runtime.parallel_stages` at once, so that no
worker thread waits for another. A failed stage stops what depends on it and nothing else. Exit code 75 of a stage
means a new attempt after a pause; the pauses are here and not Prefect's retries, whose sleep no Ctrl-C can end.
"""

import queue
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State

from flows import artifacts, graph, settings
from flows.live import Live
from flows.patience import outlive_server
from flows.process import Groups, run_stage
from flows.terminal import Board
from roberta_core.errors import TryAgain, UserError
from roberta_core.lock import held_lock
from roberta_core.progress import human_time
from tasks.params import Params
from tasks.params_file import load_params

RETRY_AFTER_S = (10.0, 30.0, 90.0)
STEPS = ("register", "promote", "report")

outlive_server()


class RunFailed(UserError):
    """One stage or more failed; the first one's line is the message."""


@dataclass
class Run:
    """One run: where it is, what it shows on, what it has started, how each stage ended (`how`, seconds, note)."""

    root: Path
    params: Params
    board: Board
    live: Live
    lock_fd: int
    groups: Groups = field(default_factory=Groups)
    ended: dict[str, tuple[str, float, str]] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)

    def end(self, name: str, how: str, seconds: float = 0.0, note: str = "") -> None:
        self.ended[name] = (how, seconds, note)
        self.board.ended(name, how, seconds, note)


def run_lock(root: Path) -> AbstractContextManager[int]:
    """Holds the lock of the one run that may go on here; gives its file descriptor, which the guards share."""
    return held_lock(root / ".work" / "run.lock", "Another run is going on in this folder")


# The run goes to tasks by this module and not as an argument: it holds locks and threads, which Prefect would try to
# serialise for its records. One run a process, which the lock sees to.
_run: Run | None = None


@task(cache_policy=NO_CACHE, persist_result=False)
def stage_task(name: str, stale: bool) -> State:
    """Runs one stage, or says that it is up to date."""
    run = _run
    assert run is not None
    if not stale:
        run.end(name, "up to date")
        return Completed(name="UpToDate", message="up to date")
    logger = get_run_logger()
    run.board.started(name)
    run.live.started(name)

    def show(line: str) -> None:
        run.board.line(name, line)
        run.live.line(name, line)

    pauses = list(RETRY_AFTER_S)
    while True:
        try:
            ended = run_stage(name, run.root, run.groups, show, run.lock_fd)
            break
        except TryAgain as error:
            if run.groups.stopping.is_set() or not pauses:
                return _failed(run, name, error)
            pause = pauses.pop(0)
            logger.warning("%s Again in %s.", error, human_time(pause))
            run.board.say(f"{name}: {error} Again in {human_time(pause)}.", "yellow")
            if run.groups.stopping.wait(pause):
                return _failed(run, name, error)
        except Exception as error:
            return _failed(run, name, error)
    logger.info("%s: %s in %.1f s, log in logs/%s.log", name, ended.how, ended.seconds, name.replace("@", "-"))
    run.end(name, ended.how, ended.seconds)
    run.live.ended(name, f"{name}: {ended.how} in {human_time(ended.seconds)}")
    if ended.how == "up to date":
        return Completed(name="UpToDate", message="up to date")
    return Completed(message=f"{ended.how} in {human_time(ended.seconds)}")


def _failed(run: Run, name: str, error: BaseException) -> State:
    run.errors.append(error)
    run.end(name, "failed", note=str(error))
    return Failed(message=str(error))


@task(cache_policy=NO_CACHE, persist_result=False)
def step_task(name: str) -> State:
    """Register, promote or report: what has effects outside the tree, and so is no DVC stage."""
    run = _run
    assert run is not None
    run.board.started(name)
    started = time.monotonic()
    try:
        how, note = _STEPS[name](run)
    except Exception as error:
        state = _failed(run, name, error)
        if not isinstance(error, UserError):
            raise
        return state
    run.end(name, how, time.monotonic() - started, note)
    return Completed(name="UpToDate" if how == "up to date" else "Completed", message=note)


def _register(run: Run) -> tuple[str, str]:
    from tasks.registry import register_all

    new = register_all(run.params, run.root, on_line=lambda line: run.board.line("register", line))
    return ("done", f"new versions: {', '.join(new)}") if new else ("up to date", "nothing new to register")


def _promote(run: Run) -> tuple[str, str]:
    from tasks.promotion import promote_all

    said = promote_all(run.params, run.root)
    for line in said:
        run.board.say(f"    {line}", "dim")
        get_run_logger().info(line)
    return ("done", f"{len(said)} decided") if said else ("up to date", "nothing to decide")


def _report(run: Run) -> tuple[str, str]:
    from tasks.report import PAGE

    if all(how == "up to date" for how, _, _ in run.ended.values()) and _is_newest(run.root, run.root / PAGE):
        return "up to date", str(run.root / PAGE)
    from tasks.registry import overview
    from tasks.report import write_report

    return "done", str(write_report(run.root, overview(run.params, run.root)))


def _is_newest(root: Path, page: Path) -> bool:
    """Whether the page was written after everything it shows, and after the code that writes it.

    The registry of a server has no time to compare with, so the page is then written every time.
    """
    sources = [root / "dvc.lock", root / "params.yaml", root / "mlflow.db", *(root / "tasks").glob("*.*")]
    try:
        return all(page.stat().st_mtime > each.stat().st_mtime for each in sources)
    except FileNotFoundError:
        return False


_STEPS: dict[str, Callable[[Run], tuple[str, str]]] = {"register": _register, "promote": _promote, "report": _report}


def _run_stages(run: Run, plan: list[graph.Stage], stale: dict[str, list[str]]) -> None:
    """Submits each stage when what it needs has ended; returns when nothing runs and nothing more can."""
    futures: dict = {}
    running: set[str] = set()
    ended: queue.SimpleQueue = queue.SimpleQueue()
    waiting = list(plan)
    while waiting or running:
        for stage in [each for each in waiting if all(need in run.ended for need in each.needs)]:
            hows = [run.ended[need][0] for need in stage.needs]
            if any(how in ("failed", "not run") for how in hows):
                run.end(stage.name, "not run", note="what it needs failed")
            elif len(running) < run.params.runtime.parallel_stages:
                must = stage.name in stale or any(how != "up to date" for how in hows)
                named = stage_task.with_options(name=stage.name, task_run_name=stage.name)
                future = named.submit(stage.name, must, wait_for=[futures[need] for need in stage.needs])
                futures[stage.name] = future
                running.add(stage.name)
                future.add_done_callback(lambda _, name=stage.name: ended.put(name))
            else:
                continue
            waiting.remove(stage)
        if running:
            name = ended.get()
            running.discard(name)
            if name not in run.ended:
                # Prefect itself failed, not the stage
                error = RunFailed(f"{name}: {futures[name].state.message}", "Prefect's log says more.")
                run.errors.append(error)
                run.end(name, "failed", note=str(error))


@flow(name="pipeline", persist_result=False, validate_parameters=False)
def pipeline(root: str = ".", publish: bool = True, until: list[str] | None = None) -> dict[str, str]:
    """Brings every stage up to date; then, with `publish`, registers, promotes and writes the report.

    `until` names the stages to reach: these and what they need, and nothing else, are brought up to date.
    Returns how each stage and step ended.

    Raises:
        BadInput: `until` names a stage that there is not.
        RunFailed: a stage failed. TryAgain: another run is going, or a stage still asked for another attempt.
    """
    global _run
    folder = settings.find_root(Path(root))
    settings.prepare(folder)
    params = load_params(folder / "params.yaml")
    with run_lock(folder) as lock_fd:
        whole = graph.read_stages(folder)
        plan = graph.needed_for(whole, until) if until else whole
        graph.check_inputs(folder)
        stale = graph.read_stale(folder)
        graph.remember_lock_order(folder)
        steps = STEPS if publish else ()
        with Board(len(plan) + len(steps)) as board, Live() as live:
            _run = run = Run(folder, params, board, live, lock_fd)
            try:
                _run_stages(run, plan, stale)
                for name in steps:
                    if run.errors:
                        run.end(name, "not run")
                    else:
                        step_task.with_options(name=name, task_run_name=name)(name, return_state=True)
                artifacts.publish(folder, params, run.ended, run.errors)
            finally:
                run.groups.stop()
                if not graph.restore_lock_order(folder, whole):
                    board.say("dvc.lock gets its order at the next run: another dvc command is at work.", "yellow")
                _run = None
    if run.errors:
        raise _first_error(run)
    return {name: how for name, (how, _, _) in run.ended.items()}


def _first_error(run: Run) -> BaseException:
    """The first failure, as one line; the others are on the board already."""
    first = run.errors[0]
    if not isinstance(first, UserError):
        return first
    more = len(run.errors) - 1
    mend = first.mend + (f" And {more} more failed, see above." if more else "")
    return TryAgain(first.what, mend) if isinstance(first, TryAgain) else RunFailed(first.what, mend)
