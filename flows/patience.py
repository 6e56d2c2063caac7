"""A run does not end because Prefect's server was away for a while.

A deployment with a concurrency limit gives each run a lease on its place, which the run renews every 225 s. Where a
renewal fails three times within seconds, Prefect's engine ends the run, so that the limit holds. A server that starts
anew has forgotten the leases (it keeps them in memory), so each restart would end a training of days at the next
renewal. Here the limit does not need it: the project's folder has a lock of its own, which no second run passes. Prefect
has no setting for this, so its engine gets a `maintain_concurrency_lease` that only warns.
"""

from contextlib import AbstractContextManager
from uuid import UUID

from prefect import flow_engine
from prefect.concurrency._leases import maintain_concurrency_lease


def keep_lease(lease_id: UUID, lease_duration: float, **more: object) -> AbstractContextManager[None]:
    """As Prefect's own, but a lease that is lost is a warning in the run's log."""
    return maintain_concurrency_lease(lease_id, lease_duration, **more | {"raise_on_lease_renewal_failure": False})


def outlive_server() -> None:
    """Puts `keep_lease` in place; called where the flow is defined, before the engine begins its run."""
    assert callable(flow_engine.maintain_concurrency_lease)
    flow_engine.maintain_concurrency_lease = keep_lease
