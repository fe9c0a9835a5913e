"""The one gate before reading, taking over and polling: pause, breaker and free slots per family, pace per model.

Pure but for the clock it is handed: times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shared.store.claims import Paced
from workers.pace import Paces

OPEN_AT = 5
PROBE_AFTER_S = 2.0
PROBE_AFTER_MOST_S = 30.0
# What a family can always get while others are busy, as a part of all slots.
_RESERVE = 8


@dataclass(slots=True)
class _State:
    failures_in_a_row: int = 0
    open_until: float | None = None
    open_for_s: float = PROBE_AFTER_S
    probing: bool = False
    last_error: str = ""
    paused: str | None = None
    running: int = 0
    most: int = 0


class Gate:
    """Who may begin a call now.

    A family's breaker opens at five failures of its endpoint in a row. While open nothing is claimed; after a wait
    that doubles with each failed probe (2 s to 30 s) one task is let through, and its success closes the breaker.
    """

    def __init__(
        self,
        families: Sequence[str],
        *,
        slots: int,
        clock: Callable[[], float],
        limits: Mapping[str, int | None] | None = None,
    ) -> None:
        self.slots = slots
        self._clock = clock
        self._states = {name: _State() for name in families}
        for name, state in self._states.items():
            state.most = (limits or {}).get(name) or slots
        self._paces = Paces(clock)
        self._turn = 0

    @property
    def running(self) -> int:
        """Calls under way, over all families."""
        return sum(state.running for state in self._states.values())

    def room(self, family: str) -> int:
        """How many calls of this family may begin now."""
        state = self._states[family]
        if state.paused is not None:
            return 0
        free = self.slots - self.running
        if state.open_until is not None:
            return min(1, max(0, free)) if self._clock() >= state.open_until and not state.probing else 0
        return max(0, min(free, self._share() - state.running, state.most - state.running))

    def _share(self) -> int:
        """The most slots one family may hold: all but what the others are sure to get."""
        others = len(self._states) - 1
        reserve = max(1, self.slots // (_RESERVE * (others + 1)))
        return self.slots - others * reserve if self.slots > others else self.slots

    def plan(self) -> tuple[list[str], int]:
        """Return the families to read from now, and how many entries from each, so that all of them fit.

        The first family moves on with each call: with fewer free slots than families each gets its turn.
        """
        names = list(self._states)
        self._turn = (self._turn + 1) % len(names)
        open_now = [name for name in names[self._turn :] + names[: self._turn] if self.room(name) > 0]
        free = self.slots - self.running
        chosen = open_now[: max(0, free)]
        if not chosen:
            return [], 0
        return chosen, min(free // len(chosen), *(self.room(name) for name in chosen))

    def begin(self, family: str, model: str) -> bool:
        """Take a slot. Returns False when the gate has closed meanwhile."""
        if self.room(family) <= 0:
            return False
        state = self._states[family]
        state.running += 1
        state.probing = state.open_until is not None
        self._paces.begin((family, model))
        return True

    def end(self, family: str, model: str) -> None:
        """Give a slot back."""
        state = self._states[family]
        state.running -= 1
        self._paces.end((family, model))
        if state.running == 0:
            # A probe that was stopped from outside proved nothing: another may go.
            state.probing = False

    def succeeded(self, family: str) -> None:
        """The endpoint answered, be it with a refusal: it is up."""
        state = self._states[family]
        state.failures_in_a_row = 0
        state.open_until = None
        state.open_for_s = PROBE_AFTER_S
        state.probing = False

    def answered(self, family: str, model: str) -> None:
        """The model answered: it may be asked a little more at once."""
        self.succeeded(family)
        self._paces.answered((family, model), most=float(self._states[family].most))

    def refused(self, family: str, model: str, *, began_at: float) -> None:
        """The upstream said 429 to a call begun then: the model is asked half as much at once."""
        self._paces.refused((family, model), began_at=began_at, most=float(self._states[family].most))

    def refusals(self, family: str, model: str) -> int:
        """How many refusals of a model in a row there have been, a burst counted once."""
        return self._paces.refusals((family, model))

    def cool(self, family: str, model: str, seconds: float) -> None:
        """Leave a model alone for a while."""
        self._paces.cool((family, model), seconds)

    def paced(self) -> list[Paced]:
        """The models that may be asked only so much, for the claim."""
        return self._paces.paced()

    def warmed(self) -> set[str]:
        """The families of models whose wait has just ended."""
        return self._paces.warmed()

    def passed(self, family: str, tasks: int) -> None:
        """A claim put so many tasks of a family off."""
        self._paces.passed(family, tasks)

    def failed(self, family: str, why: str) -> None:
        """The endpoint did not answer, or answered that it can't."""
        state = self._states[family]
        state.failures_in_a_row += 1
        state.last_error = why
        now = self._clock()
        if state.open_until is None and state.failures_in_a_row >= OPEN_AT:
            state.open_until = now + state.open_for_s
        elif state.open_until is not None and state.probing:
            state.open_for_s = min(PROBE_AFTER_MOST_S, state.open_for_s * 2)
            state.open_until = now + state.open_for_s
            state.probing = False

    def set_pauses(self, paused: Mapping[str, str]) -> None:
        """Take over which families are paused, and why."""
        for name, state in self._states.items():
            state.paused = paused.get(name)

    def describe(self) -> dict[str, dict[str, object]]:
        """What holds each family, for `aitask ps`."""
        now = self._clock()
        return {name: _described(state, now, self._paces.describe(name)) for name, state in self._states.items()}


def _described(state: _State, now: float, models: dict[str, dict[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {"running": state.running}
    if state.paused is not None:
        found["paused"] = state.paused
    if state.open_until is not None:
        found["breaker"] = {"probe_in_s": round(max(0.0, state.open_until - now), 1), "error": state.last_error}
    if models:
        found["models"] = models
    return found


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may hold."""

    slots: int
    lease_s: float
    deadline_s: float
    max_rescues: int
    max_failures: int
