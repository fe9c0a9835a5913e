"""Setting the database up: create, upgrade, report, reset."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import DatabaseUnavailable, SchemaMismatch
from shared.migrations import HEAD
from shared.store.engine import Database, Sql

if TYPE_CHECKING:
    import sqlalchemy as sa
    from alembic.config import Config

# Any fixed number: two processes that set one database up at once must meet on the same lock.
_SETUP_LOCK = 0x6169_7461_736B
_LOCK_AGAIN_S = 0.1
# Long enough for another's migration of a large table.
_LOCK_S = 600.0

_STATE = Sql("""
SELECT current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby,
       current_setting('transaction_read_only')::boolean AS read_only,
       to_regclass('alembic_version') IS NOT NULL AS there, to_regclass('schema_mark') IS NOT NULL AS marked
""")
_REVISION = Sql("SELECT version_num FROM alembic_version")
_OLDEST = Sql("SELECT oldest FROM schema_mark WHERE revision = :revision")


@dataclass(frozen=True, slots=True)
class State:
    """What a database is: its revision (None: no aitask tables), the oldest release's head that its tables still
    serve (None: not marked), its encoding, and whether it can be written to.
    """

    revision: str | None
    oldest: str | None
    encoding: str
    standby: bool
    read_only: bool

    @property
    def serves(self) -> bool:
        """Whether this release works with these tables: its own, or newer ones that say they still serve it.

        Migrations only add, so the old release and the new one work side by side.
        """
        if self.revision == HEAD:
            return True
        return self.revision is not None and self.oldest is not None and self.revision > HEAD >= self.oldest


def state(db: Database) -> State:
    """Look at a database."""
    (found,) = db.rows(_STATE)
    revision = db.rows(_REVISION) if found["there"] else []
    name = str(revision[0]["version_num"]) if revision else None
    marks = db.rows(_OLDEST, revision=name) if found["marked"] and name not in (None, HEAD) else []
    oldest = str(marks[0]["oldest"]) if marks else None
    return State(name, oldest, found["encoding"], found["standby"], found["read_only"])


def current(db: Database) -> str | None:
    """Return the database's revision, or None when it has no aitask tables."""
    return state(db).revision


def check(db: Database) -> None:
    """Refuse to work with tables that don't serve this release, or with another encoding than UTF-8.

    Raises:
        SchemaMismatch: the remedy is named.
    """
    found = state(db)
    _check_encoding(found)
    if found.serves:
        return
    if found.revision is None:
        raise SchemaMismatch("the database has no aitask tables", remedy="run: aitask db init")
    remedy = "run: aitask db upgrade" if found.revision < HEAD else "install the newer aitask that made it"
    raise SchemaMismatch(f"the database is at revision {found.revision}, this aitask needs {HEAD}", remedy=remedy)


def check_writable(db: Database) -> None:
    """Refuse a server that can't be written to.

    Raises:
        DatabaseUnavailable: it is a standby, or read-only; it may be promoted, so waiting helps.
    """
    found = state(db)
    if found.standby:
        raise DatabaseUnavailable(
            "PostgreSQL is a standby, in recovery: it takes no writes",
            remedy="name the primary in DATABASE_URL, or all hosts: host1:5432,host2:5432",
        )
    if found.read_only:
        raise DatabaseUnavailable(
            "PostgreSQL is read-only", remedy="see default_transaction_read_only of the server, database and user"
        )


def _check_encoding(found: State) -> None:
    if found.encoding != "UTF8":
        raise SchemaMismatch(
            f"the database's encoding is {found.encoding}; answers need UTF8",
            remedy="make another: createdb -T template0 -E UTF8 NAME, and name it in DATABASE_URL or POSTGRES_DB",
        )


def upgrade(db: Database) -> tuple[str | None, str]:
    """Create the tables or bring them to this version; never destroys. Returns the revisions before and after.

    A database that a newer release made and that still serves this one is left as it is.
    """
    with _alone(db):
        found = state(db)
        _check_encoding(found)
        check_writable(db)
        before = found.revision
        if before is not None and before > HEAD:
            if found.serves:
                return before, before
            raise SchemaMismatch(
                f"the database is at revision {before}, newer than {HEAD}", remedy="install the newer aitask"
            )
        if before != HEAD:
            _migrate(db)
        return before, HEAD


def _migrate(db: Database) -> None:
    from alembic import command

    with alembic_connection(db) as connection:
        command.upgrade(_alembic(connection), "head")
    after = current(db)
    if after != HEAD:
        raise SchemaMismatch(f"the migrations up to {HEAD} are not installed", remedy="install aitask anew")


@contextmanager
def alembic_connection(db: Database) -> Iterator[sa.Connection]:
    """A connection as Alembic wants it, whose statements may take their time."""
    import sqlalchemy as sa
    from sqlalchemy import exc, pool

    with db.raw() as raw:
        if not db.pooled:
            # A migration may take longer than any statement of the running system. It still gives up on a lock: who
            # waits for a table stands before everybody else that wants it.
            with raw.cursor() as cursor:
                cursor.execute("SET statement_timeout = 0")
        raw.autocommit = False
        engine: Any = sa.create_engine(
            "postgresql+psycopg2://", creator=lambda: raw, poolclass=pool.NullPool, use_native_hstore=False
        )
        try:
            # Its end closes the connection: nothing that was set for it is left behind.
            with engine.connect() as connection:
                yield connection
        except exc.DBAPIError as error:
            raise error.orig if error.orig is not None else error from error


@contextmanager
def _alone(db: Database) -> Iterator[None]:
    """Keep all others from setting the same database up.

    The lock is a transaction's, which a pooler passes on, and is asked for again and again: one that waits for it
    would hold up who builds an index CONCURRENTLY, and wait for that in turn.
    """
    end = time.monotonic() + _LOCK_S
    while True:
        with db.transaction() as transaction:
            if transaction.scalar(Sql("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _SETUP_LOCK}):
                yield
                return
        if time.monotonic() > end:
            raise DatabaseUnavailable("another process has been setting the database up for 10 minutes")
        time.sleep(_LOCK_AGAIN_S)


def reset(db: Database) -> None:
    """Drop every aitask table, with all history, and create them anew."""
    from shared.tables import metadata

    with _alone(db), alembic_connection(db) as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")
        connection.commit()
    upgrade(db)


def _alembic(connection: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    config.attributes["connection"] = connection
    return config
