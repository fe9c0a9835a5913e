"""The recorder with a store and a stream of the test's own: what is written, and what is acknowledged when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from shared.domain import Claimed, Finished, TaskStatus
from shared.errors import DatabaseUnavailable, HintsUnavailable
from shared.store import work
from shared.streams import Hint
from workers import recorder as module
from workers.holdings import Holding, Holdings
from workers.recorder import Recorder


class Store:
    """What `work` does, without a database. `refuse` may raise before anything is written."""

    def __init__(self, refuse: Callable[[list[str]], None] = lambda ids: None) -> None:
        self.refuse = refuse
        self.stale: set[str] = set()
        self.locked: set[str] = set()
        self.order: list[tuple[str, tuple[str, ...]]] = []

    def record(self, db: Any, results: Sequence[Finished]) -> set[str]:
        ids = [result.id for result in results]
        self.refuse(ids)
        written = set(ids) - self.stale - self.locked
        self.order.append(("written", tuple(sorted(written))))
        return written

    def still_held(self, db: Any, fences: Sequence[tuple[str, int]]) -> set[str]:
        return {task_id for task_id, _ in fences} & self.locked

    async def discard(self, hints: Sequence[Hint], *, resend: Sequence[tuple[str, str]] = ()) -> None:
        self.order.append(("acknowledged", tuple(sorted(hint.task_id or "" for hint in hints))))
        self.order += [("sent again", (task_id,)) for _, task_id in resend]

    @property
    def written(self) -> list[str]:
        return [task_id for what, ids in self.order if what == "written" for task_id in ids]

    @property
    def acknowledged(self) -> list[str]:
        return [task_id for what, ids in self.order if what == "acknowledged" for task_id in ids]


def result(task_id: str, **more: Any) -> Finished:
    return Finished(**{"id": task_id, "attempt": 1, "status": TaskStatus.SUCCESS, "outcome": "answered", **more})


def recorded(store: Store, results: Sequence[Finished], patch: pytest.MonkeyPatch) -> Holdings:
    """Run a recorder until all of these are written or given up."""
    patch.setattr(work, "record", store.record)
    patch.setattr(work, "still_held", store.still_held)
    patch.setattr(module, "_RETRY_S", (0.001,))
    patch.setattr(module, "LOCKED_RETRY_S", 0.001)
    holdings = Holdings()

    async def some() -> None:
        one = Recorder(None, store, holdings)  # type: ignore[arg-type]
        for each in results:
            task = Claimed(each.id, "b", "c", "m", "qwen", each.attempt, 0, 0, 0, "p", None, {}, ())
            holdings.add(Holding(task, Hint("qwen", f"{len(holdings)}-0", each.id, {})))
            one.put(each)
        running = asyncio.create_task(one.run())
        await asyncio.wait_for(one.drained(), 10)
        assert one.unwritten == 0
        running.cancel()

    asyncio.run(some())
    return holdings


def test_nothing_is_acknowledged_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    recorded(store, [result("a"), result("b")], monkeypatch)
    assert store.order == [("written", ("a", "b")), ("acknowledged", ("a", "b"))]


def test_every_one_of_a_flood_is_written_once_and_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    store, ids = Store(), [f"{n:04}" for n in range(1001)]
    holdings = recorded(store, [result(i) for i in ids], monkeypatch)
    assert (sorted(store.written), sorted(store.acknowledged), len(holdings)) == (ids, ids, 0)
    assert max(len(some) for _, some in store.order) == module.MOST_ROWS


def test_a_statement_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    large = "x" * (module.MOST_BYTES // 8)
    recorded(store, [result(i, response_text=large) for i in "abcde"], monkeypatch)
    assert [len(ids) for what, ids in store.order if what == "written"] == [2, 2, 1]


def test_a_stale_result_s_hint_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    store.stale = {"a"}
    holdings = recorded(store, [result("a"), result("b")], monkeypatch)
    assert (store.written, sorted(store.acknowledged), len(holdings)) == (["b"], ["a", "b"], 0)


def test_an_answer_waits_for_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def refuse(ids: list[str]) -> None:
        tries.append(ids)
        if len(tries) < 4:
            raise DatabaseUnavailable("gone")

    store = Store(refuse)
    recorded(store, [result("a")], monkeypatch)
    assert (len(tries), store.order) == (4, [("written", ("a",)), ("acknowledged", ("a",))])


def test_a_result_whose_row_is_locked_is_written_once_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(ids: list[str]) -> None:
        if ids == ["a"]:
            store.locked = set()

    store = Store(refuse)
    store.locked = {"a"}
    recorded(store, [result("a"), result("b")], monkeypatch)
    assert (store.written, store.acknowledged) == (["b", "a"], ["b", "a"])


def test_the_one_that_can_t_be_stored_fails_and_the_others_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bad(Store):
        seen: tuple[Finished, ...] = ()

        def record(self, db: Any, results: Sequence[Finished]) -> set[str]:
            if any(one.id == "b" and one.outcome == "answered" for one in results):
                raise ValueError("one row's fault")
            self.seen += tuple(results)
            return super().record(db, results)

    store = Bad()
    recorded(store, [result(i) for i in "abc"], monkeypatch)
    assert sorted(store.written) == ["a", "b", "c"]
    assert [(one.id, one.error_kind) for one in store.seen if one.status is TaskStatus.FAILED] == [("b", "unstorable")]


def test_a_row_that_takes_nothing_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(ids: list[str]) -> None:
        if "a" in ids:
            raise ValueError("never")

    store = Store(refuse)
    holdings = recorded(store, [result("a"), result("b")], monkeypatch)
    assert (store.written, sorted(store.acknowledged), len(holdings)) == (["b"], ["a", "b"], 0)


def test_what_is_handed_back_is_hinted_at_again_at_once_and_a_retry_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    back = result("a", status=TaskStatus.PENDING)
    recorded(store, [back, result("b", status=TaskStatus.PENDING, run_in_s=2.0)], monkeypatch)
    assert ("sent again", ("a",)) in store.order
    assert ("sent again", ("b",)) not in store.order


def test_a_redis_that_is_away_holds_up_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(Store):
        async def discard(self, hints: Sequence[Hint], *, resend: Sequence[tuple[str, str]] = ()) -> None:
            raise HintsUnavailable("gone")

    store = Away()
    assert len(recorded(store, [result("a"), result("b")], monkeypatch)) == 0
    assert store.written == ["a", "b"]


def test_a_text_that_postgresql_does_not_take_is_made_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x00" not in (module._storable(result("a", response_text="x\x00y\ud800")).response_text or "")
