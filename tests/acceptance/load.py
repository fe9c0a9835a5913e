"""A load that goes on through whatever happens meanwhile, with its books kept."""

from __future__ import annotations

import threading

from tests.acceptance.accounting import Chaos, account
from tests.stand import Stand, wait_for


class Load:
    """Submits all along, on a thread of its own, and writes down what it was told each time."""

    def __init__(self, stand: Stand, *, every_s: float = 0.05, latency_s: float = 0.3) -> None:
        self.stand = stand
        self._books = Chaos(stand, seed=0, tasks=0, seconds=0)
        self._every_s = every_s
        self._names = [("qwen", f"qwen+latency={latency_s:g}"), ("gemini", "gemini")]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.tried = 0
        self.accepted = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.accepted += self._books._submitted(f"load {self.tried}", self._names)
            self.tried += 1

    def goes_on(self, number: int = 10) -> None:
        """Wait until so many more submissions are accepted."""
        before = self.accepted
        wait_for(lambda: self.accepted >= before + number, what=f"{number} more accepted submissions")

    def account(self, *, calls_at_most: int | None = None, rescues_at_most: int = 1) -> None:
        """Lost 0, terminal once, stale 0, nothing left in Redis; and no good task was given up.

        Args:
            calls_at_most: beyond one for each task.
            rescues_at_most: of one task; by chance one is held by two workers that are killed.
        """
        told = [made.told for made in self._books.operations]
        print(f"submissions: { {how: told.count(how) for how in sorted(set(told))} }")
        account(self.stand, self._books.submitted, operations=self._books.operations)
        [(tasks, unanswered, rescued)] = self.stand.query(
            "SELECT count(*), count(*) FILTER (WHERE status <> 1), max(rescues) FROM task"
        )
        assert unanswered == 0
        assert rescued <= rescues_at_most
        print(f"{tasks} tasks, all answered, {self.stand.upstream.calls} calls")
        if calls_at_most is not None:
            assert self.stand.upstream.calls <= tasks + calls_at_most
