"""What a worker says to the database: claim, record, hold the lease. Every statement carries the fence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from shared.columns import RESULT
from shared.domain import Claimed, Finished, HintFate, TaskStatus
from shared.store.engine import Database, Prepared

# A task that two workers died on is claimed alone, so that the third death names the culprit.
SUSPECT_BELOW_MAX = 1
OVERDUE_S = 2.5

_TAKE = """
UPDATE task t SET
    status = 3, attempt = t.attempt + 1, worker = :worker, started_at = now(),
    lease_until = now() + make_interval(secs => :lease_s),
    first_claimed_at = coalesce(t.first_claimed_at, now()),
    deadline_at = coalesce(t.deadline_at, now() + make_interval(secs => :deadline_s))
FROM wanted, batch b
WHERE t.id = wanted.id AND b.id = t.batch_id
RETURNING t.id::text, t.batch_id::text, b.conversation_id::text, t.model, t.family, t.attempt, t.failures, t.rescues,
          t.bad_answers, b.prompt, b.system, b.options, t.context
"""

_TERMS = {"worker": "text", "lease_s": "double precision", "deadline_s": "double precision", "suspect": "integer"}

# `status + 0`: whatever the planner believes of the table, each row is found by its key. Through the partial index of
# `status = 0` or 3 every waiting or running row would be looked at.
_CLAIM = Prepared(
    "aitask_claim",
    f"""
WITH wanted AS MATERIALIZED (
    SELECT t.id FROM unnest(:ids) AS hinted (id) JOIN task t ON t.id = hinted.id
    WHERE t.status + 0 = 0 AND t.run_at <= now() AND t.rescues < :suspect
    ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
)
{_TAKE}
""",
    ids="uuid[]",
    **_TERMS,
)

_CLAIM_DUE = Prepared(
    "aitask_claim_due",
    f"""
WITH wanted AS MATERIALIZED (
    SELECT id FROM task
    WHERE status = 0 AND family = :family AND run_at <= now() AND rescues < :suspect
    ORDER BY enqueued_at, id LIMIT :most FOR UPDATE SKIP LOCKED
)
{_TAKE}
""",
    family="text",
    most="integer",
    **_TERMS,
)

# What the reconciler ought to have sent a hint for by now: Redis takes none, though it may still be read.
_CLAIM_OVERDUE = Prepared(
    "aitask_claim_overdue",
    f"""
WITH wanted AS MATERIALIZED (
    SELECT id FROM task
    WHERE status = 0 AND family = :family AND enqueued_at IS NULL AND rescues < :suspect
      AND run_at < now() - make_interval(secs => :overdue_s)
    LIMIT :most FOR UPDATE SKIP LOCKED
)
{_TAKE}
""",
    family="text",
    most="integer",
    overdue_s="double precision",
    **_TERMS,
)

_CLAIM_SUSPECT = Prepared(
    "aitask_claim_suspect",
    f"""
WITH wanted AS MATERIALIZED (
    SELECT id FROM task
    WHERE status = 0 AND rescues > 0 AND family = ANY (:families) AND run_at <= now() AND rescues >= :suspect
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)
{_TAKE}
""",
    families="text[]",
    **_TERMS,
)

_FATES = sa.text("""
SELECT id::text, status = 0 AND run_at <= now() AND rescues < :suspect AS claimable
FROM task WHERE id = ANY (CAST(:ids AS uuid[]))
""")

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
    RETURNING t.id, t.attempt, t.worker, t.started_at, r.outcome, r.error_kind, r.error_msg, r.http_status
), noted AS (
    INSERT INTO attempt (task_id, number, worker, started_at, outcome, error_kind, error_msg, http_status)
    SELECT id, attempt, worker, started_at, outcome, error_kind, error_msg, http_status FROM written
    ON CONFLICT DO NOTHING
)
SELECT id::text FROM written
""",
    **{name: f"{kind}[]" for name, kind in _ALL.items()},
)


_STILL_HELD = sa.text("""
SELECT t.id::text FROM task t
JOIN unnest(CAST(:ids AS uuid[]), CAST(:attempts AS integer[])) AS h (id, attempt)
    ON t.id = h.id AND t.attempt = h.attempt
WHERE t.status + 0 = 3
""")


def claim(
    db: Database, ids: Sequence[str], *, worker: str, lease_s: float, deadline_s: float, max_rescues: int
) -> tuple[list[Claimed], dict[str, HintFate]]:
    """Claim the due tasks among these ids, and say what became of the others' hints."""
    values = _terms(worker, lease_s, deadline_s, max_rescues)
    claimed = [_claimed(row) for row in db.run(_CLAIM, ids=list(ids), **values)]
    rest = set(ids) - {task.id for task in claimed}
    return claimed, fates(db, rest, suspect=values["suspect"]) if rest else {}


def fates(db: Database, ids: Collection[str], *, suspect: int) -> dict[str, HintFate]:
    """Say what has become of hints whose tasks could not be claimed.

    Args:
        suspect: the `rescues` from which a task is no longer claimed by its hint.
    """
    found = dict.fromkeys(ids, HintFate.UNKNOWN)
    for row in db.rows(_FATES, ids=list(ids), suspect=suspect):
        found[row["id"]] = HintFate.LOCKED if row["claimable"] else HintFate.DONE
    return found


def claim_due(
    db: Database, family: str, *, most: int, worker: str, lease_s: float, deadline_s: float, max_rescues: int
) -> list[Claimed]:
    """Claim due tasks of a family without any hint, oldest first: the way on while Redis is away."""
    values = _terms(worker, lease_s, deadline_s, max_rescues)
    return [_claimed(row) for row in db.run(_CLAIM_DUE, family=family, most=most, **values)]


def claim_overdue(
    db: Database, family: str, *, most: int, worker: str, lease_s: float, deadline_s: float, max_rescues: int
) -> list[Claimed]:
    """Claim due tasks that have been without a hint for longer than the reconciler takes to send one."""
    values = _terms(worker, lease_s, deadline_s, max_rescues) | {"overdue_s": OVERDUE_S}
    return [_claimed(row) for row in db.run(_CLAIM_OVERDUE, family=family, most=most, **values)]


def claim_suspect(
    db: Database, families: Sequence[str], *, worker: str, lease_s: float, deadline_s: float, max_rescues: int
) -> Claimed | None:
    """Claim one task that workers have died on. Suspects have no hints: a worker asks when it holds none."""
    values = _terms(worker, lease_s, deadline_s, max_rescues)
    rows = db.run(_CLAIM_SUSPECT, families=list(families), **values)
    return _claimed(rows[0]) if rows else None


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
    """Extend the leases of these (id, attempt) pairs. Returns the ids extended; the others are lost or locked."""
    if not held:
        return set()
    ids, attempts = zip(*held, strict=True)
    return {task_id for (task_id,) in db.run(_HEARTBEAT, ids=list(ids), attempts=list(attempts), lease_s=lease_s)}


def still_held(db: Database, fences: Sequence[tuple[str, int]]) -> set[str]:
    """Return the ids among these (id, attempt) pairs whose fence holds. Locks nothing and waits for nobody."""
    if not fences:
        return set()
    ids, attempts = zip(*fences, strict=True)
    return {row["id"] for row in db.rows(_STILL_HELD, ids=list(ids), attempts=list(attempts))}


def handed_back(task: Claimed, *, run_in_s: float = 0.0) -> Finished:
    """The result of an attempt that its worker gives up unfinished, at no cost to the task."""
    return Finished(
        id=task.id, attempt=task.attempt, status=TaskStatus.PENDING, outcome="handed_back", run_in_s=run_in_s
    )


def _terms(worker: str, lease_s: float, deadline_s: float, max_rescues: int) -> dict[str, Any]:
    suspect = max(1, max_rescues - SUSPECT_BELOW_MAX)
    return {"worker": worker, "lease_s": lease_s, "deadline_s": deadline_s, "suspect": suspect}


def _claimed(row: tuple[Any, ...]) -> Claimed:
    *fields, context = row
    return Claimed(*fields, tuple(context or ()))  # type: ignore[call-arg]
