"""The connection to PostgreSQL: timeouts, pool, and the one place where driver errors become ours."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from shared.errors import AitaskError, DatabaseUnavailable, SchemaMismatch

# SQLSTATE classes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_MISSING_OBJECT = ("42P01", "42703", "3F000")
_BAD_DATA = "22"
_NO_PRIVILEGE = "42501"
_ROW_TOO_LARGE = ("54000",)

_REFUSED = (exc.DataError, exc.IntegrityError, psycopg2.DataError, psycopg2.IntegrityError)
_AWAY = (
    *(exc.OperationalError, exc.InterfaceError, exc.TimeoutError, exc.InternalError),
    *(psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.InternalError),
)
# `:name`, but not the `::` of a cast.
_VALUE = re.compile(r"(?<!:):(\w+)")

# A connection that has been idle for longer may have lost its server.
PING_AFTER_S = 1.0


class UnstorableData(AitaskError):
    """PostgreSQL refused a statement because of the data in it, not because of its own state."""


class Prepared:
    """A statement of the hot path: each connection has it planned once, for the planning costs more than the work.

    Args:
        name: of the statement on the server.
        text: SQL with `:name` for each value.
        types: the PostgreSQL type of each value, by name.
    """

    def __init__(self, name: str, text: str, **types: str) -> None:
        places = {value: f"${number}" for number, value in enumerate(types, 1)}
        numbered = _VALUE.sub(lambda found: places[found[1]], text)
        self.name = name
        self.prepare = f"PREPARE {name} ({', '.join(types.values())}) AS {numbered}"
        # What psycopg2 writes for a list needs its type said: an empty one has none.
        given = ", ".join(f"CAST(%({value})s AS {kind})" for value, kind in types.items())
        self.execute = f"EXECUTE {name} ({given})"


class Database:
    """A pool of connections with the timeouts of its user.

    Args:
        dsn: SQLAlchemy URL for psycopg2.
        connections: the most connections held.
        timeout_s: bound for connecting, for a lock and for a statement, in seconds.
        name: what the connections call themselves in pg_stat_activity.
    """

    def __init__(self, dsn: str, *, connections: int = 2, timeout_s: float = 10.0, name: str = "aitask") -> None:
        timeout_ms = int(timeout_s * 1000)
        self.engine = sa.create_engine(
            dsn,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout_s,
            # One statement a transaction; `transaction` says BEGIN itself. psycopg2 changes between the two with a
            # statement to the server.
            isolation_level="AUTOCOMMIT",
            # Nothing here is an hstore; to look for its type costs a round trip with each new connection.
            use_native_hstore=False,
            connect_args={
                # libpq takes whole seconds and treats 1 as 2.
                "connect_timeout": max(2, int(timeout_s)),
                "tcp_user_timeout": timeout_ms,
                "application_name": name,
                "options": f"-c statement_timeout={timeout_ms} -c lock_timeout={timeout_ms} -c TimeZone=UTC"
                # What every guarded statement here is written for, whatever the server's default is.
                " -c default_transaction_isolation=read\\ committed"
                # A plan made while a table was small, or never analyzed, must serve when it is large: always by index.
                " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off",
            },
        )
        # A statement's round trip is not doubled by a ping while the last one was answered just now.
        sa.event.listen(self.engine, "checkin", _used)
        sa.event.listen(self.engine, "checkout", _ping_when_idle)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction that commits at the end of the block.

        Raises:
            DatabaseUnavailable: PostgreSQL is away, refuses, or did not answer in time.
            SchemaMismatch: a table or column is missing.
            UnstorableData: the data itself was refused.
        """
        try:
            with self.engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                try:
                    yield connection
                except BaseException:
                    with contextlib.suppress(exc.DBAPIError):
                        connection.exec_driver_sql("ROLLBACK")
                    raise
                connection.exec_driver_sql("COMMIT")
        except (exc.DBAPIError, exc.TimeoutError) as error:
            raise translated(error) from error
        except psycopg2.Error as error:
            # Of what went to the driver itself. The ROLLBACK above has shown the pool whether the connection lives.
            raise translated(error, lost=type(error) is psycopg2.DatabaseError) from error

    def rows(self, statement: sa.TextClause, **values: Any) -> list[sa.RowMapping]:
        """Run one statement, which commits by itself, and return its rows.

        One round trip: BEGIN, COMMIT and the pool's ROLLBACK would be three more.
        """
        try:
            with self.engine.connect() as connection:
                return list(connection.execute(statement, values).mappings())
        except (exc.DBAPIError, exc.TimeoutError) as error:
            raise translated(error) from error

    def run(self, statement: Prepared, **values: Any) -> list[tuple[Any, ...]]:
        """Run a prepared statement, which commits by itself, and return its rows: one round trip.

        It goes past SQLAlchemy's execution, which costs 0.4 ms a statement, but for the pool.
        """
        try:
            pooled = self.engine.raw_connection()
        except (exc.SQLAlchemyError, psycopg2.Error) as error:
            # A server that stops in the middle of a connection's making may have psycopg2 raise anything.
            raise translated(error, lost=isinstance(error, psycopg2.Error)) from error
        raw = pooled.driver_connection
        assert raw is not None
        try:
            with contextlib.closing(raw.cursor()) as cursor:
                known = pooled.info.setdefault("prepared", set())
                if statement.name not in known:
                    cursor.execute(statement.prepare)
                    known.add(statement.name)
                cursor.execute(statement.execute, values)
                return list(cursor.fetchall())
        except psycopg2.Error as error:
            # psycopg2 raises all kinds of errors for a connection that broke, and may not call it closed.
            lost = self.engine.dialect.is_disconnect(error, raw, None) or type(error) is psycopg2.DatabaseError
            if lost:
                pooled.invalidate(error)
            raise translated(error, lost=lost) from error
        finally:
            pooled.close()

    def close(self) -> None:
        """Close every connection that is not in use."""
        self.engine.dispose()


def _used(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_when_idle(connection: DBAPIConnection, record: ConnectionPoolEntry, fairy: PoolProxiedConnection) -> None:
    """Find out whether an idle connection still lives; the pool makes a new one of a dead one and tries again."""
    used_at = record.info.get("used_at")
    if used_at is None or time.monotonic() - used_at < PING_AFTER_S:
        return
    try:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error as error:
        raise exc.DisconnectionError from error


def translated(error: exc.SQLAlchemyError | psycopg2.Error, *, lost: bool = False) -> AitaskError:
    """Return our error for a driver's. The text is the server's own first line: it names no password.

    Args:
        lost: whether the connection broke.
    """
    origin = getattr(error, "orig", None) or error
    state = getattr(origin, "pgcode", None) or ""
    reason = str(origin).strip().splitlines()[0] if str(origin).strip() else "no reason given"
    if state in _MISSING_OBJECT:
        return SchemaMismatch("the database has no aitask tables of this version", remedy="run: aitask db init")
    if state.startswith(_BAD_DATA) or state in _ROW_TOO_LARGE or isinstance(error, _REFUSED):
        return UnstorableData(f"PostgreSQL refused the data: {reason}")
    if state == _NO_PRIVILEGE:
        return DatabaseUnavailable(f"PostgreSQL refuses: {reason}", remedy="grant the user of DATABASE_URL its rights")
    if lost or isinstance(error, _AWAY) or (isinstance(error, exc.DBAPIError) and error.connection_invalidated):
        return DatabaseUnavailable(f"PostgreSQL is not available: {reason}", remedy="see: aitask doctor")
    raise error


def utc(value: dt.datetime) -> dt.datetime:
    """Return a time from the database as UTC."""
    return value.astimezone(dt.timezone.utc)
