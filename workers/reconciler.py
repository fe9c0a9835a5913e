"""The reconciler: in every worker, one at a time, every second. It alone ends leases and re-sends lost hints."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shared.errors import AitaskError, HintsUnavailable
from shared.outage import Outage
from shared.store import fleet, operate, recovery
from shared.store.engine import Database
from shared.streams import WATERMARK_GRACE_S, Streams
from workers.grace import Grace

log = logging.getLogger("aitask.reconciler")

TICK_S = 1.0
# A lease that ends before the next tick is due has one of its own, so much after it.
LEASE_OVER_S = 0.02
# A Redis that answers nothing is asked for no longer in one tick: leases must go on ending.
ASK_REDIS_S = 1.5
# A family whose gate is closed is not read from; only after so long is its consumer taken for dead.
DEAD_CONSUMER_S = 3600.0


def hint_is_gone_before(
    *, redis_now: dt.datetime, safe_until: dt.datetime, database_now: dt.datetime, grace_s: float
) -> dt.datetime:
    """Return the database time before which a hint that is still owed must be gone.

    `safe_until` is in Redis' time: what the two clocks differ by is taken out, and the grace covers the moment between
    a commit and its XADD. Source: design.md, "Reconciler".
    """
    offset = redis_now - database_now
    return min(safe_until, redis_now) - offset - dt.timedelta(seconds=grace_s)


def until_next_tick(next_lease_s: float | None) -> float:
    """Return how long to wait, in seconds: until the next lease ends, if that is before a tick would be due.

    One that is over already is ended by this tick, or must wait for reasons of its own.
    """
    if next_lease_s is None or next_lease_s <= 0:
        return TICK_S
    return min(TICK_S, next_lease_s + LEASE_OVER_S)


# A family, and on the local default the origin of its tasks: one stream.
Queue = tuple[str, "str | None"]


class Reconciler:
    """Carries out a tick a second on a thread of its own."""

    def __init__(
        self, db: Database, streams: Streams, *, families: Sequence[str], lease_s: float, max_rescues: int
    ) -> None:
        self._db = db
        self._families = families
        self._streams = streams
        self._lease_s = lease_s
        self._max_rescues = max_rescues
        self._stop = threading.Event()
        self._grace = Grace(lease_s)
        self._outage = Outage(log, "the reconciler waits: %s")
        self._pauses_stay = Outage(log, "pauses that are over cannot be lifted yet: %s")
        self._made_anew: set[str] = set()
        # Rows that refuse to be ended or stamped, tried again once a lease.
        self._refused: set[str] = set()
        self._wait_s = TICK_S

    def stop(self) -> None:
        self._stop.set()

    def database_was_away(self) -> None:
        """PostgreSQL was away when this worker started: others could not beat either."""
        self._grace.outage_seen()

    def group_was_gone(self, family: str) -> None:
        """A reader found the family's group gone: all earlier hints went with it, so none needs a grace."""
        self._made_anew.add(family)

    def run(self) -> None:
        """Tick until stopped."""
        swept = time.monotonic()
        while not self._stop.wait(self._wait_s):
            self._wait_s = TICK_S
            if time.monotonic() - swept > self._lease_s:
                swept = time.monotonic()
                self._refused.clear()
                self.sweep()
            try:
                while self.tick():
                    pass
                if self._outage.over():
                    self._grace.outage_seen()
            except AitaskError as error:
                self._outage.met(error)

    def sweep(self) -> None:
        """Remove consumers of workers that are gone: a living one reads all the time, if only in vain."""
        for family in self._families:
            try:
                gone = self._streams.drop_dead_consumers(family, idle_s=max(DEAD_CONSUMER_S, 3 * self._lease_s))
            except HintsUnavailable:
                return
            if gone:
                log.info("dead consumers are removed", extra={"family": family, "consumers": gone})

    def tick(self) -> bool:
        """Do what is due. Returns whether a full portion of hints was sent, so that more may be waiting.

        Redis is asked between two transactions, never in one: a Redis that stalls must not hold up who ends leases.
        """
        waiting = self._end_what_is_over()
        if waiting is None:
            return False
        marks = self._hints_gone_before(waiting)
        with self._turn() as turn:
            found = (
                {queue: turn.take_unhinted(queue[0], mark, queue[1]) for queue, mark in marks.items()} if turn else {}
            )
        owed = [(family, task_id) for (family, _), ids in found.items() for task_id in ids]
        if owed:
            log.debug("hints are sent again", extra={"hints": len(owed)})
            try:
                for (family, origin), ids in found.items():
                    self._streams.of(origin).send([(family, task_id) for task_id in ids])
            except HintsUnavailable:
                # Still owed, and seen to be: workers claim what stays without a hint.
                operate.owe_hints(self._db, [task_id for _, task_id in owed])
                return False
        return len(owed) >= recovery.SEND_AT_ONCE

    @contextmanager
    def _turn(self) -> Iterator[recovery.Tick | None]:
        with recovery.tick(self._db, max_rescues=self._max_rescues, refused=self._refused) as turn:
            yield turn
        for task_id, error in turn.refusals if turn is not None else ():
            log.error("a row refuses what must be done with it: %s", error.message, extra={"task_id": task_id})

    def _end_what_is_over(self) -> tuple[dt.datetime, list[Queue]] | None:
        """End leases, deadlines and pauses. Returns the database's time and where tasks are waiting.

        None: another reconciler has the turn.
        """
        with self._turn() as turn:
            if turn is None:
                return None
            clock = turn.clock()
            self._wait_s = until_next_tick(clock.next_lease_s)
            expired = turn.expire_leases() if self._may_end_leases(clock) else []
            late = turn.enforce_deadlines()
            queues = self._queues(turn)
        for task_id, kind in expired:
            log.warning("a lease ran out", extra={"task_id": task_id, "kind": kind})
        for task_id in late:
            log.warning("a task is past its deadline", extra={"task_id": task_id})
        self._end_pauses()
        return clock.now, queues

    def _end_pauses(self) -> None:
        """Lift pauses whose time is over. That waits for every row of a family; when it can not, nothing else stops."""
        try:
            fleet.end_pauses(self._db)
            self._pauses_stay.over()
        except AitaskError as error:
            self._pauses_stay.met(error)

    def _may_end_leases(self, clock: recovery.Clock) -> bool:
        """Workers that could not beat because the database was away get a whole lease to beat again."""
        over = self._grace.is_over(
            server_started=clock.server_started,
            up_s=clock.up_s,
            primary_for_s=lambda: recovery.primary_for_s(self._db),
        )
        return over and not self._outage.on

    def _hints_gone_before(self, waiting: tuple[dt.datetime, list[Queue]]) -> dict[Queue, dt.datetime]:
        """Ask Redis, for each family, before which database time a hint that is still owed must be gone.

        A family of which Redis says nothing has to wait for the next tick; workers claim from the database meanwhile.
        """
        database_now, queues = waiting
        marks = {}
        give_up_at = time.monotonic() + ASK_REDIS_S
        for queue in queues:
            try:
                marks[queue] = self._gone_before(queue, database_now)
            except HintsUnavailable:
                if time.monotonic() > give_up_at:
                    break
        return marks

    def _queues(self, turn: recovery.Tick) -> list[Queue]:
        """Every family that has tasks waiting; on the local default each with every origin of them."""
        families = turn.waiting_families()
        if self._streams.origin is None:
            return [(family, None) for family in families]
        return [(family, origin) for family in families for origin in turn.origins(family)]

    def _gone_before(self, queue: Queue, database_now: dt.datetime) -> dt.datetime:
        family, origin = queue
        streams = self._streams.of(origin)
        mark = streams.watermark(family)
        if mark is None:
            streams.ensure_group(family)
            # Without a group nothing was ever delivered, and whatever was sent went with it.
            return database_now
        anew = origin == self._streams.origin and family in self._made_anew
        if anew:
            self._made_anew.discard(family)
        return hint_is_gone_before(
            redis_now=mark.redis_now,
            safe_until=mark.safe_until,
            database_now=database_now,
            grace_s=0.0 if anew else WATERMARK_GRACE_S,
        )
