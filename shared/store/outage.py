"""What a long-running part does when PostgreSQL is away at its start: wait for what passes, end for what does not."""

from __future__ import annotations

import logging
from collections.abc import Callable

from shared.errors import DatabaseUnavailable
from shared.store import schema
from shared.store.engine import Database

log = logging.getLogger("aitask.database")

# SQLSTATE classes of a refusal that stays until somebody mends it: authorization, catalog name, access rule.
_LASTING_CLASSES = ("28", "3D", "42")
# libpq gives no SQLSTATE for a connection that was refused, so the server's own words must do. In another language they
# are not known, and waiting, which says why it waits, is the safe side.
_LASTING_WORDS = (
    ("password authentication failed", "set the right password in DATABASE_URL or POSTGRES_PASSWORD"),
    ("no password supplied", "set the password in DATABASE_URL or POSTGRES_PASSWORD"),
    ("authentication failed", "set the right user in DATABASE_URL or POSTGRES_USER"),
    ("no pg_hba.conf entry", "let this host in by PostgreSQL's pg_hba.conf"),
    ("is not permitted to log in", "set another user in DATABASE_URL or POSTGRES_USER"),
    ("role", "set the right user in DATABASE_URL or POSTGRES_USER"),
    ("database", "create the database, then run: aitask db init"),
)
_AGAIN_S = (0.2, 0.5, 1.0, 2.0)


def remedy_if_lasting(error: DatabaseUnavailable) -> str | None:
    """Return what mends a refusal that does not pass by itself, or None for an outage that may."""
    cause = error.__cause__
    state = getattr(getattr(cause, "orig", None) or cause, "pgcode", None) or ""
    if state.startswith(_LASTING_CLASSES):
        return error.remedy
    for words, remedy in _LASTING_WORDS:
        absent = words in ("role", "database")
        if words in error.message and (not absent or (f'{words} "' in error.message and "exist" in error.message)):
            return remedy
    return None


def wait_until_ready(db: Database, *, wait: Callable[[float], bool]) -> bool:
    """Wait until PostgreSQL serves tables of this version.

    Args:
        wait: waits so many seconds and returns whether to give up.

    Returns:
        Whether it serves; False when `wait` gave up.

    Raises:
        DatabaseUnavailable: it refuses for a reason that does not pass: password, user, database.
        SchemaMismatch: the tables are missing or of another version.
    """
    tries = 0
    while True:
        try:
            schema.check(db)
        except DatabaseUnavailable as error:
            remedy = remedy_if_lasting(error)
            if remedy is not None:
                raise DatabaseUnavailable(error.message, remedy=remedy) from error
            if tries == 0:
                log.warning("waiting for PostgreSQL: %s", error.message)
        else:
            if tries:
                log.info("PostgreSQL is there")
            return True
        if wait(_AGAIN_S[min(tries, len(_AGAIN_S) - 1)]):
            return False
        tries += 1
