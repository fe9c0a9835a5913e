"""Guards that one wrong line would take away, each with the moment in which it counts."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

import pytest

from shared.domain import Claimed, Finished, TaskStatus
from shared.store import claims, operate, read, recovery, work
from shared.store.engine import Database
from tests.integration.test_parts import report
from tests.stand import Stand
from workers.heartbeat import Heartbeat
from workers.holdings import Holding, Holdings
from workers.reconciler import Reconciler

TERMS = claims.Terms("w", 30.0, 3600.0, 3)


@pytest.fixture
def db(stand: Stand) -> Iterator[Database]:
    with stand.db() as made:
        yield made


def claim_one(stand: Stand, db: Database) -> Claimed:
    return claims.claim(db, stand.submit("hello", "qwen").task_ids, TERMS)[0][0]


def answer(task: Claimed) -> Finished:
    return Finished(
        id=task.id, attempt=task.attempt, status=TaskStatus.SUCCESS, outcome="answered", response_text="yes"
    )


def test_a_result_that_comes_between_a_rescue_s_look_and_its_deed_is_not_overwritten(
    stand: Stand, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = claim_one(stand, db)
    stand.query("UPDATE task SET lease_until = now() - interval '1 s'")
    found, written = recovery.Tick._found, []

    def and_then(self: Any, *args: Any, **more: Any) -> list[str]:
        ids = found(self, *args, **more)
        if ids and not written:
            with stand.db() as other:
                written.append(work.record(other, [answer(task)]))
        return ids

    monkeypatch.setattr(recovery.Tick, "_found", and_then)
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        turn.expire_leases()
    assert len(written) == 1
    assert (read.task(db, task.id).status is TaskStatus.SUCCESS) == bool(written[0]), "recorded, and taken back"


def late(stand: Stand, db: Database, task: Claimed) -> None:
    stand.query("UPDATE task SET deadline_at = now() - interval '1 s'")
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        assert turn.enforce_deadlines() == [task.id]


@pytest.mark.parametrize("how", ["cancel", "fail", "deadline"])
def test_who_ends_a_running_task_raises_its_fence_and_a_retry_does_not_let_the_old_call_in(
    stand: Stand, db: Database, how: str
) -> None:
    old = claim_one(stand, db)
    if how == "cancel":
        assert operate.cancel(db, [old.id]) == [old.id]
    elif how == "fail":
        assert operate.fail(db, [old.id], reason="no") == [old.id]
    else:
        late(stand, db, old)
    assert read.task(db, old.id).attempt == old.attempt + 1
    operate.retry(db, [old.id])
    (new,) = claims.claim(db, [old.id], TERMS)[0]
    assert work.record(db, [answer(old)]) == set()
    assert work.record(db, [answer(new)]) == {new.id}


def test_a_result_after_the_lease_s_end_is_refused(stand: Stand, db: Database) -> None:
    task = claim_one(stand, db)
    stand.query("UPDATE task SET lease_until = now() - interval '1 s'")
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        turn.expire_leases()
    assert work.record(db, [answer(task)]) == set()
    assert read.task(db, task.id).status is TaskStatus.PENDING


def test_leases_go_by_the_database_s_clock_whatever_the_worker_s_says(
    stand: Stand, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = stand.submit("hello", "qwen").task_ids[0]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    (task,) = claims.claim(db, [task_id], TERMS)[0]
    assert 25 < (read.task(db, task.id).lease_left_s or 0) <= 30
    work.heartbeat(db, [(task.id, task.attempt)], lease_s=60)
    assert 55 < (read.task(db, task.id).lease_left_s or 0) <= 60


def test_a_long_backlog_of_hints_is_never_trimmed(stand: Stand) -> None:
    with stand.streams() as streams:
        streams.send([("qwen", f"00000000-0000-4000-8000-{n:012}") for n in range(2500)])
        assert streams.client.xlen(streams.keys.tasks("qwen")) == 2500


def test_a_healthy_backlog_is_not_sent_again(stand: Stand, db: Database) -> None:
    for number in range(20):
        stand.submit(f"p{number}", "qwen")
    stand.query("UPDATE task SET enqueued_at = enqueued_at - interval '1 ms'")
    with stand.streams() as streams:
        streams.ensure_group("qwen")
        reconciler = Reconciler(db, streams, families=("qwen",), lease_s=30.0, max_rescues=3)
        for _ in range(3):
            reconciler.tick()
        assert streams.client.xlen(streams.keys.tasks("qwen")) == 20


def test_a_lost_hint_is_sent_again_by_a_tick_and_only_once(stand: Stand, db: Database) -> None:
    made = stand.submit("hello", "qwen")
    with stand.streams() as streams:
        streams.client.delete(streams.keys.tasks("qwen"))
        reconciler = Reconciler(db, streams, families=("qwen",), lease_s=30.0, max_rescues=3)
        for _ in range(3):
            reconciler.tick()
        found = streams.client.xrange(streams.keys.tasks("qwen"))
    assert [fields[b"task"].decode() for _, fields in found] == list(made.task_ids)


def test_a_task_is_not_claimed_before_its_time_by_any_way(stand: Stand, db: Database) -> None:
    made = stand.submit("hello", "qwen")
    stand.query("UPDATE task SET run_at = now() + interval '1 hour'")
    assert claims.claim(db, made.task_ids, TERMS)[0] == []
    assert claims.claim_due(db, "qwen", TERMS, most=9) == []
    assert claims.claim_overdue(db, "qwen", TERMS, most=9) == []


def test_a_beat_names_the_lease_that_is_lost(stand: Stand, db: Database) -> None:
    task = claim_one(stand, db)
    operate.cancel(db, [task.id])
    holdings, lost = Holdings(), []
    holdings.add(Holding(task))
    assert Heartbeat(db, holdings, lease_s=30.0, report=report, lost=lost.extend).beat() == 0
    assert lost == [(task.id, task.attempt)]


def test_the_watermark_s_time_is_the_first_unread_entry_s(stand: Stand) -> None:
    with stand.streams() as streams:
        streams.ensure_group("qwen")
        streams.send([("qwen", "00000000-0000-4000-8000-000000000001")])
        mark = streams.watermark("qwen")
        assert mark is not None
        assert dt.timedelta() <= mark.redis_now - mark.safe_until < dt.timedelta(seconds=30)
