"""A row that refuses what must be done with it, by a trigger of somebody's own, holds up no other."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from shared.domain import HintFate
from shared.store import claims, recovery, work
from shared.store.engine import Database
from shared.store.faults import UnstorableData
from shared.store.halves import MOST_REFUSED, halved
from tests.stand import Stand
from workers.reconciler import Reconciler

TERMS = claims.Terms("w", 3.0, 3600.0, 3)
COUNT = 300
# What PL/pgSQL raises when no code is named, and a constraint's own code.
REFUSAL = """
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN IF NEW.id = ANY (ARRAY['{}']::uuid[]) THEN RAISE {}; END IF; RETURN NEW; END$$;
CREATE TRIGGER no BEFORE UPDATE ON task FOR EACH ROW EXECUTE FUNCTION no()
"""


def tasks(stand: Stand, count: int = COUNT) -> list[str]:
    made = stand.submit("p", "qwen")
    rows = stand.query(
        "INSERT INTO task (id, batch_id, position, model, family, enqueued_at) SELECT gen_random_uuid(), %s, n, 'm', "
        "'qwen', now() FROM generate_series(1, %s) n RETURNING id::text",
        made.batch_id, count - 1,
    )  # fmt: skip
    return sorted([*made.task_ids, *(row[0] for row in rows)])


def expire(stand: Stand, db: Database) -> set[str]:
    stand.query("ALTER TABLE task DISABLE TRIGGER no")
    stand.query("UPDATE task SET status = 3, attempt = 1, lease_until = now() - interval '1 s'")
    stand.query("ALTER TABLE task ENABLE TRIGGER no")
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        return {task_id for task_id, _ in turn.expire_leases()}


def enforce_deadlines(stand: Stand, db: Database) -> set[str]:
    stand.query("ALTER TABLE task DISABLE TRIGGER no")
    stand.query("UPDATE task SET deadline_at = now() - interval '1 s'")
    stand.query("ALTER TABLE task ENABLE TRIGGER no")
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        return set(turn.enforce_deadlines())


def stamp(stand: Stand, db: Database) -> set[str]:
    with recovery.tick(db, max_rescues=3) as turn:
        assert turn is not None
        return set(turn.take_unhinted("qwen", turn.clock().now))


def claim(stand: Stand, db: Database) -> set[str]:
    ids = [row[0] for row in stand.query("SELECT id::text FROM task")]
    claimed, fates = claims.claim(db, ids, TERMS)
    assert set(fates.values()) == {HintFate.LOCKED}
    return {task.id for task in claimed}


def claim_due(stand: Stand, db: Database) -> set[str]:
    return {task.id for task in claims.claim_due(db, "qwen", TERMS, most=COUNT)}


def beat(stand: Stand, db: Database) -> set[str]:
    stand.query("ALTER TABLE task DISABLE TRIGGER no")
    stand.query("UPDATE task SET status = 3, attempt = 1")
    stand.query("ALTER TABLE task ENABLE TRIGGER no")
    return work.heartbeat(db, [(row[0], 1) for row in stand.query("SELECT id::text FROM task")], lease_s=9)


@pytest.mark.parametrize("raised", ["EXCEPTION 'not this one'", "check_violation"])
@pytest.mark.parametrize("act", [expire, enforce_deadlines, stamp, claim, claim_due, beat])
def test_one_row_that_is_refused_stops_none_of_the_others(
    stand: Stand, act: Callable[[Stand, Database], set[str]], raised: str
) -> None:
    ids = tasks(stand)
    bad = ids[COUNT // 3]
    stand.query(REFUSAL.format(bad, raised))
    with stand.db() as db:
        assert act(stand, db) == set(ids) - {bad}


def test_a_refused_row_is_said_once_and_left_alone_for_a_lease(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("aitask").propagate = True
    ids = tasks(stand, 20)
    stand.query("UPDATE task SET status = 3, attempt = 1, lease_until = now() - interval '1 s'")
    stand.query(REFUSAL.format(ids[3], "EXCEPTION 'not this one'"))
    with stand.db() as db, stand.streams() as streams:
        reconciler = Reconciler(db, streams, families=("qwen",), lease_s=0.001, max_rescues=3)
        for _ in range(3):
            reconciler.tick()
    said = [record.getMessage() for record in caplog.records if record.name == "aitask.reconciler"]
    assert [line for line in said if "refuses" in line] == [
        "a row refuses what must be done with it: PostgreSQL refused the data: not this one"
    ]
    assert stand.query("SELECT status, count(*) FROM task GROUP BY 1 ORDER BY 1") == [(0, 19), (3, 1)]


def test_where_every_row_is_refused_it_is_not_the_rows_and_few_are_tried() -> None:
    asked: list[int] = []

    def never(some: object) -> list[int]:
        asked.append(len(some))  # type: ignore[arg-type]
        raise UnstorableData("no")

    refused: list[int] = []
    assert halved(list(range(500)), never, lambda item, error: refused.append(item)) == []
    assert refused == list(range(MOST_REFUSED))
    assert len(asked) < 4 * MOST_REFUSED
