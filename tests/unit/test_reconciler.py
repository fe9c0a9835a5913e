"""The reconciler's rules with a clock of the test's own, and what a worker calls itself."""

from __future__ import annotations

import datetime as dt

import pytest

from shared.errors import DatabaseUnavailable
from shared.settings import settings_from
from shared.store import recovery
from workers import reconciler as module
from workers.reconciler import Reconciler
from workers.worker import consumer_name

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
CLOCK = recovery.Clock(NOW, 1e6, NOW - dt.timedelta(days=30), None)


def made(patch: pytest.MonkeyPatch) -> Reconciler:
    patch.setattr(module, "TICK_S", 0.001)
    patch.setattr(recovery, "primary_for_s", lambda db: 1e6)
    return Reconciler(None, None, families=("qwen",), lease_s=30.0, max_rescues=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("outages", [0, 1, 3])
def test_after_an_outage_workers_get_a_lease_to_beat_again(monkeypatch: pytest.MonkeyPatch, outages: int) -> None:
    reconciler, ticks = made(monkeypatch), []
    reconciler._wait_s = 0.001

    def tick() -> bool:
        ticks.append(1)
        if len(ticks) <= outages:
            raise DatabaseUnavailable("gone")
        reconciler.stop()
        return False

    monkeypatch.setattr(reconciler, "tick", tick)
    reconciler.run()
    assert reconciler._may_end_leases(CLOCK) == (outages == 0)


def test_a_worker_that_waited_for_postgresql_ends_no_lease_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reconciler = made(monkeypatch)
    assert reconciler._may_end_leases(CLOCK)
    reconciler.database_was_away()
    assert not reconciler._may_end_leases(CLOCK)


def test_no_two_starts_of_a_worker_have_the_same_name() -> None:
    settings = settings_from({"DATABASE_URL": "postgresql://x/y", "REDIS_URL": "redis://x"})
    families = settings.families
    assert len({consumer_name(families, settings) for _ in range(100)}) == 100
