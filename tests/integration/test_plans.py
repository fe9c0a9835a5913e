"""Plans: whatever the planner believes of the tables, a hot statement looks at the rows it is about and no others.

Each statement is explained, with its real values, where it is run: direct and through a pooler, on tables that are new,
that have grown and were never analysed, and that are large and analysed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import NamedTupleCursor

from shared.domain import Finished, TaskStatus
from shared.store import claims, engine, fleet, operate, read, recovery, submit, work
from shared.store.engine import Database, Profile
from shared.store.statements import Prepared, Sql, for_driver
from tests.pooler import Pooler
from tests.stand import Stand

LARGE = 200_000
RUNNING = 500
# What a statement may look at besides its own rows: those that run, a page of a reconciler's or a claim's.
MOST_ROWS = 2_500
SPOKEN_BEFORE = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "PREPARE", "SET LOCAL")
HEARD = {"ours": claims.Terms("w", 3.0, 3600.0, 3), "origin": claims.Terms("w", 3.0, 3600.0, 3, "here")}
PACED = [claims.Paced("qwen", "m1", 2, 1.0, 60.0)]

# A long history, a backlog, some that run, a few suspects, one model that is left alone.
GROW = f"""
INSERT INTO task (id, batch_id, position, model, family, origin, status, attempt, rescues, enqueued_at, lease_until)
SELECT gen_random_uuid(), (SELECT id FROM batch LIMIT 1), n %% 100, 'm' || n %% 7, 'qwen',
       CASE WHEN n %% 2 = 0 THEN 'here' END,
       CASE WHEN n <= {RUNNING} THEN 3 WHEN n %% 5 = 0 THEN 0 ELSE 1 END, 1,
       CASE WHEN n %% 2000 = 5 THEN 2 ELSE 0 END, now() - interval '1 s', now() + interval '1 hour'
FROM generate_series(1, {LARGE}) n
"""


@dataclass
class Plans:
    """What was explained: each statement's text, and what its plan looked at."""

    texts: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def note(self, text: str, plan: dict[str, Any]) -> None:
        self.texts.add(text)
        for node in _nodes(plan):
            if node.get("Relation Name") not in ("task", "batch", "attempt") or node["Node Type"] == "ModifyTable":
                continue
            rows = node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
            if node["Node Type"] == "Seq Scan" or rows > MOST_ROWS:
                found = f"{node['Node Type']} by {node.get('Index Name')} on {node['Relation Name']}, {rows:.0f} rows"
                self.faults.append(f"{found}: {' '.join(text.split())[:200]}")


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def explaining(db: Database, plans: Plans, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Have every statement of a database explained, and what that did undone, before it is run."""

    def explained(own: Any, text: str, values: Any) -> None:
        said = text.removeprefix(db._preamble)
        if said.startswith(SPOKEN_BEFORE):
            return
        inside = own.connection.info.transaction_status != 0
        before = "SAVEPOINT explain; " if inside else f"BEGIN; {db._preamble if db.pooled else ''}"
        with own.connection.cursor(cursor_factory=Cursor) as asking:
            asking.execute(f"{before}EXPLAIN (ANALYZE, TIMING off, SUMMARY off, FORMAT json) {said}", values)
            plans.note(said, asking.fetchone()[0][0]["Plan"])
            asking.execute("ROLLBACK TO SAVEPOINT explain" if inside else "ROLLBACK")

    class Plain(Cursor):
        def execute(self, text: Any, values: Any = None) -> None:
            explained(self, text, values)
            super().execute(text, values)

    class Named(NamedTupleCursor):
        def execute(self, text: Any, values: Any = None) -> None:  # type: ignore[override]
            explained(self, text, values)
            super().execute(text, values)

    connect = db._connect

    def connecting(**more: Any) -> Any:
        raw = connect(**more)
        raw.cursor_factory = Plain
        return raw

    monkeypatch.setattr(engine, "NamedTupleCursor", Named)
    monkeypatch.setattr(db, "_connect", connecting)
    return db


def everything(db: Database, stand: Stand) -> None:
    """Say what a worker says, three times: as it is, then prepared."""
    for number in range(3):
        made = [stand.submit(f"p{number}.{n}", "qwen", "qwen2") for n in range(2)]
        ids = [task_id for one in made for task_id in one.task_ids]
        held = claims.claim(db, ids, HEARD["ours"], PACED)[0]
        assert claims.give_back(db, worker="nobody", held=ids) == []
        claims.fates(db, ids, suspect=2)
        fences = [(task.id, task.attempt) for task in held]
        work.heartbeat(db, fences, lease_s=3.0)
        work.still_held(db, fences)
        results = [
            Finished(id=task_id, attempt=attempt, status=TaskStatus.SUCCESS, outcome="answered")
            for task_id, attempt in fences[:1]
        ]
        work.record(db, results)
        stand.query("UPDATE task SET lease_until = now() - interval '1 s' WHERE id = %s", fences[1][0])
        stand.query("UPDATE task SET deadline_at = now() - interval '1 s' WHERE id = %s", fences[2][0])
        with recovery.tick(db, max_rescues=3) as turn:
            assert turn is not None
            now = turn.clock().now
            assert fences[1][0] in dict(turn.expire_leases())
            assert fences[2][0] in turn.enforce_deadlines()
            assert turn.waiting_families() == ["qwen"]
            turn.origins("qwen")
            turn.take_unhinted("qwen", now - dt.timedelta(seconds=5))
            turn.take_unhinted("qwen", now - dt.timedelta(seconds=5), "here")
        for terms in HEARD.values():
            claims.claim_due(db, "qwen", terms, PACED, most=4)
            claims.claim_overdue(db, "qwen", terms, PACED, most=4)
            claims.claim_suspect(db, ["qwen", "gemini"], terms, PACED)
        operate.owe_hints(db, ids)
        fleet.work_left(db, ["gemini"])
        submit.stored(db, made[0].batch_id)
        read.states_of(db, [one.batch_id for one in made])
        read.tasks(db, ids)


def statements(module: ModuleType) -> Iterator[tuple[str, Prepared | Sql]]:
    return ((name, found) for name, found in vars(module).items() if isinstance(found, Prepared | Sql))


NOT_HOT = {"_DUE", "_TURN", "_TURN_HOLDER", "_ROW_HOLDER", "_PRIMARY"}


@pytest.mark.parametrize("way", ["direct", "pooled"])
def test_hot_statements_look_at_their_own_rows_and_no_others(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    stand.query("ALTER TABLE task SET (autovacuum_enabled = off); ALTER TABLE batch SET (autovacuum_enabled = off)")
    pooler = Pooler(stand.servers, stand.database) if way == "pooled" else None
    url = pooler.url if pooler is not None else stand.settings.database_dsn
    plans = Plans()
    profile = Profile(timeout_s=60, by_index=True)
    db = explaining(Database(url, connections=2, profile=profile), plans, monkeypatch)
    everything(db, stand)
    assert db.pooled == (way == "pooled")
    for state in ("grown and never analysed", "analysed"):
        stand.query(GROW if state.startswith("grown") else "ANALYZE")
        everything(db, stand)
        assert plans.faults == [], state
    for module in (claims, work, recovery):
        for name, statement in statements(module):
            said = {for_driver(statement.text)} if isinstance(statement, Sql) else {statement.plain, statement.execute}
            if isinstance(statement, Prepared) and way == "pooled":
                said = {statement.plain}
            assert said <= plans.texts or name in NOT_HOT, f"{module.__name__}.{name} was not explained"
    db.close()
    if pooler is not None:
        pooler.close()
