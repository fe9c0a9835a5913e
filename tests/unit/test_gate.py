"""The gate: breaker, cooldown, pause and the sharing of slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.gate import OPEN_AT, Gate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def gate(*families: str, slots: int = 8) -> tuple[Gate, Clock]:
    clock = Clock()
    return Gate(families or ("a",), slots=slots, clock=clock), clock


def test_five_failures_in_a_row_close_the_gate_and_four_do_not() -> None:
    found, _ = gate()
    for _ in range(OPEN_AT - 1):
        found.failed("a", "down")
    assert found.room("a") > 0
    found.failed("a", "down")
    assert found.room("a") == 0


def test_a_success_in_between_starts_the_count_anew() -> None:
    found, _ = gate()
    for _ in range(20):
        found.failed("a", "down")
        found.succeeded("a")
    assert found.room("a") == 8


def test_one_probe_at_a_time_reopens_it() -> None:
    found, clock = gate()
    for _ in range(OPEN_AT):
        found.failed("a", "down")
    clock.now += 2.1
    assert found.plan() == (["a"], 1)
    assert found.begin("a", "m")
    assert not found.begin("a", "m")
    found.failed("a", "still down")
    found.end("a", "m")
    assert found.room("a") == 0
    clock.now += 2.1
    assert found.room("a") == 0, "the second wait is longer than the first"
    clock.now += 2.1
    assert found.begin("a", "m")
    found.succeeded("a")
    found.end("a", "m")
    assert found.room("a") == 8


def test_a_probe_that_was_stopped_from_outside_lets_another_go() -> None:
    found, clock = gate()
    for _ in range(OPEN_AT):
        found.failed("a", "down")
    clock.now += 2.1
    assert found.begin("a", "m")
    found.end("a", "m")
    assert found.begin("a", "m")


def test_calls_that_were_under_way_when_it_opened_do_not_lengthen_it() -> None:
    found, clock = gate()
    for _ in range(8):
        assert found.begin("a", "m")
    for _ in range(8):
        found.failed("a", "down")
        found.end("a", "m")
    clock.now += 2.1
    assert found.room("a") == 1


def test_a_pause_closes_the_gate_for_its_family_alone() -> None:
    found, _ = gate("a", "b")
    found.set_pauses({"b": "upkeep"})
    assert (found.room("a") > 0, found.room("b")) == (True, 0)
    assert found.describe()["b"]["paused"] == "upkeep"


def test_no_family_holds_all_slots_while_others_are_served() -> None:
    found, _ = gate("a", "b", "c", slots=8)
    while found.begin("a", "m"):
        pass
    assert found.begin("b", "m")
    assert found.begin("c", "m")


def test_with_fewer_slots_than_families_each_gets_its_turn() -> None:
    found, _ = gate("a", "b", "c", slots=1)
    turns = {found.plan()[0][0] for _ in range(3)}
    assert turns == {"a", "b", "c"}


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 20))
def test_what_is_planned_always_fits(begun: list[str], slots: int) -> None:
    found, _ = gate("a", "b", "c", slots=slots)
    for name in begun:
        found.begin(name, "m")
    assert found.running <= slots
    chosen, each = found.plan()
    assert len(chosen) * each <= slots - found.running
    assert all(each <= found.room(name) for name in chosen)


def test_a_family_s_limit_bounds_it_whatever_is_free() -> None:
    found = Gate(["a", "b"], slots=8, clock=Clock(), limits={"a": 2})
    assert (found.room("a"), found.room("b")) == (2, 7)
