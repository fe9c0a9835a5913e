"""Migrations of tables in use: while one runs, tasks are submitted, claimed and recorded."""

from __future__ import annotations

import contextlib
import re
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from alembic import command

from shared import migrations
from shared.store import schema
from shared.store.engine import Database, Profile
from tests.stand import Stand, wait_for

BUILDING = """
SELECT 1 FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'CREATE INDEX %' AND state = 'active' AND wait_event_type = 'Lock'
"""
TASK = "INSERT INTO task (id, batch_id, position, model, family) SELECT gen_random_uuid(), id, 0, %s, 'qwen' FROM batch"


@pytest.fixture
def first_release(stand: Stand) -> Iterator[str]:
    """A database of the first release, with a task in it."""
    name = f"{stand.database}_old"
    stand.servers.admin(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    db = Database(stand.servers.dsn(name))
    with schema.alembic_connection(db) as connection:
        command.upgrade(schema._alembic(connection), "0001")
    db.close()
    with connected(stand.servers.dsn(name)) as connection, connection.cursor() as cursor:
        made = str(uuid.uuid4())
        cursor.execute("INSERT INTO conversation (id, title) VALUES (%s, 't')", (made,))
        cursor.execute("INSERT INTO batch (id, conversation_id, prompt) VALUES (%s, %s, 'p')", (made, made))
        cursor.execute(TASK, ("before",))
    yield stand.servers.dsn(name)
    stand.servers.admin(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def connected(dsn: str, *, autocommit: bool = True) -> Iterator[psycopg2.extensions.connection]:
    connection = psycopg2.connect(dsn, options="-c lock_timeout=2s")
    connection.autocommit = autocommit
    with contextlib.closing(connection):
        yield connection


def test_tasks_are_written_while_an_index_is_built(first_release: str) -> None:
    # Long enough for a machine that does much else: the build waits for whoever writes.
    db = Database(first_release, profile=Profile(timeout_s=60))
    found: list[object] = []
    upgrading = threading.Thread(target=lambda: found.append(schema.upgrade(db)))
    with (
        connected(first_release, autocommit=False) as writer,
        connected(first_release) as other,
        other.cursor() as cursor,
    ):
        writer.cursor().execute("UPDATE task SET model = 'written for long'")
        upgrading.start()
        try:

            def building() -> bool:
                cursor.execute(BUILDING)
                return cursor.fetchone() is not None

            wait_for(building, what="the build that waits for a writer")
            cursor.execute(TASK, ("meanwhile",))
            cursor.execute("UPDATE task SET attempt = 1 WHERE model = 'meanwhile'")
            assert cursor.rowcount == 1
            assert building(), "it was being built all the time"
        finally:
            writer.commit()
            upgrading.join(60)
    assert found == [("0001", migrations.HEAD)]
    db.close()


def test_an_index_that_an_interrupted_run_left_unusable_is_built_anew(first_release: str) -> None:
    with connected(first_release) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE INDEX task_suspect ON task (family) WHERE status = 0 AND rescues > 0")
        cursor.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'task_suspect'::regclass")
        db = Database(first_release)
        schema.upgrade(db)
        db.close()
        cursor.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
        assert cursor.fetchone() == (0,)


def test_no_migration_but_the_first_builds_an_index_that_locks_its_table() -> None:
    scripts = sorted((Path(migrations.__file__).parent / "versions").glob("0*.py"))
    assert len(scripts) >= 5
    for script in scripts[1:]:
        assert not re.search(r"op\.create_index|CREATE (UNIQUE )?INDEX(?! CONCURRENTLY)", script.read_text()), (
            script.name
        )
