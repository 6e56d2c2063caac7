"""A lease that cannot be renewed ends Prefect's own run, and not ours."""

import time
from uuid import uuid4

import pytest


def test_a_lease_that_is_lost_does_not_end_the_run(monkeypatch):
    from prefect import flow_engine
    from prefect._internal.concurrency.cancellation import CancelledError
    from prefect.concurrency import _leases

    import flows.pipeline  # noqa: F401  (puts the patient one in place)

    calls = []

    class Client:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def renew_concurrency_lease(self, **_):
            calls.append(1)
            raise ConnectionError("the server is away")

    monkeypatch.setattr(_leases, "get_client", lambda **_: Client())
    monkeypatch.setattr(_leases, "_RENEWAL_RETRY_BASE_DELAY", 0.01)
    monkeypatch.setattr(_leases, "_RENEWAL_RETRY_MAX_DELAY", 0.02)

    def work() -> str:
        for _ in range(20):
            time.sleep(0.05)
        return "done"

    with flow_engine.maintain_concurrency_lease(uuid4(), 300, raise_on_lease_renewal_failure=True):
        assert work() == "done"
    assert len(calls) == 3
    # Prefect's own ends it: else there would be nothing to be patient about
    with (
        pytest.raises(CancelledError),
        _leases.maintain_concurrency_lease(uuid4(), 300, raise_on_lease_renewal_failure=True),
    ):
        work()
