"""What doctor says of PostgreSQL's settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aitask_cli.checks import Level
from aitask_cli.checks_postgres import about
from shared.store.facts import ServerFacts

FINE = ServerFacts(
    version="16.4", fsync=True, full_page_writes=True, synchronous_commit="on", connections=197, in_use=5, standbys=1,
    waits_for_standby=True, standby=False, read_only=False, pooled=False,
)  # fmt: skip


def test_a_server_that_promises_all_has_nothing_to_warn_of() -> None:
    found = list(about(FINE, workers=3))
    assert {check.level for check in found} == {Level.OK}
    assert any("survives the loss of the primary" in check.found for check in found)


@pytest.mark.parametrize(
    ("change", "cost"),
    [
        ({"fsync": False}, "accepted does not survive a power cut"),
        ({"full_page_writes": False}, "can't be read"),
        ({"synchronous_commit": "off"}, "last second does not survive a power cut"),
        ({"waits_for_standby": False}, "the loss of the primary"),
        ({"connections": 17}, "17 connections at most"),
        ({"standby": True}, "nothing can be submitted"),
        ({"read_only": True}, "nothing can be submitted"),
    ],
)
def test_each_setting_that_costs_something_has_one_line_with_its_price_and_remedy(
    change: dict[str, object], cost: str
) -> None:
    found = [check for check in about(replace(FINE, **change), workers=3) if check.level is not Level.OK]  # type: ignore[arg-type]
    assert cost in found[0].found
    assert all(check.remedy for check in found)
