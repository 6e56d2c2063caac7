"""Errors that a user can cause and mend.

Every such error is one line: what is wrong, then how to mend it. The command line and the stage frame print that
line without a traceback (`--debug` or `ROBERTA_DEBUG=1` shows it) and exit with the code that the class carries.
"""

EXIT_FAILED = 1
EXIT_TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: a lock, the network, a preemption. The flow retries this code and no other."""


class UserError(ValueError):
    """Something a user can mend: `what` is wrong, and the `mend`. Shown as one line."""

    exit_code = EXIT_FAILED

    def __init__(self, what: str, mend: str):
        self.what = what.strip()
        self.mend = mend.strip()
        super().__init__(f"{self.what} {self.mend}")

    def __reduce__(self) -> tuple:
        """Pickles by the two arguments: an error in a worker process reaches the user as the same line."""
        return type(self), (self.what, self.mend)


class TryAgain(UserError):
    """What may pass by itself: a held lock, a lost connection, a preemption (exit code 75)."""

    exit_code = EXIT_TRY_AGAIN


class Preempted(TryAgain):
    """SIGTERM or SIGINT reached the stage. What can be resumed has been kept."""


class BadParams(UserError):
    """A wrong or unknown key in a params file."""


class BadInput(UserError):
    """Data that cannot be used: a missing file, an empty corpus, a table without a column."""
