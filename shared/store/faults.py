"""The one door for PostgreSQL's errors: each becomes ours, or is a bug and stays one."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg2

from shared.errors import AitaskError, DatabaseUnavailable, SchemaMismatch

# https://www.postgresql.org/docs/current/libpq-status.html#LIBPQ-PQSTATUS
_CONNECTION_OK = 0

# SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
_MISSING_OBJECT = ("42P01", "42703", "3F000", "42883")
# Values, constraints, what a trigger raises or its language does, views' checks, and a row that is damaged on disk.
_BAD_DATA = ("22", "23", "P0", "38", "39", "44", "XX001")
_NO_PRIVILEGE = "42501"
_ROW_TOO_LARGE = ("54000",)
READ_ONLY = "25006"
# The server ends the connection: its shutdown or crash, its limits on idle ones.
_ENDED = ("57P01", "57P02", "57P03", "57P04", "57P05", "25P03", READ_ONLY)
# No name of ours is known on this connection, or another's is: a pooler hands out connections per transaction.
NOT_OURS = ("26000", "42P05")
# "cached plan must not change result type": a migration has been at the table.
STALE_PLAN = "0A000"

# The server's words to a connection that it refuses: libpq hands on no code before there is a connection.
_REFUSALS = ("FATAL:", "fe_sendauth:", "SSL", "certificate")
_REFUSED_FOR_GOOD = (
    ("password authentication failed", "check the password of DATABASE_URL, or POSTGRES_PASSWORD"),
    ("no password supplied", "give DATABASE_URL a password, or set POSTGRES_PASSWORD"),
    ("authentication failed", "check the user and password of DATABASE_URL"),
    ("no pg_hba.conf entry", "let this machine and user in with a line of pg_hba.conf"),
    ("role ", "check the user of DATABASE_URL, or POSTGRES_USER"),
    ("database ", "create it with createdb, or check the name in DATABASE_URL or POSTGRES_DB"),
    ("no such database", "check the name in DATABASE_URL, or add it to the pooler's list"),
    ("no such user", "check the user of DATABASE_URL, or add it to the pooler's list"),
    ("server does not support SSL", "take sslmode out of DATABASE_URL, or switch TLS on at the server"),
    ("certificate", "check sslmode and sslrootcert of DATABASE_URL"),
)


class UnstorableData(AitaskError):
    """PostgreSQL refused a statement because of the data in it, not because of its own state."""


def is_lost(error: psycopg2.Error, raw: Any) -> bool:
    """Whether the connection is of no more use.

    psycopg2 raises all kinds of errors for a connection that broke, its most general and ProgrammingError among them,
    and may not call it closed: where neither the server's code nor libpq decides, the server is asked.
    """
    if raw.closed or raw.info.status != _CONNECTION_OK or type(error) is psycopg2.DatabaseError:
        return True
    if error.pgcode is not None:
        return error.pgcode.startswith("08") or error.pgcode in _ENDED
    if isinstance(error, (psycopg2.DataError, psycopg2.IntegrityError)):
        return False
    return not _answers(raw)


def _answers(raw: Any) -> bool:
    with contextlib.suppress(psycopg2.Error):
        try:
            with contextlib.closing(raw.cursor()) as cursor:
                cursor.execute("SELECT 1")
                return bool(cursor.fetchall() == [(1,)])
        except psycopg2.Error as error:
            # Refusing it is an answer, too: so does a transaction that has failed.
            return error.pgcode is not None and not raw.closed
    return False


def translated(error: psycopg2.Error, *, lost: bool, unknown: bool = False) -> AitaskError:
    """Return our error for the driver's, or raise the driver's: it is a bug. The text is the server's own: it names no
    password.

    Args:
        lost: whether the connection broke.
        unknown: whether what was asked for may have been done all the same.
    """
    state = error.pgcode or ""
    reason = _reason(error)
    if state in _MISSING_OBJECT:
        return SchemaMismatch("the database has no aitask tables of this version", remedy="run: aitask db init")
    if refuses_data(error):
        return UnstorableData(f"PostgreSQL refused the data: {reason}")
    if state == _NO_PRIVILEGE:
        remedy = "grant the user of DATABASE_URL its rights"
        return DatabaseUnavailable(f"PostgreSQL refuses: {reason}", remedy=remedy, waits=False)
    if state == READ_ONLY:
        remedy = "name every host in DATABASE_URL (host1:5432,host2:5432): the one that can be written to is taken"
        return DatabaseUnavailable(f"PostgreSQL is read-only: {reason}", remedy=remedy)
    if lost or isinstance(error, (psycopg2.OperationalError, psycopg2.InternalError)):
        # With a code, the server says that it has not done it; a crash may come between the commit and its reply.
        unknown = unknown and lost and (not state or state == "57P02" or state.startswith("08"))
        return DatabaseUnavailable(
            f"PostgreSQL is not available: {reason}", remedy="see: aitask doctor", unknown=unknown
        )
    if isinstance(error, (psycopg2.DataError, psycopg2.IntegrityError)):
        return UnstorableData(f"PostgreSQL refused the data: {reason}")
    raise error


def refuses_data(error: psycopg2.Error) -> bool:
    """Whether a statement was refused for the data of its rows: with other rows it may be taken."""
    state = error.pgcode or ""
    return state.startswith(_BAD_DATA) or state in _ROW_TOO_LARGE


def not_connected(error: psycopg2.Error) -> DatabaseUnavailable:
    """Return our error for a connection that could not be made; only some of those are worth waiting for."""
    reason = _reason(error)
    if any(words in reason for words in _REFUSALS):
        said = reason.rpartition("FATAL:")[2].strip() or reason
        for words, remedy in _REFUSED_FOR_GOOD:
            if words in said and (not words.endswith(" ") or (f'{words}"' in said and "does not exist" in said)):
                return DatabaseUnavailable(f"PostgreSQL refuses: {said}", remedy=remedy, waits=False)
    return DatabaseUnavailable(f"PostgreSQL is not available: {reason}", remedy="see: aitask doctor")


def _reason(error: psycopg2.Error) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or ["no reason given"]
    # One line for each host that was tried.
    tried = [line for line in lines if line.startswith("connection to server")]
    return "; ".join(tried) if len(tried) > 1 else lines[0]
