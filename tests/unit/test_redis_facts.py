"""What a Redis is like is said with its cost and a remedy; what is fine is not complained about."""

from __future__ import annotations

import pytest

from aitask_cli.checks import Level
from aitask_cli.checks_redis import about
from shared.streams import costs
from shared.streams.facts import read


@pytest.mark.parametrize(
    ("info", "name", "remedy"),
    [
        ({"role": "slave"}, "role", "redis+sentinel://"),
        ({"redis_version": "6.0.16"}, "version", "6.2"),
        ({"maxmemory": 100, "maxmemory_policy": "allkeys-lru"}, "maxmemory-policy", "maxmemory-policy noeviction"),
    ],
)
def test_what_a_server_lacks_is_said_with_its_cost(info: dict[str, object], name: str, remedy: str) -> None:
    [cost] = costs(read({"redis_version": "7.0.0"} | info, {}))
    assert cost.name == name
    assert remedy in cost.remedy


@pytest.mark.parametrize(
    "info",
    [
        {"redis_version": "7.2.4", "valkey_version": "8.0.1"},
        {"redis_version": "6.2.0", "maxmemory": 0, "maxmemory_policy": "allkeys-lru"},
        {"redis_version": "unstable", "maxmemory": 1, "maxmemory_policy": "noeviction"},
    ],
)
def test_nothing_is_said_of_a_server_that_costs_nothing(info: dict[str, object]) -> None:
    facts = read(info, {})
    assert list(costs(facts)) == []
    [check] = about(facts)
    assert check.level is Level.OK


def test_a_key_of_another_type_is_named_with_the_line_that_moves_it() -> None:
    [cost] = costs(read({"redis_version": "7.2.4"}, {"n:tasks:qwen": "string"}))
    assert "n:tasks:qwen is a string" in cost.cost
    assert cost.remedy.startswith("redis-cli rename n:tasks:qwen ")
