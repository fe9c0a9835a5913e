"""Faults inside: by seed, replayed, and at points that are there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from shared.errors import DatabaseUnavailable
from tests.inside import POINTS, Chance, wrapped


def test_a_seed_replays_and_another_is_another() -> None:
    def all_of(seed: int, name: str) -> list[tuple[str, float]]:
        chance = Chance(seed, name, 0.5)
        return [chance.next() for _ in range(50)]

    assert all_of(1, "a") == all_of(1, "a")
    assert len({tuple(all_of(1, "a")), tuple(all_of(2, "a")), tuple(all_of(1, "b"))}) == 3
    assert {fault for fault, _ in all_of(1, "a")} == {"nothing", "stall", "before", "after"}


@pytest.mark.parametrize("name", POINTS)
def test_every_point_is_in_the_code(name: str) -> None:
    module, path, _ = POINTS[name]
    place: Any = import_module(module)
    for part in path.split("."):
        place = getattr(place, part)
    assert callable(place)


def test_a_lost_reply_comes_after_the_deed_and_a_refusal_before_it() -> None:
    done = []
    function = wrapped(lambda: done.append(1), Chance(3, "x", 1.0), DatabaseUnavailable)
    faults, replay = [], Chance(3, "x", 1.0)
    for _ in range(20):
        before = len(done)
        try:
            function()
        except DatabaseUnavailable:
            faults.append("after" if len(done) > before else "before")
        else:
            faults.append("stall")
    assert faults == [replay.next()[0] for _ in range(20)]
