"""The heartbeat: a thread of its own that extends leases, renews hints and tells the loop what it has lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from shared.errors import AitaskError, HintsUnavailable
from shared.store import fleet, work
from shared.store.engine import Database
from shared.streams import Streams
from workers.holdings import Holding, Holdings

log = logging.getLogger("aitask.heartbeat")

# How often pauses are looked up: an operator should not wait for a third of a lease to see one work.
LOOK_S = 1.0


class Heartbeat:
    """Beats every third of the lease, whatever the event loop is doing.

    Args:
        report: makes the worker's row.
        lost: told the fences whose lease is gone, on this thread.
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
        report: Callable[[], fleet.WorkerReport],
        lost: Callable[[list[tuple[str, int]]], None],
        paused: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._db = db
        self._streams = streams
        self._holdings = holdings
        self._consumer = consumer
        self._lease_s = lease_s
        self._report = report
        self._lost = lost
        self._paused = paused
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="aitask-heartbeat", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        every = self._lease_s / 3
        step = min(LOOK_S, every)
        since_beat = every
        while True:
            try:
                self.look()
                if since_beat >= every:
                    since_beat = 0.0
                    self.beat()
            except AitaskError as error:
                # The reconciler ends no lease for a while after an outage, so nothing is lost by waiting.
                log.warning("no heartbeat: %s", error.message)
            if self._stop.wait(step):
                return
            since_beat += step

    def look(self) -> None:
        """Look up which families are paused."""
        self._paused({pause.family: pause.reason for pause in fleet.pauses(self._db)})

    def beat(self) -> None:
        """Extend every held lease, also those of finished calls whose result is not recorded yet."""
        fleet.report(self._db, self._report())
        held = self._holdings.snapshot()
        # Held in id order, as every statement locks rows.
        kept = work.heartbeat(self._db, sorted(h.fence for h in held), lease_s=self._lease_s)
        # What was recorded while the statement ran is not lost.
        still = {h.fence for h in self._holdings.snapshot()}
        lost = [h.fence for h in held if h.task.id not in kept and h.fence in still]
        if lost:
            self._lost(lost)
        try:
            self._renew([h for h in held if h.task.id in kept])
        except HintsUnavailable:
            log.debug("hints could not be renewed")

    def _renew(self, held: list[Holding]) -> None:
        by_family: dict[str, list[str]] = {}
        for holding in held:
            if holding.hint is not None:
                by_family.setdefault(holding.hint.family, []).append(holding.hint.entry_id)
        for family, entries in by_family.items():
            self._streams.renew(family, self._consumer, entries)
