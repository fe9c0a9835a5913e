"""What the reconciler says to the database: end leases, enforce deadlines, find rows whose hint is gone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shared.errors import AitaskError
from shared.store.engine import Database, Sql, Transaction, UnstorableData
from shared.store.halves import halved

# Any fixed number; one database holds one aitask.
_RECONCILER_LOCK = 0x6169_7265_636F
SEND_AT_ONCE = 1000
_END_AT_ONCE = 500

# Between two statements of a turn lie milliseconds. Without a limit a connection whose other end is gone keeps the turn
# until TCP notices, which may take two hours.
IDLE_S = 2.0
_TURN = Sql("""
SELECT pg_try_advisory_xact_lock(:key) AS mine, set_config('idle_in_transaction_session_timeout', :idle, true)
""")

_CLOCK = Sql("""
SELECT clock_timestamp() AS now, now() - pg_postmaster_start_time() AS up, pg_postmaster_start_time() AS started,
       (SELECT min(lease_until) FROM task WHERE status = 3) - clock_timestamp() AS next_lease
""")

# A promotion begins a new timeline, and the first checkpoint on it comes after the promotion. Source: PostgreSQL's
# documentation, "Timelines" and "pg_control_checkpoint".
_PRIMARY = Sql("""
SELECT CASE WHEN pg_is_in_recovery() THEN 0
            WHEN c.timeline_id <> ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int THEN 0
            ELSE extract(epoch FROM now() - c.checkpoint_time) END::float AS for_s
FROM pg_control_checkpoint() c
""")

_GONE = Sql("""
SELECT id::text FROM task WHERE status = 3 AND lease_until < now() AND id <> ALL (CAST(:refused AS uuid[]))
ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
""")

# `status + 0`: each row is found by its key, not through the partial index of all that run.
_EXPIRE = Sql("""
WITH ended AS (
    UPDATE task t SET
        rescues = t.rescues + 1,
        status = CASE WHEN t.rescues + 1 >= :max_rescues THEN 2 ELSE 0 END,
        finished_at = CASE WHEN t.rescues + 1 >= :max_rescues THEN now() END,
        error_kind = CASE WHEN t.rescues + 1 >= :max_rescues THEN 'poison' ELSE 'lease_expired' END,
        error_msg = CASE WHEN t.rescues + 1 >= :max_rescues
            THEN format('%s workers stopped while they held this task', t.rescues + 1)
            ELSE format('worker %s stopped answering', t.worker) END,
        http_status = NULL, run_at = now(), enqueued_at = NULL, lease_until = NULL
    WHERE t.id = ANY (CAST(:ids AS uuid[])) AND t.status + 0 = 3 AND t.lease_until < now()
    RETURNING t.id, t.attempt, t.worker, t.started_at, t.error_kind, t.error_msg
), noted AS (
    INSERT INTO attempt (task_id, number, worker, started_at, outcome, error_kind, error_msg)
    SELECT id, attempt, worker, started_at, 'lease_expired', error_kind, error_msg FROM ended
    ON CONFLICT DO NOTHING
)
SELECT id::text, error_kind FROM ended
""")

# A pause that is over and not lifted yet still holds: the deadlines it moves have not moved.
_LATE = Sql("""
SELECT id::text FROM task t
WHERE status IN (0, 3) AND deadline_at IS NOT NULL AND deadline_at < now()
  AND NOT EXISTS (SELECT 1 FROM family_pause p WHERE p.family = t.family)
  AND id <> ALL (CAST(:refused AS uuid[]))
ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
""")

_DEADLINE = Sql("""
WITH late AS MATERIALIZED (
    SELECT id, status FROM task WHERE id = ANY (CAST(:ids AS uuid[])) AND status + 0 IN (0, 3) AND deadline_at < now()
), ended AS (
    UPDATE task t SET
        status = 2, attempt = t.attempt + 1, finished_at = now(), enqueued_at = NULL, lease_until = NULL,
        error_msg = concat_ws('; last error: ', 'not answered before its deadline', t.error_msg),
        error_kind = 'deadline'
    FROM late WHERE t.id = late.id
    RETURNING t.id, t.attempt, t.worker, t.started_at, t.error_kind, t.error_msg, late.status AS was
), noted AS (
    INSERT INTO attempt (task_id, number, worker, started_at, outcome, error_kind, error_msg)
    SELECT id, attempt - 1, worker, started_at, 'deadline', error_kind, error_msg FROM ended WHERE was = 3
    ON CONFLICT DO NOTHING
)
SELECT id::text FROM ended
""")

# A loose index scan: one step per family, however many rows wait.
_FAMILIES = Sql("""
WITH RECURSIVE f AS (
    (SELECT family FROM task WHERE status = 0 ORDER BY family LIMIT 1)
    UNION ALL
    SELECT (SELECT family FROM task WHERE status = 0 AND family > f.family ORDER BY family LIMIT 1)
    FROM f WHERE f.family IS NOT NULL
)
SELECT family FROM f WHERE family IS NOT NULL
""")

# The same for the origins of a family, which only the local default has.
_ORIGINS = Sql("""
WITH RECURSIVE o AS (
    SELECT min(origin) AS origin FROM task WHERE status = 0 AND family = :family AND origin IS NOT NULL
    UNION ALL
    SELECT (SELECT min(origin) FROM task
            WHERE status = 0 AND family = :family AND origin IS NOT NULL AND origin > o.origin)
    FROM o WHERE o.origin IS NOT NULL
)
SELECT origin FROM o WHERE origin IS NOT NULL
""")

# Each half by a range of the index, so that a backlog whose hints are there is not looked at, however long it is. By
# `origin = :origin` the planner would take the index of origins, and look at every task of this one.
_OWED_PART = """
SELECT id FROM task
WHERE status = 0 AND family = :family AND {} AND run_at <= now() AND rescues < :suspect
  AND (CAST(:origin AS text) IS NULL OR origin IS NOT DISTINCT FROM :origin)
  AND id <> ALL (CAST(:refused AS uuid[]))
LIMIT :most
"""
_OWED = Sql(f"""
WITH owed AS MATERIALIZED (
    ({_OWED_PART.format("enqueued_at IS NULL")}) UNION ALL ({_OWED_PART.format("enqueued_at < :watermark")})
)
SELECT t.id::text FROM task t JOIN owed ON owed.id = t.id
WHERE t.status + 0 = 0 AND t.run_at <= now() AND (t.enqueued_at IS NULL OR t.enqueued_at < :watermark)
ORDER BY t.id LIMIT :most FOR UPDATE OF t SKIP LOCKED
""")
_STAMP = Sql("UPDATE task SET enqueued_at = now() WHERE id = ANY (CAST(:ids AS uuid[])) RETURNING id::text")


@dataclass(frozen=True, slots=True)
class Clock:
    """The database's clock, how long PostgreSQL has been up, and when the next lease ends, both in seconds.

    `server_started` tells one server from another: after a fail-over it is another's, whose own uptime says nothing.
    """

    now: dt.datetime
    up_s: float
    server_started: dt.datetime
    next_lease_s: float | None


class Tick:
    """One reconciler's turn: a transaction under the lock that keeps all others out.

    Attributes:
        refusals: the rows that refused what was to be done with them, and what PostgreSQL said.
    """

    def __init__(self, connection: Transaction, *, max_rescues: int, refused: set[str] | None = None) -> None:
        self._connection = connection
        self._max_rescues = max_rescues
        self._refused = refused if refused is not None else set()
        self.refusals: list[tuple[str, UnstorableData]] = []

    def clock(self) -> Clock:
        row = self._connection.execute(_CLOCK).one()
        next_lease_s = row.next_lease.total_seconds() if row.next_lease is not None else None
        return Clock(row.now, row.up.total_seconds(), row.started, next_lease_s)

    def expire_leases(self) -> list[tuple[str, str]]:
        """End the leases that ran out. Returns (task id, error kind)."""
        found = self._found(_GONE, most=_END_AT_ONCE)
        return [(row.id, row.error_kind) for row in self._done(_EXPIRE, found, max_rescues=self._max_rescues)]

    def enforce_deadlines(self) -> list[str]:
        """End tasks that are past their deadline, running ones too: the fence moves on. Returns their ids."""
        return [row.id for row in self._done(_DEADLINE, self._found(_LATE, most=_END_AT_ONCE))]

    def waiting_families(self) -> list[str]:
        """Every family that has a PENDING task, served here or not."""
        return list(self._connection.execute(_FAMILIES).scalars())

    def origins(self, family: str) -> list[str]:
        """Every origin that has a PENDING task of the family."""
        return list(self._connection.execute(_ORIGINS, {"family": family}).scalars())

    def take_unhinted(self, family: str, watermark: dt.datetime, origin: str | None = None) -> list[str]:
        """Stamp due PENDING rows whose hint is gone as sent now. Returns their ids; the caller sends the hints."""
        suspect = max(1, self._max_rescues - 1)
        found = self._found(
            _OWED, family=family, watermark=watermark, origin=origin, suspect=suspect, most=SEND_AT_ONCE
        )
        return [row.id for row in self._done(_STAMP, found)]

    def _found(self, statement: Sql, **values: Any) -> list[str]:
        """Lock rows, in id order, that something is to be done with; those that refused it before are left alone."""
        return list(self._connection.execute(statement, {**values, "refused": list(self._refused)}).scalars())

    def _done(self, statement: Sql, ids: Sequence[str], **values: Any) -> list[Any]:
        """Do it with these rows. One that refuses, by a trigger or for damage, holds up no other."""

        def some(ids: Sequence[str]) -> list[Any]:
            with self._connection.part():
                return list(self._connection.execute(statement, {**values, "ids": list(ids)}))

        return halved(ids, some, self._note_refusal)

    def _note_refusal(self, task_id: str, error: UnstorableData) -> None:
        self._refused.add(task_id)
        self.refusals.append((task_id, error))


@contextmanager
def tick(db: Database, *, max_rescues: int, refused: set[str] | None = None) -> Iterator[Tick | None]:
    """Take the reconciler's turn, or yield None when another process has it.

    Args:
        refused: the rows that refused what a turn does: they are left out, and those of this turn are added.

    Nothing but the database may be asked within the block: who stalls in it stops the recovery of all. Of one whose
    machine is lost PostgreSQL ends the turn itself.
    """
    with db.transaction() as connection:
        mine = connection.execute(_TURN, {"key": _RECONCILER_LOCK, "idle": f"{int(IDLE_S * 1000)}ms"}).one().mine
        yield Tick(connection, max_rescues=max_rescues, refused=refused) if mine else None


def primary_for_s(db: Database) -> float:
    """For how long the server has been the primary at least, in seconds; 0 when it does not tell.

    Only together with its uptime: a standby's last checkpoint was its primary's, until it is promoted.
    """
    try:
        return max(0.0, float(db.rows(_PRIMARY)[0]["for_s"]))
    except AitaskError:
        # Some hosts keep the function from users.
        return 0.0


_HOLDERS = """
SELECT a.pid, a.application_name AS name, coalesce(host(a.client_addr), '') AS host, coalesce(a.state, '') AS state,
       coalesce(extract(epoch FROM now() - a.xact_start), 0)::float AS for_s
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
"""
# A bigint's advisory lock is kept as two halves, with objsubid 1 (PostgreSQL's documentation, "pg_locks").
_TURN_HOLDER = Sql(f"""{_HOLDERS}
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.classid::bigint = :high AND l.objid::bigint = :low
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")
# A row's locker is in the row: looking so takes no lock. Of several at once (a multixact) none is found.
_ROW_HOLDER = Sql(f"""{_HOLDERS}
WHERE l.locktype = 'transactionid' AND l.granted
  AND l.transactionid = (SELECT t.xmax FROM task t WHERE t.id = CAST(:id AS uuid))
""")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock: a server process of PostgreSQL, what it calls itself, and for how long, in seconds."""

    pid: int
    name: str
    host: str
    state: str
    for_s: float


def turn_holder(db: Database) -> Holder | None:
    """Say who has the reconciler's turn, without taking it."""
    values = {"high": _RECONCILER_LOCK >> 32, "low": _RECONCILER_LOCK & 0xFFFF_FFFF}
    found = db.rows(_TURN_HOLDER, **values)
    return Holder(**found[0]) if found else None


def row_holder(db: Database, task_id: str) -> Holder | None:
    """Say who holds a task's row, without waiting for it or locking it."""
    found = db.rows(_ROW_HOLDER, id=task_id)
    return Holder(**found[0]) if found else None
