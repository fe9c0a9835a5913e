"""Writing a batch: conversation, batch and every task in one statement, so that nothing is ever half-written."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

from shared.domain import NewBatch
from shared.errors import Conflict
from shared.store.engine import Database, Prepared, Sql, Transaction, UnstorableData

_SUBMIT = Prepared(
    "aitask_submit",
    """
WITH new_batch AS (
    INSERT INTO batch (id, conversation_id, prompt, system, options, idempotency_key, request_hash)
    VALUES (:batch_id, :conversation_id, :prompt, :system, :options, :idempotency_key, :request_hash)
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING id, conversation_id
), new_conversation AS (
    -- Foreign keys are checked at the statement's end, so a used idempotency key leaves no conversation behind.
    INSERT INTO conversation (id, title) SELECT conversation_id, :title FROM new_batch WHERE :opens_conversation
)
INSERT INTO task (id, batch_id, position, model, family, origin, context, enqueued_at)
SELECT t.id, new_batch.id, t.position - 1, t.model, t.family, :origin, t.context, now()
FROM new_batch, unnest(:ids, :models, :families, :contexts) WITH ORDINALITY AS t (id, model, family, context, position)
RETURNING id
""",
    batch_id="uuid",
    conversation_id="uuid",
    opens_conversation="boolean",
    title="text",
    prompt="text",
    system="text",
    options="jsonb",
    idempotency_key="text",
    request_hash="text",
    origin="text",
    ids="uuid[]",
    models="text[]",
    families="text[]",
    contexts="jsonb[]",
)

_FIRST = Sql("""
SELECT b.id, b.conversation_id, b.request_hash,
       array(SELECT t.family FROM task t WHERE t.batch_id = b.id ORDER BY t.position) AS families,
       array(SELECT t.id::text FROM task t WHERE t.batch_id = b.id ORDER BY t.position) AS task_ids
FROM batch b WHERE b.idempotency_key = :key
""")

TITLE_CHARS = 80
_COPY_CHARS = 1 << 16


@dataclass(frozen=True, slots=True)
class Written:
    """The batch that now exists; `new` is false when the idempotency key had been used for it before."""

    batch_id: str
    conversation_id: str
    task_ids: tuple[str, ...]
    new: bool


def submit(db: Database, new: NewBatch, *, conversation_id: str) -> Written:
    """Write a batch, or find the one that its idempotency key already made.

    Raises:
        Conflict: the key was used for another request.
        DatabaseUnavailable: nothing was written, or the commit's outcome is unknown.
    """
    values = {
        "conversation_id": conversation_id,
        "opens_conversation": new.conversation_id is None,
        "title": _title(new.prompt),
        "batch_id": new.id,
        "prompt": new.prompt,
        "system": new.system,
        "options": json.dumps(new.options),
        "idempotency_key": new.idempotency_key,
        "request_hash": new.request_hash,
        "origin": new.origin,
        "ids": [task.id for task in new.tasks],
        "models": [task.model for task in new.tasks],
        "families": [task.family for task in new.tasks],
        "contexts": [json.dumps(task.context) if task.context else None for task in new.tasks],
    }
    if db.run(_SUBMIT, **values):
        return Written(new.id, conversation_id, tuple(task.id for task in new.tasks), True)
    return _first(db, new)


_STORED = Sql("""
SELECT b.id::text, b.conversation_id::text,
       array(SELECT t.id::text FROM task t WHERE t.batch_id = b.id ORDER BY t.position) AS task_ids
FROM batch b WHERE b.id = CAST(:id AS uuid)
""")


def stored(db: Database, batch_id: str) -> Written | None:
    """Find a batch that a submission may have stored whose reply was lost."""
    rows = db.rows(_STORED, id=batch_id)
    return Written(rows[0]["id"], rows[0]["conversation_id"], tuple(rows[0]["task_ids"]), True) if rows else None


_USED = Sql("""
SELECT idempotency_key, id::text AS id, request_hash,
       array(SELECT t.family FROM task t WHERE t.batch_id = b.id ORDER BY t.position) AS families
FROM batch b WHERE idempotency_key = ANY (:keys)
""")


@dataclass(frozen=True, slots=True)
class Bulk:
    """A batch that opens a conversation, on its way among many."""

    batch: NewBatch
    conversation_id: str


def submit_many(db: Database, many: Sequence[Bulk]) -> list[str]:
    """Write many batches in one transaction. Returns their ids in order: those of the first where a key was used.

    Raises:
        Conflict: a key was used for another request; nothing was written.
        DatabaseUnavailable: nothing was written, or the commit's outcome is unknown.
    """
    try:
        return _submit_many(db, many)
    except UnstorableData:
        # Another submission under the same keys came first: now its batches are found.
        return _submit_many(db, many)


def _submit_many(db: Database, many: Sequence[Bulk]) -> list[str]:
    keys = [one.batch.idempotency_key for one in many if one.batch.idempotency_key is not None]
    with db.transaction() as connection:
        rows = connection.execute(_USED, {"keys": keys}).all() if keys else []
        used = {key: (batch_id, said, families) for key, batch_id, said, families in rows}
        for one in many:
            first = used.get(one.batch.idempotency_key)
            if first is not None and not _same(one.batch, first[1], first[2]):
                raise _conflict(one.batch.idempotency_key)
        new = [one for one in many if one.batch.idempotency_key not in used]
        if new:
            _write_many(connection, new)
    return [used.get(one.batch.idempotency_key, (one.batch.id,))[0] for one in many]


def _write_many(connection: Transaction, many: Sequence[Bulk]) -> None:
    batches = [one.batch for one in many]
    columns: tuple[str, ...] = ("id", "title")
    _copy(connection, "conversation", columns, [(o.conversation_id, _escaped(_title(o.batch.prompt))) for o in many])
    columns = ("id", "conversation_id", "prompt", "system", "options", "idempotency_key", "request_hash", "lane")
    rows: list[tuple[str, ...]] = []
    for one in many:
        new = one.batch
        texts = (new.prompt, new.system, json.dumps(new.options), new.idempotency_key, new.request_hash, new.lane)
        rows.append((new.id, one.conversation_id, *map(_escaped, texts)))
    _copy(connection, "batch", columns, rows)
    columns = ("id", "batch_id", "position", "model", "family", "origin", "enqueued_at")
    rows = [
        (task.id, batch.id, str(position), _escaped(task.model), task.family, _escaped(batch.origin), "now")
        for batch in batches
        for position, task in enumerate(batch.tasks)
    ]
    _copy(connection, "task", columns, rows)


# https://www.postgresql.org/docs/current/sql-copy.html, "Text Format"
_COPY_NULL = r"\N"
_COPY_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def _copy(connection: Transaction, table: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """Write rows with COPY: no driver quotes each value, no server parses them as SQL. Values come escaped."""
    lines = io.StringIO("\n".join(map("\t".join, rows)))
    connection.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN", lines, size=_COPY_CHARS)


def _escaped(text: str | None) -> str:
    """A text as COPY takes it."""
    return _COPY_NULL if text is None else text.translate(_COPY_ESCAPES)


def _title(prompt: str) -> str:
    return " ".join(prompt[: TITLE_CHARS * 2].split())[:TITLE_CHARS]


def _same(new: NewBatch, stored_hash: str | None, stored_families: Sequence[str]) -> bool:
    """Whether a batch is the one that was stored under its key, maybe by an earlier release."""
    if stored_hash == new.request_hash:
        return True
    return any((stored_hash, tuple(stored_families)) == (old.digest, old.families) for old in new.earlier_hashes)


def _conflict(key: str | None) -> Conflict:
    return Conflict(f"the idempotency key {key!r} was used for another request", remedy="use a new key")


def _first(db: Database, new: NewBatch) -> Written:
    rows = db.rows(_FIRST, key=new.idempotency_key)
    if not rows or not _same(new, rows[0]["request_hash"], rows[0]["families"]):
        raise _conflict(new.idempotency_key)
    return Written(str(rows[0]["id"]), str(rows[0]["conversation_id"]), tuple(rows[0]["task_ids"]), False)
