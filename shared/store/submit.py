"""Writing a batch: conversation, batch and every task in one statement, so that nothing is ever half-written."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa

from shared.domain import NewBatch
from shared.errors import Conflict
from shared.store.engine import Database, Prepared

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
INSERT INTO task (id, batch_id, position, model, family, context, enqueued_at)
SELECT t.id, new_batch.id, t.position - 1, t.model, t.family, t.context, now()
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
    ids="uuid[]",
    models="text[]",
    families="text[]",
    contexts="jsonb[]",
)

_FIRST = sa.text("""
SELECT b.id, b.conversation_id, b.request_hash,
       array(SELECT t.id::text FROM task t WHERE t.batch_id = b.id ORDER BY t.position) AS task_ids
FROM batch b WHERE b.idempotency_key = :key
""")

TITLE_CHARS = 80


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
        "title": " ".join(new.prompt[: TITLE_CHARS * 2].split())[:TITLE_CHARS],
        "batch_id": new.id,
        "prompt": new.prompt,
        "system": new.system,
        "options": json.dumps(new.options),
        "idempotency_key": new.idempotency_key,
        "request_hash": new.request_hash,
        "ids": [task.id for task in new.tasks],
        "models": [task.model for task in new.tasks],
        "families": [task.family for task in new.tasks],
        "contexts": [json.dumps(task.context) if task.context else None for task in new.tasks],
    }
    if db.run(_SUBMIT, **values):
        return Written(new.id, conversation_id, tuple(task.id for task in new.tasks), True)
    return _first(db, new)


def _first(db: Database, new: NewBatch) -> Written:
    rows = db.rows(_FIRST, key=new.idempotency_key)
    if not rows or rows[0]["request_hash"] != new.request_hash:
        raise Conflict(
            f"the idempotency key {new.idempotency_key!r} was used for another request", remedy="use a new key"
        )
    return Written(str(rows[0]["id"]), str(rows[0]["conversation_id"]), tuple(rows[0]["task_ids"]), False)
