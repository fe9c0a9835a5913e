"""When a worker may end leases."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from workers.grace import Grace

FIRST = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
PROMOTED = FIRST - dt.timedelta(days=30)
LEASE_S = 30.0


class Now:
    at = 1000.0

    def __call__(self) -> float:
        return self.at


def over(grace: Grace, **more: Any) -> bool:
    told = {"server_started": FIRST, "up_s": 1e6, "primary_for_s": lambda: 1e6, **more}
    return grace.is_over(**told)


def test_a_worker_that_has_just_started_ends_what_a_crash_left_behind_at_once() -> None:
    """The server was up and the primary all the time: whoever lived could beat."""
    assert over(Grace(LEASE_S, clock=Now()))


def test_a_promoted_standby_that_was_up_for_long_ends_no_lease_for_a_whole_lease() -> None:
    now = Now()
    grace = Grace(LEASE_S, clock=now)
    assert over(grace)
    for _ in range(3):
        assert not over(grace, server_started=PROMOTED, primary_for_s=lambda: 0.0)
        now.at += LEASE_S / 3 - 0.01
    now.at += 0.1
    assert over(grace, server_started=PROMOTED, primary_for_s=lambda: 0.0)


@pytest.mark.parametrize(
    "told", [{"primary_for_s": lambda: 12.0}, {"up_s": 12.0}, {"primary_for_s": lambda: 0.0, "up_s": 12.0}]
)
def test_a_server_that_has_not_been_the_primary_for_a_lease_gets_what_is_left_of_it(told: dict[str, Any]) -> None:
    now = Now()
    grace = Grace(LEASE_S, clock=now)
    assert not over(grace, **told)
    now.at += 30.0
    assert over(grace, **{**told, "up_s": told.get("up_s", 1e6) + 30.0})


def test_after_an_outage_others_get_a_whole_lease_to_beat_again() -> None:
    now = Now()
    grace = Grace(LEASE_S, clock=now)
    grace.outage_seen()
    assert not over(grace)
    now.at += LEASE_S
    assert over(grace)


def test_a_server_is_asked_once_since_when_it_is_the_primary() -> None:
    asked: list[int] = []
    grace = Grace(LEASE_S, clock=Now())

    def primary_for_s() -> float:
        asked.append(1)
        return 1e6

    for _ in range(3):
        over(grace, primary_for_s=primary_for_s)
    assert len(asked) == 1
