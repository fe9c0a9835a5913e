"""The intake with a store and a stream of the test's own: what is claimed, set aside, put away and taken over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from shared.domain import Claimed, HintFate
from shared.errors import DatabaseUnavailable, HintsUnavailable
from shared.store import claims
from shared.streams import Hint
from workers import intake as module
from workers.gate import Gate, Limits
from workers.holdings import Holding, Holdings
from workers.intake import Intake


def task(task_id: str, **more: Any) -> Claimed:
    values = dict(zip(Claimed.__slots__, ("", "b", "c", "m", "qwen", 1, 0, 0, 0, "p", None, {}, ()), strict=False))
    return Claimed(**{**values, "id": task_id, **more})


def hint(task_id: str | None, entry: str = "1-0") -> Hint:
    return Hint("qwen", entry, task_id, {})


class Redis:
    """A reader of hints that says what it is told to, and writes down what it is asked for."""

    def __init__(self) -> None:
        self.pages: list[tuple[str, list[Hint]]] = []
        self.reads: list[Any] = []
        self.cursors: list[str] = []
        self.discarded: list[str | None] = []
        self.resent: list[str] = []
        self.buried: list[str | None] = []
        self.groups_made = 0
        self.away = False

    def _look(self) -> None:
        if self.away:
            raise HintsUnavailable("gone")

    async def ensure_groups(self, families: Sequence[str]) -> None:
        self._look()
        self.groups_made += 1

    async def read(self, families: Sequence[str], *, each: int) -> list[Hint]:
        self._look()
        if not self.reads:
            await asyncio.sleep(0.005)
            return []
        found = self.reads.pop(0)
        if isinstance(found, Exception):
            raise found
        return list(found)

    async def take_over(self, family: str, *, idle_s: float, cursor: str, most: int) -> tuple[str, list[Hint]]:
        self.cursors.append(cursor)
        return self.pages.pop(0)

    async def discard(self, hints: Sequence[Hint], *, resend: Sequence[tuple[str, str]] = ()) -> None:
        self._look()
        self.discarded += [one.task_id for one in hints]
        self.resent += [task_id for _, task_id in resend]

    async def bury(self, hints: Sequence[Hint], *, reason: str) -> None:
        self._look()
        self.buried += [one.task_id for one in hints]


class Bench:
    """An intake between a Redis and a database that are the test's."""

    def __init__(self, patch: pytest.MonkeyPatch, fates: dict[str, list[Any]] | None = None) -> None:
        self.redis, self.holdings = Redis(), Holdings()
        # Of each task what its claims come to, one after another; the last goes on.
        self.fates = fates or {}
        self.due: list[Claimed] = []
        self.begun: list[str] = []
        self.gone: list[str] = []
        self.database_away = 0
        self.gate = Gate(("qwen",), slots=8, clock=time.monotonic)
        for name in ("claim", "claim_due", "claim_overdue", "claim_suspect"):
            patch.setattr(claims, name, getattr(self, name))

    def make(self) -> Intake:
        limits = Limits(slots=8, lease_s=30, deadline_s=60, max_rescues=3, max_failures=5)
        return Intake(
            None, self.redis, self.gate, self.holdings, limits,  # type: ignore[arg-type]
            worker="w", families=("qwen",), start=self._begin, group_gone_for=self.gone.append,
        )  # fmt: skip

    def _begin(self, task: Claimed, hint: Hint | None) -> None:
        self.begun.append(task.id)
        self.holdings.add(Holding(task, hint))

    def _look(self) -> None:
        if self.database_away:
            self.database_away -= 1
            raise DatabaseUnavailable("gone")

    def claim(self, db: Any, ids: Sequence[str], terms: Any, paced: Any = ()) -> Any:
        self._look()
        said: dict[str, Any] = {}
        for task_id in ids:
            fates = self.fates.get(task_id, ["claimed"])
            said[task_id] = fates.pop(0) if len(fates) > 1 else fates[0]
        claimed = [task(i) for i, fate in said.items() if fate == "claimed"]
        return claimed, {i: fate for i, fate in said.items() if fate != "claimed"}

    def claim_due(self, db: Any, family: str, terms: Any, paced: Any = (), *, most: int) -> list[Claimed]:
        self._look()
        taken, self.due = self.due[:most], self.due[most:]
        return taken

    claim_overdue = claim_due

    def claim_suspect(self, db: Any, families: Any, terms: Any, paced: Any = ()) -> Claimed | None:
        return self.due.pop() if self.due else None


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def some() -> None:
        await asyncio.wait_for(work(), 20)

    asyncio.run(some())


def test_the_cursor_is_carried_on_from_pass_to_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.redis.pages = [("5-0", []), ("9-0", [hint("a")]), ("0-0", [])]

    async def passes() -> None:
        intake = bench.make()
        for _ in range(3):
            await intake.take_over()

    run(passes)
    assert (bench.redis.cursors, bench.begun) == (["0-0", "5-0", "9-0"], ["a"])


def test_each_hint_ends_as_the_database_says(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, {"done": [HintFate.DONE], "later": [HintFate.PUT_OFF], "unknown": [HintFate.UNKNOWN]})

    async def take() -> None:
        await bench.make().take([hint(i) for i in ("a", "a", "done", "later", "unknown", None)])

    run(take)
    assert bench.begun == ["a"]
    assert sorted(map(str, bench.redis.discarded)) == ["a", "done", "later"], "the second hint to the same task ends"
    assert bench.redis.buried == [None, "unknown"]


def test_a_locked_row_is_set_aside_and_claimed_once_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, {"locked": [HintFate.LOCKED, HintFate.LOCKED, "claimed"]})

    async def take() -> None:
        intake = bench.make()
        await intake.take([hint("locked"), hint("b", "2-0")])
        assert bench.begun == ["b"], "the reader goes on"
        retrying = asyncio.create_task(intake.retry_locked())
        await until(lambda: bench.begun == ["b", "locked"])
        intake.stop()
        await retrying

    run(take)
    assert bench.redis.discarded == []


def test_what_is_set_aside_is_handed_on_when_the_worker_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, {"locked": [HintFate.LOCKED]})

    async def take() -> None:
        intake = bench.make()
        await intake.take([hint("locked")])
        intake.stop()
        await intake.retry_locked()
        await intake.take([hint("late")])
        await intake.stopped()

    run(take)
    assert (bench.redis.resent, bench.begun) == (["locked", "late"], [])


def test_hints_wait_for_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DATABASE_RETRY_S", 0.001)
    bench = Bench(monkeypatch)
    bench.database_away = 3

    async def take() -> None:
        await bench.make().take([hint("a")])

    run(take)
    assert (bench.begun, bench.redis.discarded) == (["a"], [])


def test_a_group_that_is_gone_is_made_again_and_the_reconciler_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "group_gone", lambda error: "NOGROUP" in error.message)
    bench = Bench(monkeypatch)
    bench.redis.reads = [HintsUnavailable("NOGROUP"), [hint("a")]]

    async def read() -> None:
        intake = bench.make()
        await intake.prepare()
        running = asyncio.create_task(intake.run())
        await until(lambda: bench.begun == ["a"])
        intake.stop()
        await running

    run(read)
    assert (bench.gone, bench.redis.groups_made) == (["qwen"], 2)


def test_while_redis_is_away_tasks_come_from_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAY_S", 0.05)
    bench = Bench(monkeypatch)
    bench.redis.away = True
    bench.due = [task("due")]

    async def read() -> None:
        intake = bench.make()
        await intake.prepare()
        running = asyncio.create_task(intake.run())
        await until(lambda: bench.begun == ["due"])
        bench.redis.away = False
        bench.redis.reads = [[hint("a")]]
        intake.slot_freed()
        await until(lambda: bench.begun == ["due", "a"])
        intake.stop()
        await running

    run(read)


def test_what_nobody_hints_at_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.due = [task("overdue")]

    async def take() -> None:
        await bench.make().take_overdue()

    run(take)
    assert bench.begun == ["overdue"]


def test_a_suspect_is_claimed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.due = [task("one", rescues=2), task("two", rescues=2)]

    async def take() -> None:
        intake = bench.make()
        assert await intake.take_suspect()
        assert await intake.take_suspect(), "one is held: no other is asked for"

    run(take)
    assert bench.begun == ["two"]
