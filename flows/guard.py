"""Ends a process group when its starter dies: `python guard.py <group> <grace_s>`, with a pipe as standard input.

The starter holds the other end of the pipe. When it writes `done`, there is nothing to do; when the pipe just closes,
the starter is gone, even by SIGKILL, which no handler sees, and the group would run on alone and keep its GPU. Only
the standard library, so that it starts in some 20 ms.
"""

import os
import signal
import sys
import time


def end_group(group: int, grace_s: float) -> None:
    """SIGTERM to the group, `grace_s` seconds to end in order, then SIGKILL."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(group, number)
            until = time.monotonic() + wait_s
            while time.monotonic() < until:
                time.sleep(0.05)
                os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return


if __name__ == "__main__":
    # a Ctrl-C or SIGTERM meant for the starter must not end the guard first
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    if sys.stdin.buffer.read() != b"done":
        end_group(int(sys.argv[1]), float(sys.argv[2]))
