"""The parts of a worker: heartbeat, look-out, reconciler, intake, recorder, keep-alive; and what the store locks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest

from shared.domain import Claimed, Finished, TaskStatus
from shared.errors import DatabaseUnavailable
from shared.store import claims, fleet, operate, read, recovery, work
from shared.store.engine import Database
from shared.streams import Streams
from tests.stand import Stand, wait_for
from workers.heartbeat import Heartbeat
from workers.holdings import Holding, Holdings
from workers.keepalive import KeepAlive
from workers.parts import PartEnded, Parts
from workers.reconciler import Reconciler

TERMS = claims.Terms("w", 3.0, 3600.0, 3)


@pytest.fixture
def db(stand: Stand) -> Iterator[Database]:
    with stand.db() as made:
        yield made


@contextlib.contextmanager
def locked(stand: Stand, statement: str, *values: Any) -> Iterator[None]:
    """Somebody has psql open and began a transaction."""
    connection = psycopg2.connect(stand.servers.dsn(stand.database), application_name="psql")
    try:
        connection.cursor().execute(statement, values)
        yield
    finally:
        connection.close()


def claimed(stand: Stand, db: Database, *models: str) -> list[Claimed]:
    return claims.claim(db, list(stand.submit("hello", *models).task_ids), TERMS)[0]


def report() -> fleet.WorkerReport:
    return fleet.WorkerReport("w", "h", 1, ("qwen",), 4, 0, 3.0, "1", {})


def beating(db: Database, holdings: Holdings, lost: list[Any], **more: Any) -> Heartbeat:
    return Heartbeat(db, holdings, **{"lease_s": 3.0, "report": report, "lost": lost.extend, **more})


@contextlib.contextmanager
def running(heartbeat: Heartbeat) -> Iterator[None]:
    thread = threading.Thread(target=heartbeat.run)
    thread.start()
    try:
        yield
    finally:
        heartbeat.stop()
        thread.join()


def held(tasks: list[Claimed]) -> Holdings:
    holdings = Holdings()
    for task in tasks:
        holdings.add(Holding(task))
    return holdings


def test_a_locked_row_costs_no_other_task_its_lease_and_is_not_taken_for_lost(stand: Stand, db: Database) -> None:
    tasks = claimed(stand, db, "qwen", "gemini", "deepseek")
    lost: list[Any] = []
    stand.query("UPDATE task SET lease_until = now() + interval '0.5 s'")
    with (
        locked(stand, "SELECT 1 FROM task WHERE id = %s FOR UPDATE", tasks[0].id),
        running(beating(db, held(tasks), lost)),
    ):
        others = [task.id for task in tasks[1:]]
        wait_for(lambda: all((read.task(db, i).lease_left_s or 0) > 1.5 for i in others), what="the others' leases")
        assert (read.task(db, tasks[0].id).lease_left_s or 0) < 1
        lease = stand.query("SELECT lease_until FROM task WHERE id = %s", tasks[0].id)
    assert lost == []
    with running(beating(db, held(tasks), lost)):
        wait_for(lambda: stand.query("SELECT lease_until FROM task WHERE id = %s", tasks[0].id) > lease)


def test_a_failed_beat_is_tried_again_at_once(stand: Stand, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = claimed(stand, db, "qwen")
    beats: list[float] = []
    real = work.heartbeat

    def failing(*args: Any, **more: Any) -> set[str]:
        beats.append(time.monotonic())
        if len(beats) == 1:
            raise DatabaseUnavailable("gone")
        return real(*args, **more)

    monkeypatch.setattr(work, "heartbeat", failing)
    with running(beating(db, held(tasks), [], lease_s=60.0)):
        wait_for(lambda: len(beats) == 2, timeout_s=5, what="the second try, long before a third of the lease")


def test_beats_go_by_the_clock_however_long_pauses_take_to_look_up(stand: Stand) -> None:
    """A third of a lease of 3 s is 1 s; the table of pauses is locked for twice the lease."""
    stand.more = {"AITASK_LEASE_S": "3"}
    worker = stand.start_worker("qwen")
    made = stand.submit("hello", "qwen+latency=7")
    wait_for(lambda: stand.upstream.calls == 1, what="the call")
    with locked(stand, "LOCK TABLE family_pause"):
        end = time.monotonic() + 5
        while time.monotonic() < end:
            left = stand.query("SELECT extract(epoch FROM lease_until - now())::float FROM task")[0][0]
            assert left is not None
            assert left > 0.5, "the lease runs out under a healthy worker"
            time.sleep(0.1)
    assert stand.finished(made.batch_id).tasks[0].attempt == 1
    assert worker.poll() is None


def test_a_result_whose_row_is_locked_waits_and_the_others_are_recorded(stand: Stand) -> None:
    stand.start_worker("qwen")
    made = stand.submit("hello", "qwen+latency=1", "qwen2+latency=1")
    wait_for(lambda: stand.upstream.calls == 2, what="the calls")
    first, second = made.task_ids
    with locked(stand, "SELECT 1 FROM task WHERE id = %s FOR UPDATE", first):
        wait_for(lambda: stand.query("SELECT status FROM task WHERE id = %s", second) == [(1,)], what="the other")
        assert stand.query("SELECT status FROM task WHERE id = %s", first) == [(3,)]
    batch = stand.finished(made.batch_id)
    assert [(t.status, t.attempt) for t in batch.tasks] == [(TaskStatus.SUCCESS, 1)] * 2
    assert "stale" not in stand.logs()


def test_a_locked_row_stops_no_reader(stand: Stand) -> None:
    stuck = stand.submit("locked", "qwen")
    with locked(stand, "SELECT 1 FROM task WHERE id = %s FOR UPDATE", stuck.task_ids[0]):
        stand.start_worker("qwen", "gemini")
        for number in range(10):
            made = stand.submit(f"p{number}", "qwen", "gemini")
            stand.finished(made.batch_id, timeout_s=20)
        explain = ("explain", stuck.task_ids[0])
        explained = wait_for(
            lambda: found if "its row is locked by psql" in (found := stand.aitask(*explain).out) else None,
            timeout_s=15, what="the lock's holder named",
        )  # fmt: skip
        assert "pg_terminate_backend" in explained
    assert stand.finished(stuck.batch_id).tasks[0].attempt == 1


def test_a_reconciler_whose_redis_stalls_holds_no_turn(stand: Stand, db: Database) -> None:
    stand.submit("hello", "qwen")
    seen = []

    class Slow(Streams):
        def watermark(self, family: str) -> Any:
            seen.append(recovery.turn_holder(db))
            return super().watermark(family)

    streams = Slow(stand.settings.redis_dsn, namespace=stand.namespace)
    Reconciler(db, streams, families=("qwen",), lease_s=3.0, max_rescues=3).tick()
    assert seen == [None]


def test_who_has_the_reconciler_s_turn_is_named_without_taking_it(stand: Stand, db: Database) -> None:
    assert recovery.turn_holder(db) is None
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        found = recovery.turn_holder(db)
        assert found is not None
        assert (found.name, found.state) == ("aitask", "idle in transaction")


@pytest.mark.parametrize("kinds", [("operator", "signed_out"), ("signed_out", "operator")])
def test_two_pauses_at_once_extend_a_deadline_once(stand: Stand, db: Database, kinds: tuple[str, str]) -> None:
    claimed(stand, db, "qwen")
    stand.query("UPDATE task SET deadline_at = now()")
    for kind in kinds:
        fleet.pause(db, "qwen", kind=kind, reason="upkeep", for_s=None)
    stand.query("UPDATE family_pause SET paused_at = now() - interval '1 hour' WHERE kind = %s", kinds[0])
    stand.query("UPDATE family_pause SET paused_at = now() - interval '30 min' WHERE kind = %s", kinds[1])
    for kind in kinds:
        assert fleet.resume(db, "qwen", kind=kind)
    [(moved,)] = stand.query("SELECT extract(epoch FROM deadline_at - now())::int FROM task")
    assert 3590 <= moved <= 3610


def test_a_pause_that_ends_by_itself_moves_deadlines_by_its_own_length(stand: Stand, db: Database) -> None:
    claimed(stand, db, "qwen")
    stand.query("UPDATE task SET deadline_at = now()")
    fleet.pause(db, "qwen", kind="operator", reason="upkeep", for_s=1)
    stand.query("UPDATE family_pause SET paused_at = now() - interval '2 hours', until = now() - interval '1 hour'")
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        assert turn.enforce_deadlines() == [], "a deadline that a pause is about to move"
    assert fleet.end_pauses(db)
    assert not fleet.end_pauses(db)
    [(moved,)] = stand.query("SELECT extract(epoch FROM deadline_at - now())::int FROM task")
    assert 3590 <= moved <= 3610


def test_pauses_hints_beats_and_results_at_once_never_deadlock(stand: Stand, db: Database) -> None:
    """The same 200 rows by everybody: rows are locked in id order everywhere."""
    ids = [i for n in range(50) for i in stand.submit(f"p{n}", "qwen", "qwen2", "qwen3", "qwen4").task_ids]
    stand.query("UPDATE task SET deadline_at = now() + interval '1 day'")
    half = [Claimed.id for Claimed in claims.claim(db, ids[::2], TERMS)[0]]
    fences = [(i, 1) for i in half]
    end = time.monotonic() + 3

    def again(does: Any) -> int:
        turns = 0
        while time.monotonic() < end:
            does()
            turns += 1
        return turns

    def paused(kind: str, for_s: float | None) -> None:
        fleet.pause(db, "qwen", kind=kind, reason="x", for_s=for_s)
        fleet.end_pauses(db) if for_s else fleet.resume(db, "qwen", kind=kind)

    back = [Finished(id=i, attempt=9, status=TaskStatus.PENDING, outcome="retry") for i in reversed(half)]
    jobs = [
        lambda: paused("a", None),
        lambda: paused("b", 0.001),
        lambda: operate.owe_hints(db, list(reversed(ids))),
        lambda: (work.heartbeat(db, fences[::-1], lease_s=9), work.record(db, back)),
    ]
    with ThreadPoolExecutor(len(jobs)) as pool:
        assert all(turns > 0 for turns in pool.map(again, jobs))
    [(deadlocks,)] = stand.query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert deadlocks == 0


class Unaskable:
    """An upstream whose host name IDNA refuses."""

    async def look(self, behaviour: Any) -> None:
        "\u2024".join(["a" * 70, "x"]).encode("idna")


class SignedIn:
    keepalive_s = 0.01

    class family:
        name = "gemini"


def test_a_keep_alive_that_can_t_even_ask_goes_on(db: Database) -> None:
    keepalive = KeepAlive(SignedIn(), Unaskable(), db, None)  # type: ignore[arg-type]

    async def some() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(keepalive.run(), 0.2)

    asyncio.run(some())


async def _boom() -> None:
    raise ValueError("boom")


def _thread_boom() -> None:
    raise ValueError("boom")


@pytest.mark.parametrize("how", ["task", "thread", "call", "silently"])
def test_a_part_that_ends_is_told_with_its_cause(how: str) -> None:
    async def first() -> PartEnded:
        parts = Parts()
        if how == "task":
            parts.task("one", _boom())
        elif how == "thread":
            parts.thread("one", _thread_boom)
        elif how == "call":
            parts.watch("one", asyncio.create_task(_boom()))
        else:
            parts.thread("one", lambda: None)
        return await asyncio.wait_for(parts.wait(), 5)

    hook = threading.excepthook
    try:
        ended = asyncio.run(first())
    finally:
        threading.excepthook = hook
    assert ended.part == "one"
    assert isinstance(ended.__cause__, ValueError) == (how != "silently")
