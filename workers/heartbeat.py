"""The heartbeat: by the clock, on a thread and a connection of its own; beside it the look-out, which may be late."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from shared.errors import AitaskError, HintsUnavailable
from shared.store import fleet, work
from shared.store.engine import Database
from shared.streams import Streams
from workers.holdings import Holding, Holdings

log = logging.getLogger("aitask.heartbeat")

# How often pauses are looked up: an operator should not wait for a third of a lease to see one work.
LOOK_S = 1.0
# A beat that failed is tried again at once, then this often: each miss brings the leases nearer to their end.
AGAIN_S = 0.2
# A row that somebody has locked can't be extended; it must be as soon as it is free.
LOCKED_AGAIN_S = 0.1


class Heartbeat:
    """Extends leases every third of the lease, whatever the event loop, Redis or another connection is doing.

    Args:
        db: a connection of its own.
        report: makes the worker's row.
        lost: told the fences whose lease is gone, on this thread.
    """

    def __init__(
        self,
        db: Database,
        holdings: Holdings,
        *,
        lease_s: float,
        report: Callable[[], fleet.WorkerReport],
        lost: Callable[[list[tuple[str, int]]], None],
    ) -> None:
        self._db = db
        self._holdings = holdings
        self._lease_s = lease_s
        self._report = report
        self._lost = lost
        self._stop = threading.Event()
        self._failures = 0

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Beat until stopped, each beat a third of a lease after the last one's beginning."""
        while not self._stop.is_set():
            began = time.monotonic()
            wait_s = self._beat_once()
            self._stop.wait(max(0.0, began + wait_s - time.monotonic()))

    def _beat_once(self) -> float:
        """Beat. Returns how long after its beginning the next one is due, in seconds."""
        every_s = self._lease_s / 3
        try:
            locked = self.beat()
        except AitaskError as error:
            # The reconciler ends no lease for a while after an outage of the database itself.
            if self._failures == 0:
                log.warning("no heartbeat: %s", error.message)
            self._failures += 1
            return 0.0 if self._failures == 1 else min(AGAIN_S, every_s)
        self._failures = 0
        return min(LOCKED_AGAIN_S, every_s) if locked else every_s

    def beat(self) -> int:
        """Extend every held lease, also those of finished calls whose result is not recorded yet.

        Returns how many could not be extended because somebody has their rows locked.
        """
        held = self._holdings.snapshot()
        # Held in id order, as every statement locks rows.
        extended = work.heartbeat(self._db, sorted(h.fence for h in held), lease_s=self._lease_s)
        missing = [h.fence for h in held if h.task.id not in extended]
        locked = work.still_held(self._db, missing) if missing else set()
        # What was recorded while the statements ran is not lost.
        still = {h.fence for h in self._holdings.snapshot()} if missing else set()
        lost = [fence for fence in missing if fence[0] not in locked and fence in still]
        if lost:
            self._lost(lost)
        fleet.report(self._db, self._report())
        return len(locked & {task_id for task_id, _ in still})


class LookOut:
    """What is due now and then and may be late: which families are paused, and the idle time of held entries.

    Args:
        paused: told the paused families and why, on this thread.
    """

    def __init__(
        self,
        db: Database,
        streams: Streams,
        holdings: Holdings,
        *,
        consumer: str,
        lease_s: float,
        paused: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._db = db
        self._streams = streams
        self._holdings = holdings
        self._consumer = consumer
        self._lease_s = lease_s
        self._paused = paused
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Look and renew until stopped."""
        renew_at = time.monotonic()
        while True:
            try:
                self.look()
            except AitaskError as error:
                log.debug("pauses can't be looked up: %s", error.message)
            self.look_at_owner()
            if time.monotonic() >= renew_at:
                renew_at = time.monotonic() + self._lease_s / 3
                self.renew()
            if self._stop.wait(min(LOOK_S, self._lease_s / 3)):
                return

    def look(self) -> None:
        """Look up which families are paused."""
        self._paused(self.paused_now())

    def paused_now(self) -> dict[str, str]:
        """The paused families, and why."""
        return {pause.family: pause.reason for pause in fleet.pauses(self._db)}

    def look_at_owner(self) -> None:
        """See now and then whose namespace it is, and say so where it is another's."""
        ownership, before = self._streams.ownership, self._streams.ownership.owner
        try:
            if ownership.due:
                self._streams.look_at_owner()
            if ownership.owner != before:
                ownership.refuse(self._streams.keys)
                log.info("the namespace %r is this installation's", self._streams.namespace)
        except HintsUnavailable as error:
            if ownership.owner != before:
                log.warning("%s; tasks go on from the database", error)

    def renew(self) -> None:
        """Set the idle time of the held entries back, so that nobody takes them over."""
        try:
            for family, entries in _entries(self._holdings.snapshot()).items():
                self._streams.renew(family, self._consumer, entries)
        except HintsUnavailable:
            log.debug("hints could not be renewed")


def _entries(held: list[Holding]) -> dict[str, list[str]]:
    by_family: dict[str, list[str]] = {}
    for holding in held:
        if holding.hint is not None and not holding.lost:
            by_family.setdefault(holding.hint.family, []).append(holding.hint.entry_id)
    return by_family
