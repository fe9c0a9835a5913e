"""The worker: intake, calls, recorder, heartbeat and reconciler put together, from start to a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from secrets import token_hex
from typing import Any

from shared import servers
from shared.domain import Claimed
from shared.errors import AitaskError, DatabaseUnavailable, HintsUnavailable
from shared.families import Family
from shared.settings import Settings
from shared.store import facts, fleet, work
from shared.store.outage import wait_until_ready
from shared.streams import Hint, Ownership, costs
from workers.attempt import attempt
from workers.dbthread import DbThread
from workers.families.generic import Behaviour
from workers.gate import Gate, Limits
from workers.heartbeat import Heartbeat, LookOut
from workers.holdings import Holding, Holdings
from workers.housekeeping import Housekeeping
from workers.intake import Intake
from workers.keepalive import SIGNED_OUT, KeepAlive
from workers.parts import PartEnded, Parts
from workers.question import Contexts
from workers.reconciler import Reconciler
from workers.recorder import Recorder
from workers.transport import Transport
from workers.upstream import UpstreamClient

log = logging.getLogger("aitask.worker")

# honcho kills 5 s after SIGTERM; what has not ended by then would cost a lease.
DRAIN_S = 1.0
INTAKE_S = 0.6
RECORD_S = 1.6
GOODBYE_S = 0.3
_CONNECTIONS = 4
_MAKE_WAY_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """What one worker process is told besides the settings."""

    families: tuple[Family, ...]
    slots: int
    version: str
    leave: Callable[[Callable[[], bool]], bool] | None = None
    retired: Callable[[], None] | None = None


def consumer_name(families: tuple[Family, ...], settings: Settings) -> str:
    """A name of `WORKER_ID:host:pid:random`, unique for each start."""
    name = families[0].worker_id if len(families) == 1 else settings.worker_id
    return f"{name}:{socket.gethostname()}:{os.getpid()}:{token_hex(3)}"


class Worker:
    """One worker process."""

    def __init__(self, settings: Settings, options: Options) -> None:
        self.settings = settings
        self.options = options
        self.id = consumer_name(options.families, settings)
        self._stop = asyncio.Event()
        self._told_to_stop = threading.Event()
        self._closing = False
        self._left = False
        self._retiring = False
        self._parts = Parts()
        names = tuple(family.name for family in options.families)
        self._names = names
        self.db = servers.hot(settings, name=self.id, connections=_CONNECTIONS - 1)
        # The heartbeat waits for no other's statement.
        self._beating = servers.hot(settings, name=self.id)
        self._ownership = Ownership()
        self._streams = servers.streams(settings, ownership=self._ownership)
        self._hints = servers.hint_reader(settings, consumer=self.id, ownership=self._ownership)
        self._live = servers.live_publisher(settings)
        self._behaviours: dict[str, Behaviour] = {f.name: _behaviour(f, settings) for f in options.families}
        limits = {family.name: family.limit for family in options.families}
        self._gate = Gate(names, slots=options.slots, clock=time.monotonic, limits=limits)
        transport = Transport(options.slots)
        self._upstream = UpstreamClient(transport, max_answer_bytes=settings.max_answer_bytes)
        self._contexts = Contexts(transport)
        self._holdings = Holdings()
        self._limits = Limits(
            slots=options.slots,
            lease_s=settings.lease_s,
            deadline_s=settings.deadline_s,
            max_rescues=settings.max_rescues,
            max_failures=settings.max_failures,
        )
        self._recorder = Recorder(self.db, self._hints, self._holdings)
        self._reconciler = Reconciler(
            self.db, servers.streams(settings, ownership=self._ownership),
            families=names, lease_s=settings.lease_s, max_rescues=settings.max_rescues,
        )  # fmt: skip
        self._intake = Intake(
            self.db, self._hints, self._gate, self._holdings, self._limits,
            worker=self.id, families=names, start=self._begin, group_gone_for=self._reconciler.group_was_gone,
            origin=settings.origin,
        )  # fmt: skip
        self._leaving = DbThread("aitask-leave")
        loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(
            self._beating, self._holdings, lease_s=settings.lease_s, report=self._report,
            lost=partial(_on_loop, loop, self._holdings.lose),
        )  # fmt: skip
        self._look_out = LookOut(
            self.db, self._streams, self._holdings,
            consumer=self.id, lease_s=settings.lease_s, paused=partial(_on_loop, loop, self._set_pauses),
        )  # fmt: skip
        self._housekeeping = Housekeeping(
            self.db, self._intake, self._holdings, self._leaving, worker=self.id, families=names,
            lease_s=settings.lease_s, idle_exit_s=settings.idle_exit_s, leave=options.leave, left=self._gone,
            outdated=self.stop,
            origin=settings.origin,
        )  # fmt: skip
        self._keepalives = {
            name: KeepAlive(behaviour, self._upstream, self.db, self._leaving)
            for name, behaviour in self._behaviours.items()
        }

    def stop(self) -> None:
        """Ask for a graceful stop."""
        self._stop.set()
        self._told_to_stop.set()

    def retire(self) -> None:
        """Make way for a worker with newer settings: claim nothing more, let the calls end, then leave."""
        if not self._retiring and self.options.retired is not None:
            self._retiring = True
            self._intake.stop()
            self._parts.stopping()
            self._parts.watch("making way", asyncio.ensure_future(self._make_way()))

    async def _make_way(self) -> None:
        await self._intake.stopped()
        assert self.options.retired is not None
        self.options.retired()
        log.info("worker %s makes way for newer settings", self.id, extra={"calls": len(self._holdings)})
        while len(self._holdings):  # noqa: ASYNC110  (once in a worker's life)
            await asyncio.sleep(_MAKE_WAY_LOOK_S)
        self.stop()

    async def run(self) -> None:
        """Work until stopped, or until idle for long enough where the worker may leave.

        Raises:
            PartEnded: a part ended by itself; what was claimed is handed back, and results that wait are recorded.
            Unavailable: PostgreSQL refuses for a reason that does not pass, or its tables are missing.
        """
        ended = None
        try:
            if await self._leaving.call(self._get_ready):
                ended = await self._work()
        finally:
            await self._close()
        if ended is not None:
            raise ended

    def _get_ready(self) -> bool:
        """Wait for PostgreSQL, and know what is paused before anything is claimed. False: told to stop meanwhile."""
        while wait_until_ready(self.db, wait=self._wait_for_postgresql, besides=self._beating):
            try:
                self._look_out.look()
                self._know_redis()
                return True
            except DatabaseUnavailable:
                log.debug("PostgreSQL is gone again")
        return False

    def _know_redis(self) -> None:
        """Say what Redis costs as it is, and see whose namespace it is; on the local default all of it is ours."""
        if self.settings.origin is not None or self.settings.demo:
            return
        try:
            self._ownership.mine = facts.installation(self.db)
        except AitaskError as error:
            # A right that was taken away; what can't be told apart is not.
            log.debug("this installation has no name: %s", error.message)
        try:
            for cost in costs(self._streams.facts(self._names)):
                log.warning("Redis: %s (%s)", cost.cost, cost.remedy)
        except HintsUnavailable:
            log.debug("Redis is not asked what it costs: it is away")
        self._look_out.look_at_owner()

    def _wait_for_postgresql(self, seconds: float) -> bool:
        self._reconciler.database_was_away()
        return self._told_to_stop.wait(seconds)

    async def _work(self) -> PartEnded | None:
        """Run every part until told to stop, or until one ends by itself: that is returned."""
        await self._intake.prepare()
        intake = self._start_parts()
        log.info("worker %s is ready", self.id, extra={"families": ",".join(self._names), "slots": self.options.slots})
        stopped = asyncio.create_task(self._stop.wait())
        failed = asyncio.create_task(self._parts.wait())
        await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
        ended = failed.result() if failed.done() else None
        if ended is not None:
            log.error("%s; the worker hands back what it holds and ends", ended, exc_info=ended.__cause__)
        failed.cancel()
        self._closing = True
        self._parts.stopping()
        self._reconciler.stop()
        self._look_out.stop()
        await self._drain(intake, ended)
        self._heartbeat.stop()
        self._parts.cancel()
        stopped.cancel()
        return ended

    def _start_parts(self) -> asyncio.Task[None]:
        """Start every part. Returns the intake, which ends first when the worker stops."""
        self._parts.thread("heartbeat", self._heartbeat.run)
        self._parts.thread("look-out", self._look_out.run)
        self._parts.thread("reconciler", self._reconciler.run)
        self._parts.task("recorder", self._recorder.run())
        self._parts.task("live output", self._live.run())
        self._parts.task("housekeeping", self._housekeeping.run())
        self._parts.task("set-aside hints", self._intake.retry_locked())
        for name, keepalive in self._keepalives.items():
            self._parts.task(f"keep-alive of {name}", keepalive.run())
        return self._parts.task("intake", self._intake.run())

    def _begin(self, task: Claimed, hint: Hint | None) -> None:
        """Begin the call of a claimed task, or hand it back when the gate has closed meanwhile."""
        holding = Holding(task, hint)
        self._holdings.add(holding)
        if self._closing or not self._gate.begin(task.family, task.model):
            self._recorder.put(work.handed_back(task, run_in_s=0.0 if self._closing else 1.0))
            return
        self._housekeeping.busy()
        holding.call = asyncio.create_task(self._call(holding))
        # A call that ends in an error, which no upstream can cause, would leave its task held for ever.
        self._parts.watch("a call", holding.call)

    async def _call(self, holding: Holding) -> None:
        task = holding.task
        feed = self._live.open(task.id, task.attempt)
        try:
            result = await attempt(
                task,
                self._behaviours[task.family],
                self._upstream,
                self._gate,
                max_failures=self._limits.max_failures,
                on_piece=lambda piece: feed.piece(piece.text, reasoning=piece.reasoning),
                contexts=self._contexts,
            )
        except asyncio.CancelledError:
            result = work.handed_back(task)
        finally:
            self._live.end(feed)
            self._gate.end(task.family, task.model)
            self._intake.slot_freed()
        if result.error_kind == SIGNED_OUT:
            self._keepalives[task.family].poke()
        # A lost lease's result would be refused by the fence; the recorder clears its hint away.
        self._recorder.put(result)

    def _set_pauses(self, paused: Mapping[str, str]) -> None:
        self._gate.set_pauses(paused)
        self._intake.slot_freed()

    def _gone(self) -> None:
        """The worker has left: its row is away."""
        self._left = True
        self.stop()

    async def _drain(self, intake: asyncio.Task[None], ended: PartEnded | None) -> None:
        """Let calls end for a moment, hand the rest back, and write what there is to write."""
        self._intake.stop()
        running = [h.call for h in self._holdings.snapshot() if h.call is not None]
        if running:
            log.info("stopping; calls under way get a moment to end", extra={"calls": len(running)})
            await asyncio.wait(running, timeout=DRAIN_S)
        for holding in self._holdings.snapshot():
            if holding.call is not None and not holding.call.done():
                holding.call.cancel()
        await asyncio.wait({intake}, timeout=INTAKE_S)
        await self._record_the_rest(ended)
        if self._recorder.unwritten:
            log.warning("results could not be recorded before the stop", extra={"results": self._recorder.unwritten})

    async def _record_the_rest(self, ended: PartEnded | None) -> None:
        """Wait until all results are written; of a worker that nobody told to stop for up to a lease."""
        waited_for = {asyncio.create_task(self._recorder.drained())}
        if ended is not None:
            if ended.part == "recorder":
                waited_for.add(self._parts.task("recorder", self._recorder.run()))
            stopped = asyncio.create_task(self._stop.wait())
            await asyncio.wait(
                {*waited_for, stopped}, timeout=self.settings.lease_s, return_when=asyncio.FIRST_COMPLETED
            )
            stopped.cancel()
        await asyncio.wait(
            waited_for, timeout=RECORD_S if self._stop.is_set() else 0, return_when=asyncio.FIRST_COMPLETED
        )
        for task in waited_for:
            task.cancel()

    def _say_goodbye(self) -> None:
        fleet.leave(self.db, self.id)
        for family in self._names:
            self._streams.drop_consumer_if_idle(family, self.id)

    async def _close(self) -> None:
        if not self._left:
            try:
                await asyncio.wait_for(self._leaving.call(self._say_goodbye), GOODBYE_S)
            except (AitaskError, asyncio.TimeoutError):
                log.debug("the worker's row or its consumers stay behind")
        for part in (self._upstream, self._hints, self._live):
            await part.close()
        for database in (self.db, self._beating):
            database.close()
        log.info("worker %s has stopped", self.id)

    def _report(self) -> fleet.WorkerReport:
        return fleet.WorkerReport(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            families=() if self._retiring else self._names,
            slots=self.options.slots,
            in_flight=self._gate.running,
            lease_s=self.settings.lease_s,
            version=self.options.version,
            state=self._gate.describe(),
            origin=self.settings.origin,
        )


def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[Any], None], argument: Any) -> None:
    """Call a function on the loop from another thread; a loop that has ended needs it no more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, argument)


def _behaviour(family: Family, settings: Settings) -> Behaviour:
    """Find what the family does its own way: `workers/families/NAME.py`."""
    module = import_module(f"workers.families.{family.behaviour}")
    made: Behaviour = module.behaviour(family, settings)
    return made
