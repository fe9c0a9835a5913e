"""The retry decision, case by case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import TaskStatus
from shared.errors import UpstreamError
from workers.retry import MAX_RETRY_AFTER_S, backoff_s, decide


def error(
    kind: str = "x",
    *,
    retryable: bool = True,
    status: int | None = None,
    after: float | None = None,
    tries: int | None = None,
) -> UpstreamError:
    return UpstreamError(
        "said", kind=kind, retryable=retryable, http_status=status, retry_after_s=after, max_tries=tries
    )


CASES = [
    # what, error, failures, bad answers -> status, wait, counts, cool
    ("permanent", error(retryable=False, status=400), 0, 0, "FAILED", 0, False, 0),
    ("refusal", error("refused", retryable=False, status=200), 0, 0, "FAILED", 0, False, 0),
    ("first transient", error("connect"), 0, 0, "PENDING", 2, True, 0),
    ("second transient", error(status=500), 1, 0, "PENDING", 8, True, 0),
    ("third transient", error(status=502), 2, 0, "PENDING", 32, True, 0),
    ("fourth transient", error("idle_timeout"), 3, 0, "PENDING", 128, True, 0),
    ("fifth transient", error("timeout"), 4, 0, "FAILED", 0, True, 0),
    ("429 without a wait", error(status=429), 0, 0, "PENDING", 2, True, 0),
    ("429 with a wait", error(status=429, after=12), 0, 0, "PENDING", 12, False, 12),
    ("429 with a wait, budget spent", error(status=429, after=12), 4, 0, "PENDING", 12, False, 12),
    ("503 with a wait", error(status=503, after=3), 0, 0, "PENDING", 3, False, 3),
    ("500 with a wait", error(status=500, after=3), 0, 0, "PENDING", 2, True, 0),
    ("a wait of an hour", error(status=429, after=3600), 0, 0, "PENDING", MAX_RETRY_AFTER_S, False, MAX_RETRY_AFTER_S),
    ("a wait in the past", error(status=429, after=-5), 0, 0, "PENDING", 1, False, 1),
    ("first bad JSON", error("bad_json", tries=2), 0, 0, "PENDING", 2, True, 0),
    ("second bad JSON", error("bad_json", tries=2), 1, 1, "FAILED", 0, True, 0),
    ("first bad JSON after a 500", error("bad_json", tries=2), 1, 0, "PENDING", 8, True, 0),
]


@pytest.mark.parametrize(("what", "given_error", "failures", "bad", "status", "wait", "counts", "cool"), CASES)
def test_a_failed_call_is_retried_as_its_error_deserves(
    what: str, given_error: UpstreamError, failures: int, bad: int, status: str, wait: float, counts: bool, cool: float
) -> None:
    found = decide(given_error, failures=failures, bad_answers=bad, max_failures=5, chance=1.0)
    assert (found.status, found.run_in_s, found.counts_failure, found.cool_s) == (
        TaskStatus[status], wait, counts, cool,
    )  # fmt: skip


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_the_wait_stays_between_half_and_all_of_its_ceiling(failures: int, chance: float) -> None:
    ceiling = min(300.0, 2.0 * 4.0 ** min(failures - 1, 20))
    assert ceiling / 2 <= backoff_s(failures, chance) <= ceiling
