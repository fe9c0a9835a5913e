"""Reading batches for people and programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from shared.columns import RESULT
from shared.domain import AttemptView, BatchLine, BatchPage, BatchView, TaskState, TaskStatus, TaskView
from shared.errors import NotFound, UsageFault
from shared.ids import prefix_range
from shared.store.engine import Database, Row, Sql, utc

# The same name at two families is two models: in a batch that asks both, each is called by its family too.
NAME = """
CASE WHEN EXISTS (SELECT 1 FROM task s WHERE s.batch_id = t.batch_id AND s.model = t.model AND s.family <> t.family)
     THEN t.family || '/' || t.model ELSE t.model END
"""

_TASK = f"""
SELECT t.id::text, t.batch_id::text, t.position, t.model, t.family, {NAME} AS name, t.status,
       t.attempt, t.failures, t.rescues, b.created_at, t.worker, t.origin, t.finished_at,
       {", ".join(f"t.{column.name}" for column in RESULT)},
       extract(epoch FROM t.run_at - now())::float AS run_in_s,
       extract(epoch FROM t.lease_until - now())::float AS lease_left_s,
       CASE WHEN t.status = 3 THEN extract(epoch FROM now() - t.started_at)::float END AS running_s
FROM task t JOIN batch b ON b.id = t.batch_id
"""

_BATCH = Sql("""
SELECT id::text, conversation_id::text, prompt, system, options, created_at FROM batch WHERE id = CAST(:id AS uuid)
""")
_TASKS_OF = Sql(f"{_TASK} WHERE t.batch_id = CAST(:id AS uuid) ORDER BY t.position")
_TASK_BY_ID = Sql(f"{_TASK} WHERE t.id = CAST(:id AS uuid)")

_LAST = Sql("SELECT id::text FROM batch ORDER BY created_at DESC, id LIMIT 1")
_BY_PREFIX = Sql("""
SELECT id::text FROM batch WHERE id BETWEEN CAST(:low AS uuid) AND CAST(:high AS uuid) ORDER BY id LIMIT 2
""")

_LIST = Sql(f"""
SELECT b.id::text, left(b.prompt, 200) AS prompt_head, b.created_at,
       array_agg({NAME} ORDER BY t.position) AS models, array_agg(t.status ORDER BY t.position) AS statuses
FROM (SELECT id, prompt, created_at FROM batch ORDER BY created_at DESC, id LIMIT :most) b
JOIN task t ON t.batch_id = b.id
GROUP BY b.id, b.prompt, b.created_at ORDER BY b.created_at DESC, b.id
""")

_ATTEMPTS = Sql("""
SELECT number, worker, started_at, ended_at, outcome, error_kind, error_msg, http_status
FROM attempt WHERE task_id = CAST(:id AS uuid) ORDER BY number
""")

# What changes while a batch runs, without the answers: cheap enough to ask for again and again.
_STATES = Sql("SELECT id::text, status, attempt FROM task WHERE batch_id = CAST(:id AS uuid)")
_STATES_OF = Sql(f"""
SELECT batch_id::text, id::text, position, {NAME} AS name, status, attempt FROM task t
WHERE batch_id = ANY (CAST(:ids AS uuid[])) ORDER BY batch_id, position
""")
_TASKS_BY_ID = Sql(f"{_TASK} WHERE t.id = ANY (CAST(:ids AS uuid[]))")

# The length of a text that lies outside its row is known without reading it.
_PAGE_OF = """
SELECT id::text, conversation_id::text, prompt, system, options, created_at, found FROM (
    SELECT b.*, count(*) OVER () AS found, row_number() OVER newest_first AS number,
           sum(octet_length(b.prompt) + coalesce(octet_length(b.system), 0) + t.bytes) OVER newest_first AS bytes
    FROM (SELECT * FROM batch WHERE conversation_id = CAST(:id AS uuid) {older}
          ORDER BY created_at DESC, id LIMIT :most + 1) b
    CROSS JOIN LATERAL (
        SELECT sum(coalesce(octet_length(response_text), 0) + coalesce(octet_length(reasoning_text), 0)) AS bytes
        FROM task WHERE batch_id = b.id) t
    WINDOW newest_first AS (ORDER BY b.created_at DESC, b.id)
) sized WHERE number = 1 OR number <= :most AND bytes <= :most_bytes ORDER BY number
"""
_OLDER = """AND (created_at < CAST(:at AS timestamptz) OR created_at = CAST(:at AS timestamptz)
    AND id > CAST(:before AS uuid))"""
_NEWEST_PAGE_OF = Sql(_PAGE_OF.format(older=""))
_OLDER_PAGE_OF = Sql(_PAGE_OF.format(older=_OLDER))
_PLACE_IN = Sql("""
SELECT created_at FROM batch WHERE id = CAST(:before AS uuid) AND conversation_id = CAST(:id AS uuid)
""")
_TASKS_OF_MANY = Sql(f"{_TASK} WHERE t.batch_id = ANY (CAST(:ids AS uuid[])) ORDER BY t.position")


def find_batch(db: Database, name: str) -> str:
    """Return the whole id of a batch named by its id, a unique prefix of it, or `last`.

    Raises:
        NotFound: there is none; UsageFault: the prefix fits several, or can't be one.
    """
    if name.lower() == "last":
        rows = db.rows(_LAST)
        if not rows:
            raise NotFound("there is no batch yet", remedy='ask something: aitask ask "…" -m gemini,qwen')
        return str(rows[0]["id"])
    low, high = prefix_range(name)
    rows = db.rows(_BY_PREFIX, low=low, high=high)
    if not rows:
        raise NotFound(f"no batch {name}", remedy="see: aitask ls")
    if len(rows) > 1:
        raise UsageFault(f"{name} fits more than one batch", remedy="give more of the id; see: aitask ls")
    return str(rows[0]["id"])


def batch(db: Database, batch_id: str) -> BatchView:
    """Return a batch with its tasks.

    Raises:
        NotFound: there is none of this id.
    """
    with db.transaction() as connection:
        head = connection.execute(_BATCH, {"id": batch_id}).mappings().first()
        if head is None:
            raise NotFound(f"no batch {batch_id}", remedy="see: aitask ls")
        tasks = tuple(_task(row) for row in connection.execute(_TASKS_OF, {"id": batch_id}).mappings())
    return BatchView(**{**head, "created_at": utc(head["created_at"])}, tasks=tasks)


def states(db: Database, batch_id: str) -> tuple[tuple[str, int, int], ...]:
    """Return (task id, status, attempt) of a batch's tasks: what a watcher compares to see a change."""
    return tuple(sorted((row["id"], row["status"], row["attempt"]) for row in db.rows(_STATES, id=batch_id)))


def states_of(db: Database, batch_ids: Collection[str]) -> dict[str, list[TaskState]]:
    """Return how the tasks of many batches stand, by batch; a batch that is not there is left out."""
    found: dict[str, list[TaskState]] = {}
    for row in db.rows(_STATES_OF, ids=list(batch_ids)):
        found.setdefault(row["batch_id"], []).append(
            TaskState(row["id"], row["position"], row["name"], TaskStatus(row["status"]), row["attempt"])
        )
    return found


def tasks(db: Database, task_ids: Collection[str]) -> dict[str, TaskView]:
    """Return tasks by their ids; one that is not there is left out."""
    return {row["id"]: _task(row) for row in db.rows(_TASKS_BY_ID, ids=list(task_ids))}


def of_conversation(
    db: Database, conversation_id: str, *, most: int, most_bytes: int, before: str | None = None
) -> BatchPage:
    """Return a conversation's newest batches with their tasks, oldest of them first.

    Args:
        most_bytes: what the texts of a page may have together; a batch that has more is a page of its own.
        before: a batch of the conversation; only older ones are wanted.

    Raises:
        NotFound: there is no such conversation, or no such batch in it.
    """
    heads = _page(db, {"id": conversation_id, "most": most, "most_bytes": most_bytes}, before)
    grouped: dict[str, list[TaskView]] = {row["id"]: [] for row in heads}
    for row in db.rows(_TASKS_OF_MANY, ids=list(grouped)):
        grouped[row["batch_id"]].append(_task(row))
    batches = [_batch(row, tuple(grouped[row["id"]])) for row in reversed(heads)]
    return BatchPage(tuple(batches), batches[0].id if heads and heads[0]["found"] > len(heads) else None)


def _page(db: Database, wanted: dict[str, Any], before: str | None) -> Sequence[Row]:
    if before is None:
        heads = db.rows(_NEWEST_PAGE_OF, **wanted)
        if not heads:
            raise NotFound(f"no conversation {wanted['id']}")
        return heads
    place = db.rows(_PLACE_IN, before=before, id=wanted["id"])
    if not place:
        raise NotFound(f"no batch {before} in this conversation")
    return db.rows(_OLDER_PAGE_OF, **wanted, before=before, at=place[0]["created_at"])


def _batch(row: Row, tasks: tuple[TaskView, ...]) -> BatchView:
    return BatchView(
        id=row["id"], conversation_id=row["conversation_id"], prompt=row["prompt"], system=row["system"],
        options=row["options"], created_at=utc(row["created_at"]), tasks=tasks,
    )  # fmt: skip


def task(db: Database, task_id: str) -> TaskView:
    """Return one task.

    Raises:
        NotFound: there is none of this id.
    """
    rows = db.rows(_TASK_BY_ID, id=task_id)
    if not rows:
        raise NotFound(f"no task {task_id}", remedy="see: aitask show BATCH --json")
    return _task(rows[0])


def attempts(db: Database, task_id: str) -> list[AttemptView]:
    """Return a task's ended attempts, oldest first."""
    return [AttemptView(**row) for row in db.rows(_ATTEMPTS, id=task_id)]


def recent(db: Database, most: int) -> Sequence[BatchLine]:
    """Return the newest batches, newest first."""
    return [
        BatchLine(
            row["id"],
            row["prompt_head"],
            utc(row["created_at"]),
            tuple(row["models"]),
            tuple(TaskStatus(status) for status in row["statuses"]),
        )
        for row in db.rows(_LIST, most=most)
    ]


def _task(row: Row) -> TaskView:
    finished = row["finished_at"]
    return TaskView(
        **{
            **row,
            "status": TaskStatus(row["status"]),
            "created_at": utc(row["created_at"]),
            "finished_at": utc(finished) if finished else None,
        }
    )
