"""What an operator does to tasks: retry, cancel, fail; and what they look at: queues, pending entries' rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.domain import TaskStatus
from shared.errors import NotFound
from shared.ids import is_id
from shared.kinds import ErrorKind
from shared.store import read
from shared.store.engine import Database, Sql

# `retry` is the one way out of a terminal state: budgets and the deadline begin anew, the fence never goes back.
_RETRY = Sql("""
WITH chosen AS MATERIALIZED (
    SELECT id FROM task WHERE id = ANY (CAST(:ids AS uuid[])) AND status IN (0, 2) ORDER BY id FOR UPDATE
)
UPDATE task t SET
    status = 0, run_at = now(), enqueued_at = NULL, finished_at = NULL,
    origin = coalesce(CAST(:origin AS text), t.origin),
    failures = CASE WHEN t.status = 2 THEN 0 ELSE t.failures END,
    rescues = CASE WHEN t.status = 2 THEN 0 ELSE t.rescues END,
    bad_answers = CASE WHEN t.status = 2 THEN 0 ELSE t.bad_answers END,
    first_claimed_at = CASE WHEN t.status = 2 THEN NULL ELSE t.first_claimed_at END,
    deadline_at = CASE WHEN t.status = 2 THEN NULL ELSE t.deadline_at END
FROM chosen WHERE t.id = chosen.id
RETURNING t.id::text, t.family, t.model
""")
# Who asks for another try now does not want to wait for the model's rest to be over.
_WARM = Sql("""
DELETE FROM model_cooldown c USING unnest(CAST(:families AS text[]), CAST(:models AS text[])) AS m (family, model)
WHERE c.family = m.family AND c.model = m.model RETURNING c.family
""")

_END = Sql("""
WITH chosen AS MATERIALIZED (
    SELECT id, status FROM task WHERE id = ANY (CAST(:ids AS uuid[])) AND status IN (0, 3) ORDER BY id FOR UPDATE
), ended AS (
    UPDATE task t SET
        status = 2, attempt = t.attempt + 1, finished_at = now(), lease_until = NULL, enqueued_at = NULL,
        error_kind = :kind, error_msg = :message
    FROM chosen WHERE t.id = chosen.id
    RETURNING t.id, t.attempt, t.worker, t.started_at, chosen.status AS was
), noted AS (
    INSERT INTO attempt (task_id, number, worker, started_at, outcome, error_kind, error_msg)
    SELECT id, attempt - 1, worker, started_at, :kind, :kind, :message FROM ended WHERE was = 3
    ON CONFLICT DO NOTHING
)
SELECT id::text FROM ended
""")

_ORIGINS = Sql("""
SELECT id::text, origin FROM task WHERE id = ANY (CAST(:ids AS uuid[])) AND origin IS NOT NULL
""")
_WAITING_ORIGINS = Sql("""
SELECT DISTINCT batch_id::text, origin FROM task WHERE status = 0 AND origin IS NOT NULL
""")
_ADOPT = Sql("""
UPDATE task SET origin = :origin, enqueued_at = NULL WHERE status IN (0, 3) AND origin IS NULL RETURNING id
""")

_OWE_HINTS = Sql("""
WITH chosen AS MATERIALIZED (
    SELECT id FROM task WHERE id = ANY (CAST(:ids AS uuid[])) AND status = 0 ORDER BY id FOR UPDATE
)
UPDATE task t SET enqueued_at = NULL FROM chosen WHERE t.id = chosen.id AND t.status = 0 RETURNING t.id::text
""")

_FAILED = Sql("SELECT id::text FROM task WHERE status = 2 AND finished_at > now() - make_interval(secs => :within_s)")
_OF_BATCH = Sql(
    "SELECT id::text, family, model, position FROM task WHERE batch_id = CAST(:id AS uuid) ORDER BY position"
)
_EXISTS = Sql("SELECT id::text FROM task WHERE id = CAST(:id AS uuid)")

_QUEUES = Sql("""
SELECT family, count(*) FILTER (WHERE status = 0 AND run_at <= now()) AS waiting,
       count(*) FILTER (WHERE status = 0 AND run_at > now()) AS delayed,
       count(*) FILTER (WHERE status = 3) AS running,
       extract(epoch FROM now() - min(run_at) FILTER (WHERE status = 0 AND run_at <= now()))::float AS oldest_s
FROM (SELECT family, status, run_at FROM task WHERE status = 0
      UNION ALL SELECT family, status, run_at FROM task WHERE status = 3) t
GROUP BY family
""")

_ROWS = Sql("""
SELECT t.id::text, t.batch_id::text, t.model, t.status, t.attempt, t.worker,
       extract(epoch FROM t.lease_until - now())::float AS lease_left_s
FROM task t WHERE t.id = ANY (CAST(:ids AS uuid[]))
""")
_PROMPTS = Sql("""
SELECT t.id::text, left(b.prompt, 2000) AS prompt FROM task t JOIN batch b ON b.id = t.batch_id
WHERE t.id = ANY (CAST(:ids AS uuid[]))
""")


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """One family's tasks that have not ended."""

    family: str
    waiting: int
    delayed: int
    running: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """What the database says of a task named by a pending entry."""

    id: str
    batch_id: str
    model: str
    status: TaskStatus
    attempt: int
    worker: str | None
    lease_left_s: float | None


def retry(db: Database, ids: Collection[str], *, origin: str | None = None) -> list[tuple[str, str]]:
    """Try FAILED tasks anew and waiting ones at once. Returns (family, id) of those that now wait for a hint.

    Args:
        origin: under whose settings they are to be called from now on; None: as before.
    """
    rows = db.rows(_RETRY, ids=list(ids), origin=origin)
    if rows:
        db.rows(_WARM, families=[row["family"] for row in rows], models=[row["model"] for row in rows])
    return [(row["family"], row["id"]) for row in rows]


def origins(db: Database, ids: Collection[str]) -> dict[str, str]:
    """Return under which settings these tasks were asked, by id; one that any worker may call is left out."""
    return {row["id"]: row["origin"] for row in db.rows(_ORIGINS, ids=list(ids))}


def waiting_origins(db: Database) -> list[tuple[str, str]]:
    """Return (batch id, origin) of what has not ended and only workers of one origin may call."""
    return [(row["batch_id"], row["origin"]) for row in db.rows(_WAITING_ORIGINS)]


def adopt(db: Database, origin: str) -> None:
    """Give what was asked before tasks had an origin to this one."""
    db.rows(_ADOPT, origin=origin)


def cancel(db: Database, ids: Collection[str]) -> list[str]:
    """End tasks that have not ended; a running call is stopped by its worker's next heartbeat. Returns their ids."""
    return _end(db, ids, kind=ErrorKind.CANCELLED, message="cancelled")


def fail(db: Database, ids: Collection[str], *, reason: str) -> list[str]:
    """End tasks that have not ended as FAILED for an operator's reason. Returns their ids."""
    return _end(db, ids, kind=ErrorKind.OPERATOR, message=reason)


def _end(db: Database, ids: Collection[str], *, kind: str, message: str) -> list[str]:
    return [row["id"] for row in db.rows(_END, ids=list(ids), kind=kind, message=message)]


def owe_hints(db: Database, ids: Collection[str]) -> list[str]:
    """Mark PENDING tasks as without a hint: the reconciler sends one within a second. Returns their ids."""
    return [row["id"] for row in db.rows(_OWE_HINTS, ids=list(ids))]


def failed_within(db: Database, within_s: float) -> list[str]:
    """Return the ids of tasks that FAILED within the last so many seconds."""
    return [row["id"] for row in db.rows(_FAILED, within_s=within_s)]


def find_tasks(db: Database, name: str) -> list[str]:
    """Return the ids of the tasks a name means: a task's id, `BATCH.N` (from 1), `BATCH/MODEL`, or a whole batch.

    Raises:
        NotFound: there is none; UsageFault: the batch's prefix fits several.
    """
    if is_id(name):
        found = [row["id"] for row in db.rows(_EXISTS, id=name)]
        if found:
            return found
    head, sign, rest = name.partition("/") if "/" in name else name.partition(".")
    tasks = db.rows(_OF_BATCH, id=read.find_batch(db, head))
    if not sign:
        return [row["id"] for row in tasks]
    chosen = [
        row["id"]
        for row in tasks
        if rest in (row["model"], f"{row['family']}/{row['model']}", str(row["position"] + 1))
    ]
    if not chosen:
        raise NotFound(f"batch {head} has no task {rest}", remedy=f"see: aitask show {head}")
    return chosen


def queues(db: Database) -> list[QueueCounts]:
    """Return the families that have tasks which have not ended."""
    return [QueueCounts(**row) for row in db.rows(_QUEUES)]


def rows(db: Database, ids: Sequence[str]) -> dict[str, TaskRow]:
    """Return what the database says of these tasks, by id; one it does not know is left out."""
    found = db.rows(_ROWS, ids=list(ids))
    return {row["id"]: TaskRow(**{**row, "status": TaskStatus(row["status"])}) for row in found}


def prompts(db: Database, ids: Sequence[str]) -> dict[str, str]:
    """Return the beginnings of the prompts of these tasks, by id."""
    return {row["id"]: row["prompt"] for row in db.rows(_PROMPTS, ids=list(ids))}
