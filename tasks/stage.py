"""The frame around every stage: parameters in, metrics out, one clear last line, the right exit code.

A stage module is short: `run(params, *arguments)` calls the library, writes its outputs, and returns the numbers for
`metrics/<stage>.json`; its last line is `sys.exit(stage.main("clean", run))`. The frame validates params.yaml before
anything is written, turns SIGTERM into an orderly stop, and keeps seconds and memory in `logs/`, outside the outputs
that DVC hashes, which hold nothing that differs from run to run.
"""

import errno
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from roberta_core.atomic import write_json
from roberta_core.errors import EXIT_FAILED, Preempted, UserError
from roberta_core.progress import human_time
from tasks.params import Params, load_params

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
        return "Interrupted. Run again to go on.", 75
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DISK_FULL.format(error.filename or "no space left on device"), EXIT_FAILED
    if isinstance(error, PermissionError):
        return f"{error.filename} cannot be read or written. Mend its permissions.", EXIT_FAILED
    return None


def main(stage: str, run: Callable[..., dict], arguments: Sequence[str] | None = None) -> int:
    """Runs one stage as a process. Returns the exit code: 0 done, 75 try again, 1 a failure."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = stage_file(stage, arguments)
    signal.signal(signal.SIGTERM, _stop)
    started = time.monotonic()
    try:
        params: Params = load_params()
        metrics = run(params, *arguments)
        write_json(METRICS / f"{name}.json", metrics)
    except BaseException as error:
        told = explain(error)
        if told is None or os.environ.get("ROBERTA_DEBUG"):
            traceback.print_exc()
        line, code = told or (f"{type(error).__name__}: {error} (a bug: the lines above say where)", EXIT_FAILED)
        print(f"{name}: {line}", file=sys.stderr, flush=True)
        return code
    seconds = time.monotonic() - started
    peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
    write_json(LOGS / f"{name}.timing.json", {"seconds": round(seconds, 3), "peak_mb": round(peak_mb, 1)})
    print(f"{name}: done in {human_time(seconds)}", flush=True)
    return 0
