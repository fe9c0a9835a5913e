"""The tables. A new column is one line here and one migration; a test holds the two equal."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from shared.columns import RESULT

metadata = sa.MetaData()
_TYPES = {
    "text": sa.Text,
    "smallint": sa.SmallInteger,
    "integer": sa.Integer,
    "double precision": sa.Double,
    "boolean": sa.Boolean,
    "jsonb": JSONB,
}
_now = sa.text("now()")


def _id(*args: sa.ForeignKey, primary: bool = False, nullable: bool = False, name: str = "id") -> sa.Column[str]:
    return sa.Column(name, UUID(as_uuid=False), *args, primary_key=primary, nullable=nullable)


def _time(name: str, *, nullable: bool = True, default: sa.TextClause | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable, server_default=default)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


conversation = sa.Table(
    "conversation",
    metadata,
    _id(primary=True),
    sa.Column("title", sa.Text, nullable=False),
    _time("created_at", nullable=False, default=_now),
)

batch = sa.Table(
    "batch",
    metadata,
    _id(primary=True),
    _id(sa.ForeignKey("conversation.id", ondelete="CASCADE"), name="conversation_id"),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("system", sa.Text),
    sa.Column("options", JSONB, nullable=False, server_default="{}"),
    sa.Column("idempotency_key", sa.Text, unique=True),
    sa.Column("request_hash", sa.Text),
    sa.Column("lane", sa.Text, nullable=False, server_default="ask"),
    _time("created_at", nullable=False, default=_now),
    sa.Index("batch_by_time", sa.text("created_at DESC")),
    sa.Index("batch_by_conversation", "conversation_id", "created_at"),
)

task = sa.Table(
    "task",
    metadata,
    _id(primary=True),
    _id(sa.ForeignKey("batch.id", ondelete="CASCADE"), name="batch_id"),
    sa.Column("position", sa.SmallInteger, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("family", sa.Text, nullable=False),
    # On the local default: the settings it was asked under, whose worker alone may call it.
    sa.Column("origin", sa.Text),
    sa.Column("context", JSONB),
    sa.Column("status", sa.SmallInteger, nullable=False, server_default="0"),
    _count("attempt"),
    _count("failures"),
    _count("rescues"),
    _count("bad_answers"),
    _time("run_at", nullable=False, default=_now),
    _time("enqueued_at"),
    _time("lease_until"),
    sa.Column("worker", sa.Text),
    _time("started_at"),
    _time("first_claimed_at"),
    _time("deadline_at"),
    _time("finished_at"),
    *(sa.Column(column.name, _TYPES[column.kind]) for column in RESULT),
    sa.Index("task_by_batch", "batch_id", "position"),
    # Only unfinished rows are ever searched for by state, so these stay small whatever the history.
    sa.Index("task_pending", "family", "enqueued_at", postgresql_where=sa.text("status = 0")),
    sa.Index("task_suspect", "family", postgresql_where=sa.text("status = 0 AND rescues > 0")),
    sa.Index("task_origin", "family", "origin", postgresql_where=sa.text("status = 0 AND origin IS NOT NULL")),
    # lease_until is left out so that heartbeats stay heap-only updates.
    sa.Index("task_processing", "family", postgresql_where=sa.text("status = 3")),
    sa.Index(
        "task_deadline",
        "deadline_at",
        postgresql_where=sa.text("status IN (0, 3) AND deadline_at IS NOT NULL"),
    ),
    sa.CheckConstraint("status BETWEEN 0 AND 3", name="task_status"),
)

attempt = sa.Table(
    "attempt",
    metadata,
    _id(sa.ForeignKey("task.id", ondelete="CASCADE"), primary=True, name="task_id"),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("worker", sa.Text),
    _time("started_at"),
    _time("ended_at", nullable=False, default=_now),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("error_kind", sa.Text),
    sa.Column("error_msg", sa.Text),
    sa.Column("http_status", sa.SmallInteger),
)

worker = sa.Table(
    "worker",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("families", ARRAY(sa.Text), nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    _count("in_flight"),
    sa.Column("lease_s", sa.Double, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("origin", sa.Text),
    sa.Column("state", JSONB, nullable=False, server_default="{}"),
    _time("started_at", nullable=False, default=_now),
    _time("heartbeat_at", nullable=False, default=_now),
)

family_pause = sa.Table(
    "family_pause",
    metadata,
    sa.Column("family", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    _time("paused_at", nullable=False, default=_now),
    _time("until"),
)

model_cooldown = sa.Table(
    "model_cooldown",
    metadata,
    sa.Column("family", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    _time("until", nullable=False),
    sa.Column("reason", sa.Text),
)

system_log = sa.Table(
    "system_log",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    _time("at", nullable=False, default=_now),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("logger", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("trace", sa.Text),
    sa.Column("fields", JSONB, nullable=False, server_default="{}"),
)

# Written by migrations alone: the oldest head of a release that works with the tables of a revision.
schema_mark = sa.Table(
    "schema_mark",
    metadata,
    sa.Column("revision", sa.Text, primary_key=True),
    sa.Column("oldest", sa.Text, nullable=False),
)
