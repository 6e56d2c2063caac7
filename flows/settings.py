"""One place for the environment of a run: quiet, offline, everything in the project's folder.

Every value is a default: what the user has set stands. Prefect's home is `.work/prefect` in the project and not the
user's `~/.prefect`, because its database belongs to this project's Prefect version (a newer Prefect elsewhere migrates
the shared one and breaks an older one), `make clean` then really cleans, and nothing is left in the home folder. The
price: some seconds for a new database at the first run. A user with PREFECT_HOME, PREFECT_PROFILE or PREFECT_API_URL
set keeps his own; with PREFECT_API_URL the flow talks to that server, else to one embedded in the run.
"""

import os
import urllib.error
import urllib.request
from pathlib import Path

from roberta_core.errors import TryAgain, UserError

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    # MLflow's server keeps eight processes ready for scorers of language models, which nothing here uses
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # a new database on a busy machine needs more than the default 20 s
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

# In a terminal the flow shows its own lines; Prefect's go to its database, and its tracebacks with them.
TERMINAL = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SHOW_STARTUP_MESSAGE": "false",
}

SERVER_WAIT_S = 20.0


def find_root(start: Path | None = None) -> Path:
    """The project's folder: the nearest one, from `start` (the current folder) upwards, that has a dvc.yaml.

    Raises:
        UserError: there is none.
    """
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"There is no dvc.yaml in {start} or above it.", "Start in the project's folder.")


def prepare(root: Path, terminal: bool = False) -> None:
    """Sets the environment for this process and its children. Call it before Prefect is imported.

    `terminal` keeps Prefect's own log lines off the terminal; they stay in its database.
    """
    defaults = QUIET | (TERMINAL if terminal else {})
    if not {"PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_API_URL"} & os.environ.keys():
        defaults["PREFECT_HOME"] = str(root / ".work" / "prefect")
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "PREFECT_HOME" in defaults:
        # Prefect makes the last folder of its home, not those above it
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)


def check_server(address: str | None) -> None:
    """Asks a Prefect server of the user's whether it is there; Prefect itself ends in a long traceback.

    Raises:
        TryAgain: nothing answers at PREFECT_API_URL. Any answer will do, a refusal too.
    """
    if not address:
        return
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=SERVER_WAIT_S).close()
    except urllib.error.HTTPError:
        pass
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise TryAgain(
            f"Prefect's server at {address} does not answer ({why}).", "Start it, or unset PREFECT_API_URL."
        ) from None
