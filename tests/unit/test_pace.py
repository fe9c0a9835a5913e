"""Pace: how much of each model a worker may ask after a 429."""

from __future__ import annotations

import pytest

from tests.unit.test_gate import Clock
from workers.pace import PUT_OFF_LEAST_S, PUT_OFF_MOST_S, Paces

A, B = ("f", "a"), ("f", "b")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def paces(clock: Clock) -> Paces:
    return Paces(clock)


def room(paces: Paces, model: str) -> int | None:
    return next((p.room for p in paces.paced() if p.model == model), None)


def test_a_model_that_was_never_refused_is_not_paced(paces: Paces) -> None:
    paces.begin(A)
    paces.answered(A, most=16)
    assert paces.paced() == []


def test_429_halves_one_model_s_calls_and_leaves_the_others_alone(paces: Paces, clock: Clock) -> None:
    for _ in range(16):
        paces.begin(A)
        paces.begin(B)
    began = clock.now
    for _ in range(16):
        paces.refused(A, began_at=began, most=16)
        paces.end(A)
    assert (room(paces, "a"), room(paces, "b")) == (8, None), "one burst of refusals counts once"
    assert paces.refusals(A) == 1


def test_a_refusal_of_a_call_begun_after_the_last_one_counts_and_an_answer_begins_anew(
    paces: Paces, clock: Clock
) -> None:
    for _ in range(3):
        paces.refused(A, began_at=clock.now, most=16)
        clock.now += 5
    assert paces.refusals(A) == 3
    paces.answered(A, most=16)
    assert paces.refusals(A) == 0


def test_answers_bring_the_pace_back_until_it_holds_nothing_any_more(paces: Paces, clock: Clock) -> None:
    paces.refused(A, began_at=clock.now, most=16)
    for _ in range(200):
        paces.answered(A, most=16)
    assert paces.paced() == []


def test_a_cooled_model_has_no_room_until_its_wait_is_over(paces: Paces, clock: Clock) -> None:
    paces.refused(A, began_at=clock.now, most=16)
    paces.cool(A, 5.0)
    (paced,) = paces.paced()
    assert (paced.room, paced.every_s) == (0, 5.0)
    clock.now += 5.1
    assert room(paces, "a") == 1


def test_turns_come_as_fast_as_answers_did(paces: Paces, clock: Clock) -> None:
    paces.refused(A, began_at=clock.now, most=1000)
    for _ in range(30):
        clock.now += 3.0
        paces.answered(A, most=1000)
    (paced,) = paces.paced()
    assert paced.every_s == pytest.approx(3.0, abs=0.1)


def test_the_more_is_put_off_the_later_it_comes_back(paces: Paces, clock: Clock) -> None:
    paces.refused(A, began_at=clock.now, most=16)
    assert paces.paced()[0].most_s == PUT_OFF_LEAST_S
    paces.passed("f", 100_000)
    assert paces.paced()[0].most_s == 500.0
    paces.passed("f", 10_000_000)
    assert paces.paced()[0].most_s == PUT_OFF_MOST_S


def test_the_end_of_a_wait_is_told_once(paces: Paces, clock: Clock) -> None:
    paces.refused(A, began_at=clock.now, most=16)
    paces.cool(A, 5.0)
    assert paces.warmed() == set()
    clock.now += 5.2
    assert paces.warmed() == {"f"}
    assert paces.warmed() == set()
