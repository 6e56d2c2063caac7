"""The frame around every stage: parameters in, metrics out, one clear last line, the right exit code.

A stage module is short: `run(params, *arguments)` calls the library, writes its outputs, and returns the numbers for
`metrics/<stage>.json`; its last line is `sys.exit(stage.main("clean", run))`. The frame validates params.yaml before
anything is written, turns SIGTERM into an orderly stop, and keeps seconds and memory in `logs/`, outside the outputs
that DVC hashes, which hold nothing that differs from run to run.
"""

import errno
import inspect
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from roberta_core.arrow_alone import keep_pandas_out
from roberta_core.atomic import write_json
from roberta_core.errors import EXIT_FAILED, EXIT_TRY_AGAIN, BadParams, Preempted, UserError
from roberta_core.executor import on_cluster
from roberta_core.lock import held_lock
from roberta_core.progress import human_time
from tasks.params import Params
from tasks.params_file import load_params

METRICS = Path("metrics")
LOGS = Path("logs")
WORK = Path(".work")

DISK_FULL = "The disk is full ({}). Free some space and run again; nothing half-written is left."


def stage_file(stage: str, arguments: Sequence[str]) -> str:
    """`clean`, `["wiki"]` -> `clean-wiki`: the name of a stage's metrics, log and timing files."""
    return "-".join([stage, *arguments])


def _stop(signum: int, _frame: object) -> None:
    raise Preempted(f"Stopped by {signal.Signals(signum).name}.", "Run again to go on.")


def explain(error: BaseException) -> tuple[str, int] | None:
    """The one line and the exit code for an error that a user can mend; None for a bug."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted. Run again to go on.", EXIT_TRY_AGAIN
    number, file = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    # the Rust libraries (tokenizers, safetensors) have exceptions of their own, with the system's number in their text;
    # numpy tells a short write without one: "54000 requested and 1520 written"
    full = f"os error {errno.ENOSPC}" in str(error) or (isinstance(error, OSError) and " requested and " in str(error))
    if number in (errno.ENOSPC, errno.EDQUOT) or full:
        return DISK_FULL.format(file or "no space left on device"), EXIT_FAILED
    if file and number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{file} cannot be read or written ({os.strerror(number)}). Mend its permissions.", EXIT_FAILED
    if file and number == errno.ENAMETOOLONG:
        return f"{str(file)[:80]}… is too long a name for this disk. Shorten it.", EXIT_FAILED
    if file and number in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return f"{file} is in the way ({os.strerror(number)}). Move it, and run again.", EXIT_FAILED
    if isinstance(error, BrokenProcessPool):
        return "A worker process was killed, most often for lack of memory. Lower runtime.workers.", EXIT_FAILED
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
        return "The memory does not suffice. Lower runtime.micro_batch or runtime.workers.", EXIT_FAILED
    return None


def _check_arguments(stage: str, run: Callable[..., dict], arguments: Sequence[str]) -> None:
    """Raises BadParams where `run` takes fewer or more arguments than the command line has."""
    try:
        inspect.signature(run).bind(None, *arguments)
    except TypeError:
        takes = [f"<{name}>" for name in list(inspect.signature(run).parameters)[1:]]
        usage = " ".join(["python -m", f"tasks.{stage}", *takes])
        raise BadParams(f"{len(arguments)} arguments were given, {len(takes)} wanted.", f"Use: {usage}") from None


def main(
    stage: str, run: Callable[..., dict], arguments: Sequence[str] | None = None, arrow_alone: bool = False
) -> int:
    """Runs one stage as a process. Returns the exit code: 0 done, 75 try again, 1 a failure.

    `arrow_alone`: the stage works on Arrow and numpy, and has no use for pandas (`roberta_core.arrow_alone`).
    """
    if arrow_alone:
        keep_pandas_out()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = stage_file(stage, arguments)
    signal.signal(signal.SIGTERM, _stop)
    started = time.monotonic()
    try:
        params: Params = load_params()
        _check_arguments(stage, run, arguments)
        # two of the same would take away each other's temporary folder
        lock = held_lock(WORK / "stages" / f"{name.replace('/', '_')}.lock", f"Another {name} is going on here")
        with lock, on_cluster(params.runtime.dask_scheduler):
            metrics = run(params, *arguments)
        write_json(METRICS / f"{name}.json", metrics)
        seconds = time.monotonic() - started
        peak_mb = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        ) / 1024
        write_json(LOGS / f"{name}.timing.json", {"seconds": round(seconds, 3), "peak_mb": round(peak_mb, 1)})
    except BaseException as error:
        told = explain(error)
        if told is None or os.environ.get("ROBERTA_DEBUG"):
            traceback.print_exc()
        line, code = told or (f"{type(error).__name__}: {error} (a bug: the lines above say where)", EXIT_FAILED)
        print(f"{name}: {line}", file=sys.stderr, flush=True)
        return code
    print(f"{name}: done in {human_time(seconds)}", flush=True)
    return 0
