"""When a part that ended is started again, and when it stays down."""

from __future__ import annotations

import pytest

from aitask_cli.processes import MOST_ENDS, WITHIN_S, again_after, how


def test_waits_grow_from_a_second_to_a_minute_and_the_fifth_end_within_ten_minutes_is_the_last() -> None:
    ends: list[float] = []
    waits = []
    for _ in range(MOST_ENDS):
        ends.append(100.0)
        waits.append(again_after(ends, 100.0))
    assert waits == [1.0, 4.0, 16.0, 60.0, None]


def test_ends_that_are_long_past_count_no_more() -> None:
    assert again_after([0.0] * MOST_ENDS + [WITHIN_S + 1], WITHIN_S + 1) == 1.0


@pytest.mark.parametrize(("code", "said"), [(1, "exit code 1"), (-9, "SIGKILL")])
def test_an_end_is_told_by_its_code_or_its_signal(code: int, said: str) -> None:
    assert said in how(code)
