"""The store on a real PostgreSQL: submit, claim, fence, heartbeat, expiry."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from aitask_cli.views import shape
from shared.bulk import submit_all
from shared.columns import RESULT
from shared.domain import Claimed, Finished, HintFate, TaskStatus
from shared.errors import DatabaseUnavailable, NotFound, SchemaMismatch, UsageFault
from shared.migrations import HEAD
from shared.store import claims, fleet, operate, read, recovery, schema, work
from shared.store.claims import Paced, Terms
from shared.store.engine import Database, Sql, UnstorableData
from shared.submission import Request, plan
from shared.tables import metadata
from tests.stand import Stand, wait_for

TERMS = Terms("w", 30.0, 3600.0, 3)


@pytest.fixture
def db(stand: Stand) -> Iterator[Database]:
    with stand.db() as opened:
        yield opened


def claim_one(db: Database, task_id: str) -> Claimed:
    claimed, _ = claims.claim(db, [task_id], TERMS)
    return claimed[0]


def answered(task: Claimed, text: str = "yes", **more: Any) -> Finished:
    return Finished(
        id=task.id, attempt=task.attempt, status=TaskStatus.SUCCESS, outcome="answered", response_text=text, **more
    )


def test_the_migrations_make_exactly_the_tables_that_the_code_names(db: Database) -> None:
    with schema.alembic_connection(db) as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
    assert found == []


def test_two_set_ups_at_once_make_one_set_of_tables(stand: Stand) -> None:
    stand.servers.admin(f"CREATE DATABASE {stand.database}_b")
    dsn = stand.settings.database_dsn.replace(stand.database, f"{stand.database}_b")
    opened = [Database(dsn) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(schema.upgrade, opened))
    assert sorted(before or "" for before, _ in done) == ["", HEAD, HEAD, HEAD]
    for one in opened:
        one.close()
    stand.servers.admin(f"DROP DATABASE {stand.database}_b WITH (FORCE)")


def test_a_database_without_tables_names_the_remedy(stand: Stand) -> None:
    with stand.db() as db:
        stand.query("DROP TABLE alembic_version")
        with pytest.raises(SchemaMismatch, match="aitask db init"):
            schema.check(db)
        stand.query("DROP TABLE attempt")
        with pytest.raises(SchemaMismatch, match="aitask db init"):
            read.attempts(db, "0" * 32)


def test_a_submission_is_one_batch_with_its_tasks_in_order(stand: Stand, db: Database) -> None:
    made = stand.submit("hello", "qwen", "gemini", "deepseek", system="be brief", options={"temperature": 0.2})
    batch = read.batch(db, made.batch_id)
    assert [task.family for task in batch.tasks] == ["qwen", "gemini", "deepseek"]
    assert [task.id for task in batch.tasks] == list(made.task_ids)
    assert (batch.prompt, batch.system, batch.options) == ("hello", "be brief", {"temperature": 0.2})
    assert {task.status for task in batch.tasks} == {TaskStatus.PENDING}


def test_a_hundred_submits_under_one_idempotency_key_make_one_batch(stand: Stand) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: stand.submit("hi", "qwen", idempotency_key="k"), range(100)))
    assert len({one.batch_id for one in made}) == 1
    assert sum(one.new for one in made) == 1
    assert stand.query("SELECT count(*) FROM task") == [(1,)]
    assert stand.query("SELECT count(*) FROM conversation") == [(1,)]


def test_another_request_under_a_used_idempotency_key_is_a_conflict(stand: Stand) -> None:
    stand.submit("hi", "qwen", idempotency_key="k")
    with pytest.raises(UsageFault, match="idempotency key"):
        stand.submit("hi", "qwen", "gemini", idempotency_key="k")
    assert stand.query("SELECT count(*) FROM batch") == [(1,)]


def test_a_claim_carries_all_the_call_needs_and_raises_the_fence(stand: Stand, db: Database) -> None:
    made = stand.submit("hello", "qwen", system="s", options={"seed": 1})
    task = claim_one(db, made.task_ids[0])
    assert (task.prompt, task.system, task.options, task.attempt, task.family) == ("hello", "s", {"seed": 1}, 1, "qwen")
    view = read.task(db, task.id)
    assert (view.status, view.worker) == (TaskStatus.PROCESSING, "w")
    assert 29 < (view.lease_left_s or 0) <= 30


def test_hints_that_claim_nothing_are_told_apart(stand: Stand, db: Database) -> None:
    made = stand.submit("hello", "qwen", "gemini", "deepseek")
    leased, locked, later = made.task_ids
    claim_one(db, leased)
    stand.query("UPDATE task SET run_at = now() + interval '1 hour' WHERE id = %s", later)
    unknown = "00000000-0000-4000-8000-000000000000"
    with db.transaction() as other:
        other.execute(sa.text("SELECT 1 FROM task WHERE id = :id FOR UPDATE"), {"id": locked})
        claimed, fates = claims.claim(db, [leased, locked, later, unknown], TERMS)
    assert claimed == []
    assert fates == {
        leased: HintFate.DONE, later: HintFate.PUT_OFF, locked: HintFate.LOCKED, unknown: HintFate.UNKNOWN,
    }  # fmt: skip


def test_a_result_is_recorded_once_with_its_attempt(stand: Stand, db: Database) -> None:
    made = stand.submit("hello", "qwen")
    task = claim_one(db, made.task_ids[0])
    done = answered(task, "yes", http_status=200, cost_time_s=1.5, prompt_tokens=3, completion_tokens=1)
    assert work.record(db, [done]) == {task.id}
    assert work.record(db, [done]) == set()
    view = read.task(db, task.id)
    assert (view.status, view.response_text, view.cost_time_s) == (TaskStatus.SUCCESS, "yes", 1.5)
    assert [(a.number, a.outcome, a.worker) for a in read.attempts(db, task.id)] == [(1, "answered", "w")]


def test_a_stale_worker_s_result_is_refused(stand: Stand, db: Database) -> None:
    made = stand.submit("hello", "qwen")
    stale = claim_one(db, made.task_ids[0])
    work.record(db, [work.handed_back(stale)])
    fresh = claim_one(db, made.task_ids[0])
    assert fresh.attempt == stale.attempt + 1
    assert work.record(db, [answered(stale, "stale")]) == set()
    assert work.record(db, [answered(fresh, "fresh")]) == {fresh.id}
    assert read.task(db, fresh.id).response_text == "fresh"


def test_data_that_postgresql_refuses_is_told_from_an_outage(stand: Stand, db: Database) -> None:
    task = claim_one(db, stand.submit("hello", "qwen").task_ids[0])
    with pytest.raises(UnstorableData):
        work.record(db, [answered(task, http_status=99_999)])
    assert work.record(db, [answered(task)]) == {task.id}


def test_a_heartbeat_extends_what_is_held_and_names_what_is_not(stand: Stand, db: Database) -> None:
    made = stand.submit("hello", "qwen", "gemini")
    held, lost = (claim_one(db, task_id) for task_id in made.task_ids)
    stand.query("UPDATE task SET lease_until = now() + interval '1 s'")
    kept = work.heartbeat(db, [(held.id, held.attempt), (lost.id, lost.attempt + 1)], lease_s=30)
    assert kept == {held.id}
    assert (read.task(db, held.id).lease_left_s or 0) > 25


def expire(db: Database, **more: Any) -> list[tuple[str, str]]:
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        return turn.expire_leases()


def test_an_expired_lease_brings_the_task_back_and_the_third_ends_it(stand: Stand, db: Database) -> None:
    task_id = stand.submit("hello", "qwen").task_ids[0]
    for _ in range(2):
        claim_one(db, task_id)
        assert expire(db) == []
        stand.query("UPDATE task SET lease_until = now() - interval '1 s'")
        assert expire(db) == [(task_id, "lease_expired")]
        assert read.task(db, task_id).status is TaskStatus.PENDING
    assert claims.claim(db, [task_id], TERMS) == ([], {task_id: HintFate.PUT_OFF}), (
        "a suspect is never claimed by its hint"
    )
    assert claims.claim_suspect(db, ["qwen"], TERMS) is not None
    stand.query("UPDATE task SET lease_until = now() - interval '1 s'")
    assert expire(db) == [(task_id, "poison")]
    view = read.task(db, task_id)
    assert (view.status, view.error_kind, view.rescues, view.failures) == (TaskStatus.FAILED, "poison", 3, 0)
    assert [a.outcome for a in read.attempts(db, task_id)] == ["lease_expired"] * 3


def test_a_task_past_its_deadline_fails_and_its_running_call_loses_the_fence(stand: Stand, db: Database) -> None:
    task = claim_one(db, stand.submit("hello", "qwen").task_ids[0])
    stand.query("UPDATE task SET deadline_at = now() - interval '1 s'")
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        assert turn.enforce_deadlines() == [task.id]
    assert work.record(db, [answered(task)]) == set()
    assert read.task(db, task.id).error_kind == "deadline"


def test_a_pause_holds_the_deadline_and_moves_it_when_it_ends(stand: Stand, db: Database) -> None:
    claim_one(db, stand.submit("hello", "qwen").task_ids[0])
    fleet.pause(db, "qwen", kind="operator", reason="upkeep", for_s=None)
    stand.query("UPDATE family_pause SET paused_at = now() - interval '1 hour'")
    stand.query("UPDATE task SET deadline_at = now() - interval '1 s'")
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        assert turn.enforce_deadlines() == []
    assert fleet.resume(db, "qwen")
    assert stand.query("SELECT deadline_at > now() + interval '50 min' FROM task") == [(True,)]
    assert fleet.pauses(db) == []


def test_only_one_reconciler_has_its_turn(db: Database) -> None:
    with recovery.tick(db, max_rescues=3) as mine, recovery.tick(db, max_rescues=3) as other:
        assert mine is not None
        assert other is None


def test_claims_that_race_never_share_a_task(stand: Stand, db: Database) -> None:
    ids = [task_id for n in range(20) for task_id in stand.submit(f"p{n}", "qwen", "gemini").task_ids]
    barrier = threading.Barrier(4)

    def take(_: int) -> list[str]:
        barrier.wait()
        return [task.id for task in claims.claim(db, ids, TERMS)[0]]

    with ThreadPoolExecutor(4) as pool:
        taken = [task_id for part in pool.map(take, range(4)) for task_id in part]
    assert sorted(taken) == sorted(ids)


def test_a_batch_is_found_by_prefix_and_by_last(stand: Stand, db: Database) -> None:
    with pytest.raises(NotFound, match="no batch"):
        read.find_batch(db, "last")
    first = stand.submit("one", "qwen").batch_id
    second = stand.submit("two", "qwen").batch_id
    assert read.find_batch(db, "last") == second
    assert read.find_batch(db, first[:13].upper()) == first
    stand.query("UPDATE task SET batch_id = batch_id")
    twin = first[:8] + second[8:]
    stand.query("INSERT INTO batch SELECT %s, conversation_id, prompt FROM batch WHERE id = %s", twin, first)
    with pytest.raises(UsageFault, match="more than one"):
        read.find_batch(db, first[:8])


def test_an_unreachable_database_is_unavailable_and_its_password_unsaid() -> None:
    db = Database("postgresql+psycopg2://u:hunter2@127.0.0.1:1/x", timeout_s=1)
    with pytest.raises(DatabaseUnavailable) as caught:
        schema.current(db)
    assert "hunter2" not in str(caught.value)


def test_work_left_looks_at_unpaused_families_only(stand: Stand, db: Database) -> None:
    assert not fleet.work_left(db, ["qwen", "gemini"])
    task_id = stand.submit("x", "qwen").task_ids[0]
    assert fleet.work_left(db, ["qwen"])
    assert not fleet.work_left(db, ["gemini"])
    claim_one(db, task_id)
    assert fleet.work_left(db, ["qwen"])
    fleet.pause(db, "qwen", kind="operator", reason="x", for_s=60)
    assert not fleet.work_left(db, ["qwen"])


def test_bulk_submissions_at_once_under_the_same_keys_make_each_batch_once(stand: Stand) -> None:
    plans = [
        plan(Request(prompt=f"p{n}", models=["qwen"], idempotency_key=f"night:{n}"), stand.settings) for n in range(200)
    ]
    with stand.db() as db, stand.streams() as streams, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: [i for s in submit_all(db, streams, plans) for i in s.batch_ids], range(4)))
    assert all(ids == found[0] for ids in found)
    assert stand.query("SELECT count(*) FROM batch") == [(200,)]
    assert stand.query("SELECT count(*) FROM conversation") == [(200,)]


def test_bulk_texts_come_back_as_they_were_given(stand: Stand, db: Database) -> None:
    texts = ["a\tb", "a\nb\r\nc", r"\N", r"\.", "\\", "tab\\t", "ünïcode 漢字 🎉", "'quotes\" and $1 %s :x", "\x01"]
    models = ["qwen:a\\b", "gemini"]
    asked = [Request(prompt=text, system=text, models=models, options={"stop": [text]}) for text in texts]
    plans = [plan(request, stand.settings) for request in asked]
    with stand.streams() as streams:
        made = [i for some in submit_all(db, streams, plans) for i in some.batch_ids]
    found = dict(stand.query("SELECT id::text, ARRAY[prompt, system, options->'stop'->>0] FROM batch"))
    assert [found[batch_id] for batch_id in made] == [[text] * 3 for text in texts]
    rows = stand.query("SELECT DISTINCT position, model, family, now() - enqueued_at < interval '1 min' FROM task")
    assert sorted(rows) == [(0, "qwen:a\\b", "qwen", True), (1, "gemini-3.5-flash-lite", "gemini", True)]


def test_a_bulk_submission_whose_connection_is_cut_stores_nothing(stand: Stand, db: Database) -> None:
    plans = [plan(Request(prompt="p", models=["qwen"]), stand.settings)]
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with stand.db() as other, stand.streams() as streams, ThreadPoolExecutor(1) as pool:
        with other.transaction() as holder:
            holder.execute(Sql("LOCK TABLE task IN ACCESS EXCLUSIVE MODE"))
            cut_off = pool.submit(lambda: list(submit_all(db, streams, plans)))
            wait_for(lambda: stand.query(waiting), what="the submission at the lock")
            stand.query(f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS w")
            with pytest.raises(DatabaseUnavailable):
                cut_off.result(30)
        assert stand.query("SELECT count(*) FROM batch") == [(0,)]
        assert [some.new for some in submit_all(db, streams, plans)] == [1]


_SAMPLES = {"text": "ä", "smallint": 200, "integer": 7, "double precision": 1.5, "boolean": True, "jsonb": {"a": 1}}


def test_every_column_that_a_worker_fills_is_written_read_and_shown(stand: Stand, db: Database) -> None:
    made = stand.submit("hello", "qwen")
    task = claim_one(db, made.task_ids[0])
    said = {column.name: _SAMPLES[column.kind] for column in RESULT}
    finished = Finished(id=task.id, attempt=task.attempt, status=TaskStatus.SUCCESS, outcome="answered", **said)
    assert work.record(db, [finished]) == {task.id}
    (view,) = read.batch(db, made.batch_id).tasks
    assert {column.name: getattr(view, column.name) for column in RESULT} == said
    assert shape.task(view).items() >= {column.json: said[column.name] for column in RESULT}.items()


def passed_over(stand: Stand, task_id: str) -> tuple[int, int, bool, float]:
    (row,) = stand.query(
        "SELECT status, attempt, deadline_at IS NULL AND enqueued_at IS NULL, extract(epoch FROM run_at - now())::float"
        " FROM task WHERE id = %s",
        task_id,
    )
    return row  # type: ignore[return-value]


def cool(db: Database, stand: Stand, model: str, seconds: float) -> None:
    made = stand.submit("hi", model)
    task = claim_one(db, made.task_ids[0])
    told = Finished(
        id=task.id, attempt=task.attempt, status=TaskStatus.PENDING, outcome="retry", error_msg="slow down",
        run_in_s=seconds, cool_s=seconds,
    )  # fmt: skip
    assert work.record(db, [told]) == {task.id}


@pytest.mark.parametrize("way", ["by hint", "due", "overdue"])
def test_a_cooled_model_s_tasks_are_passed_over_at_no_cost_and_another_s_are_claimed(
    stand: Stand, db: Database, way: str
) -> None:
    cool(db, stand, "qwen:a", 60.0)
    made = stand.submit("hi", "qwen:a", "qwen:b")
    late = "UPDATE task SET enqueued_at = NULL, run_at = now() - interval '1 minute' WHERE batch_id = %s RETURNING 1"
    stand.query(late, made.batch_id)
    if way == "by hint":
        claimed, fates = claims.claim(db, list(made.task_ids), TERMS)
        assert set(fates.values()) == {HintFate.PUT_OFF}
        for task_id in fates:
            status, attempt, untouched, run_in_s = passed_over(stand, task_id)
            assert (status, attempt, untouched, 55 < run_in_s <= 60) == (0, 0, True, True)
    elif way == "due":
        claimed = claims.claim_due(db, "qwen", TERMS, most=10)
    else:
        claimed = claims.claim_overdue(db, "qwen", TERMS, most=10)
    assert [task.model for task in claimed] == ["qwen:b"]


def test_only_so_many_of_a_paced_model_are_claimed_and_the_others_come_back_one_after_another(
    stand: Stand, db: Database
) -> None:
    made = [stand.submit("hi", *models).task_ids for models in [("qwen:a", "qwen:b"), *[("qwen:a",)] * 4]]
    claimed, fates = claims.claim(db, [i for ids in made for i in ids], TERMS, [Paced("qwen", "qwen:a", 2, 3.0, 7.0)])
    assert sorted(task.model for task in claimed) == ["qwen:a", "qwen:a", "qwen:b"]
    waits = sorted(round(passed_over(stand, task_id)[3]) for task_id in fates)
    assert waits == [3, 6, 7], "one turn after another, none put off for longer than the most"


def test_the_longer_of_two_cooldowns_stands_and_a_retry_by_hand_ends_it(stand: Stand, db: Database) -> None:
    cool(db, stand, "qwen:a", 60.0)
    stand.query("UPDATE model_cooldown SET until = now() - interval '1 s' RETURNING 1")
    cool(db, stand, "qwen:a", 60.0)
    ((left,),) = stand.query("SELECT extract(epoch FROM until - now())::float FROM model_cooldown")
    assert 55 < left <= 60
    (found,) = fleet.cooldowns(db)
    assert (found.family, found.model, found.reason) == ("qwen", "qwen:a", "slow down")
    operate.retry(db, [task_id for (task_id,) in stand.query("SELECT id::text FROM task")])
    assert fleet.cooldowns(db) == []
