"""The retry decision: a pure function of the error, what the task has behind it, and chance."""

from __future__ import annotations

from dataclasses import dataclass

from shared.domain import TaskStatus
from shared.errors import UpstreamError

FIRST_DELAY_S = 2.0
DELAY_FACTOR = 4.0
MAX_DELAY_S = 300.0
# An upstream that asks for more than this is asked again anyway: it may have meant something else.
MAX_RETRY_AFTER_S = 900.0
# A wait that is named again and again is doubled from this on: `Retry-After: 0` made 58 calls a second.
FLOOR_S = 1.0
MOST_FLOOR_S = 60.0
# How long an interactive ask waits for an upstream that refuses for its rate and names no wait.
MAX_UNNAMED_S = 900.0
_ASKS_TO_WAIT = (429, 503, 529)


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a task after a failed call.

    Attributes:
        status: PENDING to try again, or FAILED.
        run_in_s: the wait before the next try, in seconds.
        counts_failure: whether the try costs one of the task's `failures`.
        counts_bad_answer: whether it was one of the few tries that a malformed answer is worth.
        cool_s: how long the whole model is left alone, in seconds.
    """

    status: TaskStatus
    run_in_s: float = 0.0
    counts_failure: bool = False
    counts_bad_answer: bool = False
    cool_s: float = 0.0


def backoff_s(failures: int, chance: float) -> float:
    """Return the wait after the n-th failure (from 1): uniform(1/2, 1) x min(300 s, 2 s x 4^(n-1)).

    Args:
        chance: a random number from 0 to 1.
    """
    # The exponent is bounded because a user may allow so many failures that a float would overflow.
    ceiling = min(MAX_DELAY_S, FIRST_DELAY_S * DELAY_FACTOR ** min(failures - 1, 16))
    return ceiling * (0.5 + chance / 2)


def decide(
    error: UpstreamError,
    *,
    failures: int,
    bad_answers: int,
    max_failures: int,
    chance: float,
    waits: int = 0,
    waiting_s: float = 0.0,
    interactive: bool = False,
) -> Decision:
    """Decide what becomes of a task whose call failed.

    Args:
        failures: retryable errors that the task has had before this one.
        bad_answers: malformed answers that it has had before this one.
        chance: a random number from 0 to 1.
        waits: how often in a row the upstream has made it wait before this time.
        waiting_s: for how long it has been made to wait by now without a wait's being named.
        interactive: whether somebody may be watching (the lane `ask`).
    """
    if not error.retryable:
        return Decision(TaskStatus.FAILED)
    wait_s = _asked_s(error, waits, chance)
    if wait_s is not None:
        if error.names_no_wait and interactive and waiting_s >= MAX_UNNAMED_S:
            return Decision(TaskStatus.FAILED, counts_failure=True)
        return Decision(TaskStatus.PENDING, run_in_s=wait_s, cool_s=wait_s)
    limited = error.max_tries is not None
    if failures + 1 >= max_failures or (error.max_tries is not None and bad_answers + 1 >= error.max_tries):
        return Decision(TaskStatus.FAILED, counts_failure=True, counts_bad_answer=limited)
    return Decision(
        TaskStatus.PENDING,
        run_in_s=backoff_s(failures + 1, chance),
        counts_failure=True,
        counts_bad_answer=limited,
    )


def _asked_s(error: UpstreamError, waits: int, chance: float) -> float | None:
    """How long the upstream wants to be left alone, in seconds; None: it only failed."""
    if error.names_no_wait:
        return backoff_s(waits + 1, chance)
    if error.retry_after_s is None or not (error.limited or error.http_status in _ASKS_TO_WAIT):
        return None
    named_s = error.retry_after_s if error.until_reset else min(error.retry_after_s, MAX_RETRY_AFTER_S)
    return max(named_s, min(MOST_FLOOR_S, FLOOR_S * 2.0 ** min(waits, 16)))
