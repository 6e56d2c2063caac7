"""The Prefect flow of the deployment `evaluate`: one registered version scored here and now; changes nothing."""

from dataclasses import asdict
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from flows import settings


@flow(name="evaluate", persist_result=False, validate_parameters=False)
def evaluate(root: str = ".", model: str = "models:/roberta-cola@champion", rows: str = "") -> dict[str, float]:
    """Scores a version on its task's dev rows in this folder, or on a file of `rows`. Returns the metrics.

    Raises:
        NotRegistered: there is no such version. BadInput: it is an encoder, or its rows are not here or cannot be used.
    """
    from tasks.evaluate import evaluate_version

    folder = settings.find_root(Path(root))
    settings.prepare(folder)
    found = evaluate_version(folder, model, folder / rows if rows else None)
    get_run_logger().info(found.told)
    about = asdict(found)
    metrics = about.pop("metrics")
    del about["notes"]  # they stand in the description
    create_table_artifact(key="scores", table=[about | metrics], description=found.told)
    return metrics
