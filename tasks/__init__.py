"""What is done: one module per stage of dvc.yaml, and the tracking and the registry around them. No Prefect here."""

import os
import signal
import sys


def _stop_early(signum: int, frame: object) -> None:
    os.write(2, b"Stopped by SIGTERM before it began. Run again to go on.\n")
    os._exit(75)  # roberta_core.errors.EXIT_TRY_AGAIN


# `python -m tasks.<stage>` has this as its argument while the package is imported. Importing torch takes seconds, and a
# SIGTERM in them would count as a failure; `tasks.stage` then puts its own handler in the place of this one.
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGTERM, _stop_early)
