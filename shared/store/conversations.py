"""Conversations: finding one, and what of it a model is told again."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from shared.domain import TaskStatus
from shared.errors import NotFound, UsageFault
from shared.ids import prefix_range
from shared.store.engine import Database, Row, Sql, utc

_LAST = Sql("SELECT conversation_id::text AS id FROM batch ORDER BY created_at DESC, id LIMIT 1")
_BY_PREFIX = Sql("""
SELECT id::text FROM conversation WHERE id BETWEEN CAST(:low AS uuid) AND CAST(:high AS uuid) ORDER BY id LIMIT 2
""")
# Newest first and no more than can fit: a conversation of years is not read whole.
_TURNS = Sql("""
SELECT b.id::text AS batch_id, b.prompt, b.system, t.family, t.model, t.status, t.response_text, t.position
FROM (SELECT * FROM batch WHERE conversation_id = CAST(:id AS uuid) ORDER BY created_at DESC, id LIMIT :most) b
JOIN task t ON t.batch_id = b.id
ORDER BY b.created_at DESC, b.id, t.position
""")
_LIST = Sql("""
SELECT c.id::text, c.title, max(b.created_at) AS last_at, count(*) AS batches
FROM conversation c JOIN batch b ON b.conversation_id = c.id
GROUP BY c.id, c.title ORDER BY last_at DESC LIMIT :most
""")
_BATCHES = Sql("""
SELECT id::text FROM batch WHERE conversation_id = CAST(:id AS uuid) ORDER BY created_at, id
""")
_TURNS_READ = 200


@dataclass(frozen=True, slots=True)
class Turn:
    """One batch of a conversation: its prompt, and what became of each (family, model)'s answer (None: no text)."""

    prompt: str
    system: str | None
    answers: dict[tuple[str, str], str | None]
    unfinished: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ConversationLine:
    """One conversation in a listing."""

    id: str
    title: str
    last_at: dt.datetime
    batches: int


def find(db: Database, name: str) -> str:
    """Return the whole id of a conversation named by id, unique prefix, or `last`.

    Raises:
        NotFound: there is none; UsageFault: the prefix fits several.
    """
    if name.lower() == "last":
        rows = db.rows(_LAST)
        if not rows:
            raise NotFound("there is no conversation yet", remedy='ask something: aitask ask "…" -m gemini,qwen')
        return str(rows[0]["id"])
    low, high = prefix_range(name)
    rows = db.rows(_BY_PREFIX, low=low, high=high)
    if not rows:
        raise NotFound(f"no conversation {name}", remedy="see: aitask conv ls")
    if len(rows) > 1:
        raise UsageFault(f"{name} fits more than one conversation", remedy="give more of the id")
    return str(rows[0]["id"])


def turns(db: Database, conversation_id: str) -> list[Turn]:
    """Return a conversation's newest turns, oldest of them first."""
    grouped: dict[str, list[Row]] = {}
    for row in db.rows(_TURNS, id=conversation_id, most=_TURNS_READ):
        grouped.setdefault(row["batch_id"], []).append(row)
    found = []
    for rows in reversed(grouped.values()):
        answers = {_key(row): row["response_text"] if row["status"] == 1 else None for row in rows}
        unfinished = tuple(_key(row) for row in rows if not TaskStatus(row["status"]).terminal)
        found.append(Turn(rows[0]["prompt"], rows[0]["system"], answers, unfinished))
    return found


def _key(row: Row) -> tuple[str, str]:
    return row["family"], row["model"]


def recent(db: Database, most: int) -> list[ConversationLine]:
    """Return the conversations that were last continued, newest first."""
    return [ConversationLine(**{**row, "last_at": utc(row["last_at"])}) for row in db.rows(_LIST, most=most)]


def batches(db: Database, conversation_id: str) -> list[str]:
    """Return the ids of a conversation's batches, oldest first."""
    return [str(row["id"]) for row in db.rows(_BATCHES, id=conversation_id)]
