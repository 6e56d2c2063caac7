"""How a command of `roberta` that runs stages is stopped. No heavy import."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C, which ends the stages on the way out; either one is a line and exit code 75."""

    def stop(signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        from roberta_core.errors import Preempted

        raise Preempted("Stopped; its stages have ended too.", "Run again to go on.") from None
