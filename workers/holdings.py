"""What a worker holds: every task from its claim until its result is recorded. Shared with the heartbeat's thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from shared.domain import Claimed
from shared.streams import Hint


@dataclass(eq=False, slots=True)
class Holding:
    """One held task, the hint that brought it (none when it was claimed without), and its running call."""

    task: Claimed
    hint: Hint | None = None
    call: asyncio.Task[None] | None = None
    lost: bool = False

    @property
    def fence(self) -> tuple[str, int]:
        return self.task.id, self.task.attempt


class Holdings:
    """The held tasks by id. A worker may in time hold a task again, under another attempt."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], Holding] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, holding: Holding) -> None:
        with self._lock:
            self._held[holding.fence] = holding

    def remove(self, fence: tuple[str, int]) -> Holding | None:
        with self._lock:
            return self._held.pop(fence, None)

    def snapshot(self) -> list[Holding]:
        """All that is held now, for any thread."""
        with self._lock:
            return list(self._held.values())

    def has_suspect(self, from_rescues: int) -> bool:
        """Tell whether a task that workers have died on is among them."""
        return any(holding.task.rescues >= from_rescues for holding in self.snapshot())

    def lose(self, fences: Iterable[tuple[str, int]]) -> None:
        """The leases of these are gone: stop their calls at once. On the loop's thread only."""
        for fence in fences:
            holding = self._held.get(fence)
            if holding is not None and not holding.lost:
                holding.lost = True
                if holding.call is not None:
                    holding.call.cancel()
