"""What a migration does to tables in use: while it runs, tasks are claimed and recorded."""

from __future__ import annotations

from alembic import op


def create_index(name: str, on: str) -> None:
    """Build an index without locking its table. What an interrupted run left behind, unusable, goes first.

    Args:
        on: table, columns and predicate, as after CREATE INDEX … ON.
    """
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {on}")


def drop_index(name: str) -> None:
    """Drop an index without locking its table."""
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def mark(revision: str, *, oldest: str) -> None:
    """Say which releases the tables of a revision still serve: those whose head is `oldest` or later."""
    op.execute(f"INSERT INTO schema_mark (revision, oldest) VALUES ('{revision}', '{oldest}') ON CONFLICT DO NOTHING")
