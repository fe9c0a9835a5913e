"""What a long-running part does when PostgreSQL is away at its start: wait for what passes, end for what does not."""

from __future__ import annotations

import logging
from collections.abc import Callable

from shared.errors import DatabaseUnavailable
from shared.store import schema
from shared.store.engine import Database

log = logging.getLogger("aitask.database")

# How long between two looks, in seconds.
_AGAIN_S = (0.2, 0.5, 1.0, 2.0)


def wait_until_ready(db: Database, *, wait: Callable[[float], bool], besides: Database | None = None) -> bool:
    """Wait until PostgreSQL serves tables of this version.

    Args:
        besides: what must have a connection too while all of `db`'s are open.
        wait: waits so many seconds and returns whether to give up.

    Returns:
        Whether it serves; False when `wait` gave up.

    Raises:
        DatabaseUnavailable: it refuses for a reason that does not pass: password, user, database, too few connections.
        SchemaMismatch: the tables are missing or of another version.
    """
    tries = 0
    while True:
        try:
            schema.check(db)
            schema.check_writable(db)
            _check_room(db, besides)
        except DatabaseUnavailable as error:
            if not error.waits:
                raise
            if tries == 0:
                log.warning("waiting for PostgreSQL: %s", error)
        else:
            if tries:
                log.info("PostgreSQL is there")
            return True
        if wait(_AGAIN_S[min(tries, len(_AGAIN_S) - 1)]):
            return False
        tries += 1


def _check_room(db: Database, besides: Database | None) -> None:
    """Refuse a server or pooler that hands out one connection at a time: who waits for a row would stop all others."""
    found = db.room()
    if found < min(2, db.connections):
        raise DatabaseUnavailable(
            f"PostgreSQL, or the pooler before it, gives only {found} connection at a time; a worker uses 4",
            remedy="raise PgBouncer's default_pool_size, or the CONNECTION LIMIT of the user or database",
            waits=False,
        )
    if found < db.connections:
        log.warning("PostgreSQL, or the pooler before it, gives only %d of %d connections", found, db.connections)
    if besides is not None and besides.room() < besides.connections:
        # Ours are idle now: only in session mode does a pooler keep them for us.
        db.close()
        raise DatabaseUnavailable(
            f"the pooler before PostgreSQL has none left for the heartbeat while {found} are open and idle",
            remedy="set PgBouncer's pool_mode = transaction, or its default_pool_size to 4 for each worker and gateway",
        )
