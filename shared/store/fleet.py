"""Workers and families as the database knows them: who lives, what is paused, what is left to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.domain import Cooldown, Pause, WorkerView
from shared.store.engine import Database, Sql, utc

# A worker is taken for dead when it has missed three heartbeats, each a third of its lease.
_ALIVE = "heartbeat_at > now() - make_interval(secs => lease_s)"

_REPORT = Sql("""
INSERT INTO worker (id, host, pid, families, slots, in_flight, lease_s, version, origin, state)
VALUES (:id, :host, :pid, :families, :slots, :in_flight, :lease_s, :version, :origin, CAST(:state AS jsonb))
ON CONFLICT (id) DO UPDATE SET heartbeat_at = now(), in_flight = excluded.in_flight, state = excluded.state,
    families = excluded.families
""")
_LEAVE = Sql("DELETE FROM worker WHERE id = :id")
# Rows of workers that died are kept for a day, so that `ps` can show them.
_FORGET = Sql("""
DELETE FROM worker WHERE id IN (
    SELECT id FROM worker WHERE heartbeat_at < now() - interval '1 day' ORDER BY id FOR UPDATE SKIP LOCKED)
""")
_WORKERS = Sql(f"""
SELECT id, host, pid, families, slots, in_flight, started_at, version, origin, state,
       extract(epoch FROM now() - heartbeat_at)::float AS heartbeat_age_s
FROM worker WHERE :dead_too OR {_ALIVE} ORDER BY started_at, id
""")
_SERVED = Sql(f"SELECT DISTINCT unnest(families) AS family FROM worker WHERE {_ALIVE}")

_PAUSES = Sql("""
SELECT family, reason, kind, extract(epoch FROM until - now())::float AS left_s
FROM family_pause WHERE until IS NULL OR until > now() ORDER BY family, kind
""")
_COOLDOWNS = Sql("""
SELECT family, model, reason, extract(epoch FROM until - now())::float AS left_s
FROM model_cooldown WHERE until > now() ORDER BY family, model
""")
# Kept for a while after they ended: a row that is only just over is about to be written again.
_FORGET_COOLDOWNS = Sql("DELETE FROM model_cooldown WHERE until < now() - interval '1 hour'")

_PAUSE = Sql("""
INSERT INTO family_pause (family, kind, reason, until)
VALUES (:family, :kind, :reason, now() + make_interval(secs => CAST(:for_s AS float)))
ON CONFLICT (family, kind) DO UPDATE SET reason = excluded.reason, until = excluded.until
""")
# Pauses of one family that overlap are one: the first that ends leaves its beginning to those that go on, and the last
# moves the deadlines by the whole. Pauses are locked before tasks, each in their order.
_LIFT = """
WITH mine AS MATERIALIZED (
    SELECT family, kind, paused_at, until, {ends} AS ends FROM family_pause p
    WHERE {of} ORDER BY family, kind FOR UPDATE
), gone AS (
    DELETE FROM family_pause p USING mine m WHERE m.ends AND p.family = m.family AND p.kind = m.kind
), span AS MATERIALIZED (
    SELECT family, bool_or(NOT ends) AS goes_on, min(paused_at) AS began,
           least(now(), coalesce(max(coalesce(until, 'infinity')), now())) AS ended
    FROM mine GROUP BY family HAVING bool_or(ends)
), inherited AS (
    UPDATE family_pause p SET paused_at = s.began
    FROM span s, mine m
    WHERE s.goes_on AND NOT m.ends AND m.family = s.family AND p.family = m.family AND p.kind = m.kind
), held AS MATERIALIZED (
    SELECT t.id, s.ended - s.began AS lost FROM task t JOIN span s ON s.family = t.family
    WHERE NOT s.goes_on AND t.status IN (0, 3) AND t.deadline_at IS NOT NULL ORDER BY t.id FOR UPDATE OF t
), moved AS (
    UPDATE task t SET deadline_at = t.deadline_at + greatest(held.lost, interval '0')
    FROM held WHERE t.id = held.id AND t.status IN (0, 3)
)
SELECT count(*) FROM mine WHERE ends
"""
_RESUME = Sql(_LIFT.format(ends="(CAST(:kind AS text) IS NULL OR p.kind = :kind)", of="p.family = :family"))
_END_PAUSES = Sql(
    _LIFT.format(
        ends="coalesce(p.until <= now(), false)",
        of="p.family IN (SELECT family FROM family_pause WHERE until <= now())",
    )
)

_OVER = Sql("SELECT 1 FROM family_pause WHERE until <= now() LIMIT 1")

_LEFT = """
SELECT EXISTS (
    SELECT 1 FROM task t WHERE t.status = {status} AND t.family = ANY (:families)
    AND (CAST(:origin AS text) IS NULL OR t.origin IS NULL OR t.origin = :origin) AND NOT EXISTS (
        SELECT 1 FROM family_pause p WHERE p.family = t.family AND (p.until IS NULL OR p.until > now())))
"""
_UNFINISHED = Sql(f"SELECT ({_LEFT.format(status=0)}) OR ({_LEFT.format(status=3)}) AS found")


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker says of itself with each heartbeat."""

    id: str
    host: str
    pid: int
    families: tuple[str, ...]
    slots: int
    in_flight: int
    lease_s: float
    version: str
    state: dict[str, Any]
    origin: str | None = None


def report(db: Database, worker: WorkerReport) -> None:
    """Write a worker's row: it lives."""
    values = {name: getattr(worker, name) for name in WorkerReport.__slots__}
    values |= {"families": list(worker.families), "state": json.dumps(worker.state)}
    with db.transaction() as connection:
        connection.execute(_REPORT, values)


def leave(db: Database, worker_id: str) -> None:
    """Take a worker's row away, and those of workers long dead."""
    with db.transaction() as connection:
        connection.execute(_LEAVE, {"id": worker_id})
        connection.execute(_FORGET)
        connection.execute(_FORGET_COOLDOWNS)


def workers(db: Database, *, dead_too: bool = False) -> list[WorkerView]:
    """Return the workers that live, oldest first; with `dead_too` also those of the last day that don't."""
    return [
        WorkerView(**{**row, "families": tuple(row["families"]), "started_at": utc(row["started_at"])})
        for row in db.rows(_WORKERS, dead_too=dead_too)
    ]


def served_families(db: Database) -> set[str]:
    """Return the families that a live worker serves."""
    return {row["family"] for row in db.rows(_SERVED)}


def pauses(db: Database) -> list[Pause]:
    """Return the pauses in force."""
    return [Pause(**row) for row in db.rows(_PAUSES)]


def cooldowns(db: Database) -> list[Cooldown]:
    """Return the models that are left alone now."""
    return [Cooldown(**row) for row in db.rows(_COOLDOWNS)]


def pause(db: Database, family: str, *, kind: str, reason: str, for_s: float | None) -> None:
    """Hold a family: nothing new is claimed from it, by any worker, until `for_s` seconds are over or it is resumed."""
    with db.transaction() as connection:
        connection.execute(_PAUSE, {"family": family, "kind": kind, "reason": reason, "for_s": for_s})


def resume(db: Database, family: str, *, kind: str | None = None) -> bool:
    """Lift a family's pauses (of one kind, or all). The deadlines of what waited move by the pause."""
    with db.transaction() as connection:
        return bool(connection.scalar(_RESUME, {"family": family, "kind": kind}))


def end_pauses(db: Database) -> bool:
    """Lift the pauses whose time is over, of whichever family. Returns whether there were any.

    Raises:
        DatabaseUnavailable: a row of the family is locked; it waits for that only briefly, and nothing has moved.
    """
    if not db.rows(_OVER):
        return False
    with db.transaction() as connection:
        connection.execute(Sql("SET LOCAL lock_timeout = '1s'"))
        return bool(connection.scalar(_END_PAUSES))


def work_left(db: Database, families: Sequence[str], origin: str | None = None) -> bool:
    """Tell whether an unpaused one among these families has an unfinished task, of this origin or of any."""
    return bool(db.rows(_UNFINISHED, families=list(families), origin=origin)[0]["found"])
