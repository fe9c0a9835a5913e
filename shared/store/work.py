"""What a worker says of the tasks it holds: record, hold the lease. Every statement carries the fence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.columns import RESULT
from shared.domain import Claimed, Finished, TaskStatus
from shared.kinds import Outcome
from shared.store.engine import Database, Prepared, Sql
from shared.store.halves import halved

# A row that somebody else has locked must not cost the others their leases.
_HEARTBEAT = Prepared(
    "aitask_heartbeat",
    """
WITH held AS MATERIALIZED (
    SELECT t.id FROM task t JOIN unnest(:ids, :attempts) AS h (id, attempt) ON t.id = h.id AND t.attempt = h.attempt
    WHERE t.status + 0 = 3 ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
)
UPDATE task t SET lease_until = now() + make_interval(secs => :lease_s)
FROM held WHERE t.id = held.id
RETURNING t.id::text
""",
    ids="uuid[]",
    attempts="integer[]",
    lease_s="double precision",
)

# What an attempt says of its task besides the result's own columns.
_VERDICT = {
    "status": "smallint",
    "outcome": "text",
    "run_in_s": "double precision",
    "counts_failure": "boolean",
    "counts_bad_answer": "boolean",
    "cool_s": "double precision",
}
_RESULT = {column.name: column.kind for column in RESULT}
_ALL = {"id": "uuid", "attempt": "integer", **_VERDICT, **_RESULT}

# Rows are locked in id order first: two recorders that write the same rows in different order would deadlock. One that
# somebody else has locked holds up no other: `still_held` tells it from one whose lease is lost.
_RECORD = Prepared(
    "aitask_record",
    f"""
WITH result AS MATERIALIZED (
    SELECT * FROM unnest({", ".join(f":{name}" for name in _ALL)})
        AS r ({", ".join(_ALL)})
), held AS MATERIALIZED (
    SELECT t.id FROM task t JOIN result r ON t.id = r.id AND t.attempt = r.attempt
    WHERE t.status + 0 = 3 ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
), written AS (
    UPDATE task t SET
        status = r.status,
        failures = t.failures + r.counts_failure::int,
        bad_answers = t.bad_answers + r.counts_bad_answer::int,
        run_at = now() + make_interval(secs => r.run_in_s),
        enqueued_at = NULL,
        lease_until = NULL,
        finished_at = CASE WHEN r.status = 0 THEN NULL ELSE now() END,
        {", ".join(f"{name} = r.{name}" for name in _RESULT)}
    FROM result r, held
    WHERE t.id = held.id AND t.id = r.id AND t.attempt = r.attempt AND t.status + 0 = 3
    RETURNING t.id, t.attempt, t.worker, t.started_at, t.family, t.model,
              r.outcome, r.error_kind, r.error_msg, r.http_status, r.cool_s
), cooled AS (
    -- Sorted, so that two recorders lock these rows in one order; a longer wait stands.
    INSERT INTO model_cooldown (family, model, until, reason)
    SELECT DISTINCT ON (family, model) family, model, now() + make_interval(secs => cool_s), error_msg
    FROM written WHERE cool_s > 0 ORDER BY family, model, cool_s DESC
    ON CONFLICT (family, model) DO UPDATE SET
        until = greatest(model_cooldown.until, excluded.until), reason = excluded.reason
), noted AS (
    INSERT INTO attempt (task_id, number, worker, started_at, outcome, error_kind, error_msg, http_status)
    SELECT id, attempt, worker, started_at, outcome, error_kind, error_msg, http_status FROM written
    ON CONFLICT DO NOTHING
)
SELECT id::text FROM written
""",
    **{name: f"{kind}[]" for name, kind in _ALL.items()},
)


_STILL_HELD = Sql("""
SELECT t.id::text FROM task t
JOIN unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS h (id, attempt)
    ON t.id = h.id AND t.attempt = h.attempt
WHERE t.status + 0 = 3
""")


def record(db: Database, results: Sequence[Finished]) -> set[str]:
    """Write results whose fence still holds, with a row for each attempt. Returns the ids written.

    Of the others those that are `still_held` are locked by somebody else and to be written again; the rest are stale.

    Raises:
        UnstorableData: some row's data was refused; nothing was written.
        DatabaseUnavailable: nothing was written, or the commit's outcome is unknown; repeating is safe.
    """
    columns: dict[str, list[Any]] = {name: [getattr(r, name) for r in results] for name in _ALL}
    columns["status"] = [int(r.status) for r in results]
    return {task_id for (task_id,) in db.run(_RECORD, **columns)}


def heartbeat(db: Database, held: Sequence[tuple[str, int]], *, lease_s: float) -> set[str]:
    """Extend the leases of these (id, attempt) pairs. Returns the ids extended; the others are lost or locked, or
    refuse it."""

    def extend(some: Sequence[tuple[str, int]]) -> list[tuple[Any, ...]]:
        ids, attempts = zip(*some, strict=True)
        return db.run(_HEARTBEAT, ids=list(ids), attempts=list(attempts), lease_s=lease_s)

    return {task_id for (task_id,) in halved(held, extend, lambda fence, error: None)}


def still_held(db: Database, fences: Sequence[tuple[str, int]]) -> set[str]:
    """Return the ids among these (id, attempt) pairs whose fence holds. Locks nothing and waits for nobody."""
    if not fences:
        return set()
    ids, attempts = zip(*fences, strict=True)
    return {row["id"] for row in db.rows(_STILL_HELD, ids=list(ids), attempts=list(attempts))}


def handed_back(task: Claimed, *, run_in_s: float = 0.0) -> Finished:
    """The result of an attempt that its worker gives up unfinished, at no cost to the task."""
    return Finished(
        id=task.id, attempt=task.attempt, status=TaskStatus.PENDING, outcome=Outcome.HANDED_BACK, run_in_s=run_in_s
    )
