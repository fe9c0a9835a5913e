"""The checker itself: a good history passes, and each rule notices a history in which just it is broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.history import FAILED, PENDING, PROCESSING, RULES, SUCCESS, Call, Change, History, Operation, Seen, check

CLAIM = Change("t", PENDING, PROCESSING, 0, 1, "w", "w", None, False)
ANSWER = Change("t", PROCESSING, SUCCESS, 1, 1, "w", "w", None, True)
EXPIRY = Change("t", PROCESSING, PENDING, 1, 1, "w", "v", "lease_expired", False, beat_age_s=31.0, lease_s=30.0)
CANCEL = Change("t", PROCESSING, FAILED, 1, 2, "w", "aitask", "cancelled", False)
FINAL = {"t": (SUCCESS, 1, "yes")}
SUBMIT = Operation("submit", "ok", ("t",), batch_id="b", key="k")


def good() -> History:
    return History([CLAIM, ANSWER], [SUBMIT, SUBMIT], [Call("t", 1.0)], [Seen("t", 1, "ye")], FINAL)


def test_a_good_history_breaks_no_rule() -> None:
    assert check(good()) == []
    again = [CLAIM, EXPIRY, replace(CLAIM, attempt_was=1, attempt=2), replace(ANSWER, attempt_was=2, attempt=2)]
    assert check(History(again, final={"t": (SUCCESS, 2, "yes")})) == []
    retried = [CLAIM, CANCEL, Change("t", FAILED, PENDING, 2, 2, None, "aitask", None, False)]
    assert check(History(retried, [Operation("retry", "ok", ("t",))], final={"t": (PENDING, 2, None)})) == []


BROKEN: dict[str, list[History]] = {
    "submits_are_true": [
        History([], [SUBMIT], final={}),
        History([], [Operation("submit", "fail", ("t",))], final=FINAL),
        History([], [Operation("submit", "unknown", ("t", "u"))], final=FINAL),
    ],
    "one_key_one_batch": [History([], [SUBMIT, replace(SUBMIT, batch_id="c")], final=FINAL)],
    "terminal_once": [
        History([CLAIM, ANSWER, Change("t", SUCCESS, PENDING, 1, 1, "w", "w", None, False)], final=FINAL),
        History([CLAIM, ANSWER, Change("t", SUCCESS, SUCCESS, 1, 1, "w", "w", None, True)], final=FINAL),
        History([CLAIM, CANCEL, Change("t", FAILED, PENDING, 2, 2, None, "aitask", None, False)], final=FINAL),
    ],
    "the_fence_only_grows": [
        History([replace(CLAIM, attempt=0)]),
        History([CLAIM, replace(EXPIRY, attempt=0)]),
        History([CLAIM, Change("t", PROCESSING, PROCESSING, 1, 2, "v", "v", None, False)]),
    ],
    "recorded_by_its_holder": [
        History([CLAIM, replace(ANSWER, writer="v")], final=FINAL),
        History([replace(CLAIM, holder="v"), ANSWER], final=FINAL),
        History([replace(ANSWER, was=PENDING)], final=FINAL),
    ],
    "ended_from_outside_moves_the_fence": [History([CLAIM, replace(CANCEL, attempt=1)])],
    "no_call_after_a_cancel": [
        History([CLAIM, CANCEL], [Operation("cancel", "ok", ("t",), at=10.0)], [Call("t", 23.0)])
    ],
    "watchers_saw_the_truth": [History([CLAIM, ANSWER], seen=[Seen("t", 1, "no")], final=FINAL)],
    "no_living_worker_lost_a_lease": [History([CLAIM, replace(EXPIRY, beat_age_s=5.0)])],
}


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert set(BROKEN) == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(("name", "history"), [(name, one) for name, many in BROKEN.items() for one in many])
def test_a_broken_rule_is_noticed(name: str, history: History) -> None:
    (rule,) = [rule for rule in RULES if rule.__name__ == name]
    assert list(rule(history)) != []
