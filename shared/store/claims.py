"""How a worker gets tasks: by their hints, due ones without a hint, and suspects. Claiming raises the fence.

A task of a model that is left alone (`model_cooldown`), or that this worker may not ask more of now (`Paced`), is
passed over: no attempt, no deadline started, its time moved in the same statement. Its hint is then needless.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from shared.domain import Claimed, HintFate
from shared.store.engine import Database, Prepared, Sql, UnstorableData
from shared.store.halves import halved

# A task that two workers died on is claimed alone, so that the third death names the culprit.
SUSPECT_BELOW_MAX = 1
OVERDUE_S = 2.5


@dataclass(frozen=True, slots=True)
class Paced:
    """A model that a worker may ask only so much of.

    Attributes:
        room: how many of its tasks may be claimed now.
        every_s: about how long one takes its turn, in seconds: those beyond the room come back one after another.
        most_s: the longest that one is put off, in seconds.
    """

    family: str
    model: str
    room: int
    every_s: float
    most_s: float


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a worker claims. Durations in seconds. `origin`: whose tasks alone it may call, or None for all."""

    worker: str
    lease_s: float
    deadline_s: float
    max_rescues: int
    origin: str | None = None

    def values(self, paced: Sequence[Paced]) -> dict[str, Any]:
        return {
            "worker": self.worker,
            "lease_s": self.lease_s,
            "deadline_s": self.deadline_s,
            "suspect": self.suspect,
            "origin": self.origin,
            "paced_families": [p.family for p in paced],
            "paced_models": [p.model for p in paced],
            "rooms": [p.room for p in paced],
            "every_s": [p.every_s for p in paced],
            "most_s": [p.most_s for p in paced],
        }

    @property
    def suspect(self) -> int:
        """The `rescues` from which a task is no longer claimed with others."""
        return max(1, self.max_rescues - SUSPECT_BELOW_MAX)


_TERMS = {
    "worker": "text",
    "lease_s": "double precision",
    "deadline_s": "double precision",
    "suspect": "integer",
    "origin": "text",
    "paced_families": "text[]",
    "paced_models": "text[]",
    "rooms": "integer[]",
    "every_s": "double precision[]",
    "most_s": "double precision[]",
}

# What a claim tells of a task: the fields of `Claimed`, and where they come from.
_CLAIMED = {
    "id": "t.id::text",
    "batch_id": "t.batch_id::text",
    "conversation_id": "b.conversation_id::text",
    "model": "t.model",
    "family": "t.family",
    "attempt": "t.attempt",
    "failures": "t.failures",
    "rescues": "t.rescues",
    "bad_answers": "t.bad_answers",
    "prompt": "b.prompt",
    "system": "b.system",
    "options": "b.options",
    "context": "t.context",
    "lane": "b.lane",
    "claimed_for_s": "extract(epoch FROM now() - t.first_claimed_at)::float",
}

# Behind a first part that names the `found` rows, locked: which of them are passed over, and the claim of the others.
_TAKE = f"""
judged AS (
    SELECT f.id, c.until, p.room, p.every_s, p.most_s,
           row_number() OVER (PARTITION BY f.family, f.model ORDER BY f.id) AS place
    FROM found f
    LEFT JOIN model_cooldown c ON c.family = f.family AND c.model = f.model AND c.until > now()
    LEFT JOIN unnest(:paced_families, :paced_models, :rooms, :every_s, :most_s)
        AS p (family, model, room, every_s, most_s) ON p.family = f.family AND p.model = f.model
), passed AS (
    UPDATE task t SET
        enqueued_at = NULL,
        run_at = coalesce(j.until, now() + make_interval(secs => least(j.most_s, (j.place - j.room) * j.every_s)))
    FROM judged j WHERE t.id = j.id AND (j.until IS NOT NULL OR j.place > j.room)
), wanted AS (
    SELECT id FROM judged WHERE until IS NULL AND (room IS NULL OR place <= room)
)
UPDATE task t SET
    status = 3, attempt = t.attempt + 1, worker = :worker, started_at = now(),
    lease_until = now() + make_interval(secs => :lease_s),
    first_claimed_at = coalesce(t.first_claimed_at, now()),
    deadline_at = coalesce(t.deadline_at, now() + make_interval(secs => :deadline_s))
FROM wanted, batch b
WHERE t.id = wanted.id AND b.id = t.batch_id
RETURNING {", ".join(_CLAIMED.values())}
"""

# Whose tasks a worker may call: those of its own origin; without one, on configured servers, all.
_OURS = "(CAST(:origin AS text) IS NULL OR t.origin IS NULL OR t.origin = :origin)"

# `status + 0`: whatever the planner believes of the table, each row is found by its key. Through the partial index of
# `status = 0` or 3 every waiting or running row would be looked at.
_CLAIM = Prepared(
    "aitask_claim",
    f"""
WITH found AS MATERIALIZED (
    SELECT t.id, t.family, t.model FROM unnest(:ids) AS hinted (id) JOIN task t ON t.id = hinted.id
    WHERE t.status + 0 = 0 AND t.run_at <= now() AND t.rescues < :suspect AND {_OURS}
    ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
), {_TAKE}
""",
    ids="uuid[]",
    **_TERMS,
)

# Of a model that can't be asked now there may be a hundred thousand: these are not even looked at.
_ASKABLE = """
NOT EXISTS (SELECT 1 FROM model_cooldown c WHERE c.family = t.family AND c.model = t.model AND c.until > now())
AND NOT EXISTS (
    SELECT 1 FROM unnest(:paced_families, :paced_models, :rooms) AS p (family, model, room)
    WHERE p.family = t.family AND p.model = t.model AND p.room <= 0)
"""

# By `enqueued_at` alone: a batch, or all that Redis lost, shares one, and would be sorted as a whole for a few of it.
_CLAIM_DUE = Prepared(
    "aitask_claim_due",
    f"""
WITH found AS MATERIALIZED (
    SELECT t.id, t.family, t.model FROM task t
    WHERE t.status = 0 AND t.family = :family AND t.run_at <= now() AND t.rescues < :suspect AND {_OURS}
      AND {_ASKABLE}
    ORDER BY t.enqueued_at LIMIT :most FOR UPDATE OF t SKIP LOCKED
), {_TAKE}
""",
    family="text",
    most="integer",
    **_TERMS,
)

# What the reconciler ought to have sent a hint for by now: Redis takes none, though it may still be read.
_CLAIM_OVERDUE = Prepared(
    "aitask_claim_overdue",
    f"""
WITH found AS MATERIALIZED (
    SELECT t.id, t.family, t.model FROM task t
    WHERE t.status = 0 AND t.family = :family AND t.enqueued_at IS NULL AND t.rescues < :suspect
      AND t.run_at < now() - make_interval(secs => :overdue_s) AND {_OURS}
      AND {_ASKABLE}
    LIMIT :most FOR UPDATE OF t SKIP LOCKED
), {_TAKE}
""",
    family="text",
    most="integer",
    overdue_s="double precision",
    **_TERMS,
)

_CLAIM_SUSPECT = Prepared(
    "aitask_claim_suspect",
    f"""
WITH found AS MATERIALIZED (
    SELECT t.id, t.family, t.model FROM task t
    WHERE t.status = 0 AND t.rescues > 0 AND t.family = ANY (:families) AND t.run_at <= now()
      AND t.rescues >= :suspect AND {_OURS}
      AND {_ASKABLE}
    ORDER BY t.id LIMIT 1 FOR UPDATE OF t SKIP LOCKED
), {_TAKE}
""",
    families="text[]",
    **_TERMS,
)

# The same rows one by one, for when one of them refuses to be claimed.
_DUE = Sql(f"""
SELECT t.id::text AS id FROM task t
WHERE t.status = 0 AND t.family = :family AND t.run_at <= now() AND t.rescues < :suspect AND {_OURS}
ORDER BY t.enqueued_at LIMIT :most
""")

# No call was made, so there is no attempt to note; the fence has moved, and stays.
_GIVE_BACK = Sql("""
WITH mine AS MATERIALIZED (
    SELECT id FROM task WHERE status = 3 AND worker = :worker AND id <> ALL (CAST(:held AS uuid[]))
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE task t SET status = 0, run_at = now(), enqueued_at = NULL, lease_until = NULL
FROM mine WHERE t.id = mine.id AND t.status = 3
RETURNING t.id::text
""")

_FATES = Sql(f"""
SELECT id::text, status, t.run_at <= now() AND t.rescues < :suspect AND {_OURS} AS claimable
FROM task t WHERE id = ANY (CAST(:ids AS uuid[]))
""")


def claim(
    db: Database, ids: Sequence[str], terms: Terms, paced: Sequence[Paced] = ()
) -> tuple[list[Claimed], dict[str, HintFate]]:
    """Claim the due tasks among these ids, and say what became of the others' hints."""
    values = terms.values(paced)
    # A row that refuses to be claimed is left, as one that is locked is: it stops no other.
    rows = halved(ids, lambda some: db.run(_CLAIM, ids=list(some), **values), lambda task_id, error: None)
    claimed = [_claimed(row) for row in rows]
    rest = set(ids) - {task.id for task in claimed}
    return claimed, fates(db, rest, suspect=terms.suspect, origin=terms.origin) if rest else {}


def fates(db: Database, ids: Collection[str], *, suspect: int, origin: str | None = None) -> dict[str, HintFate]:
    """Say what has become of hints whose tasks could not be claimed.

    Args:
        suspect: the `rescues` from which a task is no longer claimed by its hint.
    """
    found = dict.fromkeys(ids, HintFate.UNKNOWN)
    for row in db.rows(_FATES, ids=list(ids), suspect=suspect, origin=origin):
        found[row["id"]] = _fate(row["status"], claimable=row["claimable"])
    return found


def give_back(db: Database, *, worker: str, held: Sequence[str]) -> list[str]:
    """Make PENDING again what a worker has claimed and does not hold, at no cost. Returns their ids."""
    return [row["id"] for row in db.rows(_GIVE_BACK, worker=worker, held=list(held))]


def _fate(status: int, *, claimable: bool) -> HintFate:
    if status != 0:
        return HintFate.DONE
    return HintFate.LOCKED if claimable else HintFate.PUT_OFF


def claim_due(db: Database, family: str, terms: Terms, paced: Sequence[Paced] = (), *, most: int) -> list[Claimed]:
    """Claim due tasks of a family without any hint, oldest first: the way on while Redis is away."""
    return _claim_of(db, _CLAIM_DUE, family, terms, paced, most=most)


def claim_overdue(db: Database, family: str, terms: Terms, paced: Sequence[Paced] = (), *, most: int) -> list[Claimed]:
    """Claim due tasks that have been without a hint for longer than the reconciler takes to send one."""
    return _claim_of(db, _CLAIM_OVERDUE, family, terms, paced, most=most, overdue_s=OVERDUE_S)


def _claim_of(
    db: Database, statement: Prepared, family: str, terms: Terms, paced: Sequence[Paced], *, most: int, **more: Any
) -> list[Claimed]:
    try:
        rows = db.run(statement, family=family, most=most, **terms.values(paced), **more)
    except UnstorableData:
        due = db.rows(_DUE, family=family, suspect=terms.suspect, origin=terms.origin, most=most)
        return claim(db, [row["id"] for row in due], terms, paced)[0]
    return [_claimed(row) for row in rows]


def claim_suspect(db: Database, families: Sequence[str], terms: Terms, paced: Sequence[Paced] = ()) -> Claimed | None:
    """Claim one task that workers have died on. Suspects have no hints: a worker asks when it holds none."""
    try:
        rows = db.run(_CLAIM_SUSPECT, families=list(families), **terms.values(paced))
    except UnstorableData:
        # It refuses to be claimed, and waits as one that is locked does.
        return None
    return _claimed(rows[0]) if rows else None


def _claimed(row: tuple[Any, ...]) -> Claimed:
    values = dict(zip(_CLAIMED, row, strict=True))
    return Claimed(**{**values, "context": tuple(values["context"] or ())})
