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
            if not error.waits:
                raise
            if tries == 0:
                log.warning("waiting for PostgreSQL: %s", error.message)
        else:
            if tries:
                log.info("PostgreSQL is there")
            return True
        if wait(_AGAIN_S[min(tries, len(_AGAIN_S) - 1)]):
            return False
        tries += 1
