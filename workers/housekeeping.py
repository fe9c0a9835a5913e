"""A worker's errands: suspects, what no hint came for, entries left by the dead, and whether it is time to leave."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from shared.errors import AitaskError, SchemaMismatch
from shared.store import fleet, schema
from shared.store.engine import Database
from workers.dbthread import DbThread
from workers.holdings import Holdings
from workers.intake import Intake

log = logging.getLogger("aitask.worker")

EVERY_S = 1.0
_NEXT_SUSPECT_S = 0.1

Leave = Callable[[Callable[[], bool]], bool]


class Housekeeping:
    """Goes round once a second.

    Args:
        leave: where the worker may leave when idle, what does it: given a last check, it returns whether it left.
        left: told when the worker has left.
        outdated: told when the tables no longer serve this release.
    """

    def __init__(
        self,
        db: Database,
        intake: Intake,
        holdings: Holdings,
        thread: DbThread,
        *,
        worker: str,
        families: Sequence[str],
        lease_s: float,
        idle_exit_s: float,
        leave: Leave | None,
        left: Callable[[], None],
        outdated: Callable[[], None],
        origin: str | None = None,
    ) -> None:
        self._db = db
        self._intake = intake
        self._holdings = holdings
        self._thread = thread
        self._worker = worker
        self._families = families
        self._lease_s = lease_s
        self._idle_exit_s = idle_exit_s
        self._leave = leave
        self._left = left
        self._outdated = outdated
        self._connects = db.connects
        self._look_again_at = time.monotonic() + lease_s
        self._origin = origin
        self._busy_at = time.monotonic()

    def busy(self) -> None:
        """A call has begun."""
        self._busy_at = time.monotonic()

    async def run(self) -> None:
        """Go round for ever."""
        take_over_at = due_at = 0.0
        while True:
            # Suspects go one at a time: the next one need not wait as long as housekeeping does.
            await asyncio.sleep(_NEXT_SUSPECT_S if await self._intake.take_suspect() else EVERY_S)
            if time.monotonic() < due_at:
                continue
            due_at = time.monotonic() + EVERY_S
            await self._look_at_the_tables()
            await self._intake.take_overdue()
            if time.monotonic() >= take_over_at:
                await self._intake.take_over()
                take_over_at = time.monotonic() + self._lease_s / 3
            if self._leave is not None and await self._may_leave(self._leave):
                self._left()

    async def _look_at_the_tables(self) -> None:
        """Look, with every new connection and once a lease, whether a migration left this release behind."""
        if self._db.connects == self._connects and time.monotonic() < self._look_again_at:
            return
        self._connects, self._look_again_at = self._db.connects, time.monotonic() + self._lease_s
        try:
            await self._thread.call(lambda: schema.check(self._db))
        except SchemaMismatch as error:
            log.error("this worker drains: %s", error)
            self._outdated()
        except AitaskError:
            # Away: looked at again with the connection that ends the outage.
            self._connects = -1

    async def _may_leave(self, leave: Leave) -> bool:
        """Leave when nothing has been left to do for a while; `leave` asks once more under its lock."""
        if len(self._holdings) or await self._thread.call(self._work_left):
            self._busy_at = time.monotonic()
        if time.monotonic() - self._busy_at < self._idle_exit_s:
            return False
        return await self._thread.call(lambda: leave(self._nothing_left))

    def _work_left(self) -> bool:
        try:
            return fleet.work_left(self._db, self._families, self._origin)
        except AitaskError:
            return False

    def _nothing_left(self) -> bool:
        """Asked under the lock that keeps new submissions out."""
        if len(self._holdings) or self._work_left():
            return False
        try:
            fleet.leave(self._db, self._worker)
        except AitaskError:
            log.debug("the worker's row stays behind")
        return True
