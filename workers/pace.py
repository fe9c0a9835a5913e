"""How much of each model this worker may ask: halved by a 429, one call more for each round of successes.

Pure but for the clock it is handed: times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from shared.store.claims import Paced

LOWER_EVERY_S = 1.0
# A turn takes no less and no longer, whatever was measured.
EVERY_LEAST_S, EVERY_MOST_S = 0.05, 60.0
# Of rows put off so many come back a second, at the most: a hundred thousand that wait cost the database little.
BACK_A_SECOND = 200.0
PUT_OFF_LEAST_S, PUT_OFF_MOST_S = 2.0, 900.0
_PASSED_WINDOW_S = 60.0
# The database counts a wait from the commit that told it, which comes a little after.
COMMITTED_S = 0.1

Key = tuple[str, str]


@dataclass(slots=True)
class _Pace:
    limit: float
    lowered_at: float
    cool_until: float = 0.0
    cooling: bool = False
    refusals: int = 0
    refused_at: float = 0.0
    answered_at: float | None = None
    every_s: float = 1.0


class Paces:
    """The models that a 429 has slowed down; all others go as fast as their family."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._paces: dict[Key, _Pace] = {}
        self._running: Counter[Key] = Counter()
        self._passed: dict[str, tuple[float, int]] = {}

    def begin(self, key: Key) -> None:
        """A call begins. One that was claimed before its model was slowed down is made all the same."""
        self._running[key] += 1

    def end(self, key: Key) -> None:
        """Give it back."""
        self._running[key] -= 1
        if self._running[key] <= 0:
            del self._running[key]

    def answered(self, key: Key, *, most: float) -> None:
        """The model answered: about one call more for each round of answers; at `most` it is slowed down no longer."""
        pace = self._paces.get(key)
        if pace is None:
            return
        now = self._clock()
        if pace.answered_at is not None:
            gap_s = min(EVERY_MOST_S, max(EVERY_LEAST_S, now - pace.answered_at))
            pace.every_s = 0.7 * pace.every_s + 0.3 * gap_s
        pace.answered_at = now
        pace.refusals = 0
        pace.limit += 1 / max(1.0, pace.limit)
        if pace.limit >= most:
            del self._paces[key]

    def refused(self, key: Key, *, began_at: float, most: float) -> None:
        """The upstream said 429: half as many at once, at most once a second for one burst of refusals.

        Args:
            began_at: when the refused call began; one begun before the last refusal says nothing new.
        """
        now = self._clock()
        pace = self._paces.setdefault(key, _Pace(limit=most, lowered_at=now - LOWER_EVERY_S))
        if pace.refusals == 0 or began_at > pace.refused_at:
            pace.refusals += 1
            pace.refused_at = now
        if now - pace.lowered_at >= LOWER_EVERY_S:
            pace.lowered_at = now
            pace.limit = max(1.0, min(pace.limit, float(self._running[key])) / 2)

    def refusals(self, key: Key) -> int:
        """How many refusals in a row there have been, a burst counted once."""
        pace = self._paces.get(key)
        return pace.refusals if pace is not None else 0

    def cool(self, key: Key, seconds: float) -> None:
        """Leave the model alone: until the row that tells every worker is written, this one knows by itself."""
        pace = self._paces.get(key)
        if pace is not None:
            pace.cool_until = max(pace.cool_until, self._clock() + seconds)
            pace.cooling = True

    def warmed(self) -> set[str]:
        """The families of models whose wait is over, each told once: their tasks are due and have no hints yet."""
        over = self._clock() - COMMITTED_S
        done = [(family, pace) for (family, _), pace in self._paces.items() if pace.cooling and pace.cool_until <= over]
        for _, pace in done:
            pace.cooling = False
        return {family for family, _ in done}

    def passed(self, family: str, tasks: int) -> None:
        """So many tasks of a family were put off: the more, the later they come back."""
        now = self._clock()
        since, count = self._passed.get(family, (now, 0))
        if now - since > _PASSED_WINDOW_S:
            # What was put off a while ago may be on its way back.
            since, count = now, count // 2
        self._passed[family] = since, count + tasks

    def paced(self) -> list[Paced]:
        """What the claim must keep to."""
        now = self._clock()
        return [
            Paced(family, model, self._room((family, model), pace), self._turn_s(pace, now), self._put_off_s(family))
            for (family, model), pace in self._paces.items()
        ]

    def _room(self, key: Key, pace: _Pace) -> int:
        if self._clock() < pace.cool_until:
            return 0
        return max(0, int(pace.limit) - self._running[key])

    def _turn_s(self, pace: _Pace, now: float) -> float:
        return max(pace.every_s, pace.cool_until - now)

    def _put_off_s(self, family: str) -> float:
        _, count = self._passed.get(family, (0.0, 0))
        return min(PUT_OFF_MOST_S, max(PUT_OFF_LEAST_S, count / BACK_A_SECOND))

    def describe(self, family: str) -> dict[str, dict[str, object]]:
        """The models of a family that are slowed down, for `aitask ps`."""
        now = self._clock()
        found: dict[str, dict[str, object]] = {}
        for (name, model), pace in self._paces.items():
            if name == family:
                found[model] = {"limit": int(pace.limit)}
                if now < pace.cool_until:
                    found[model]["cooling_s"] = round(pace.cool_until - now, 1)
        return found
