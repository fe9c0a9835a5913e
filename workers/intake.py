"""How a worker gets tasks: gate, read, claim. From the database alone while Redis is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from shared.domain import Claimed, HintFate
from shared.errors import AitaskError, DatabaseUnavailable, HintsUnavailable
from shared.outage import Outage
from shared.store import claims
from shared.store.claims import Paced, Terms
from shared.store.engine import Database
from shared.streams import Hint, HintReader, group_gone
from workers.dbthread import DbThread
from workers.gate import Gate, Limits
from workers.holdings import Holdings

log = logging.getLogger("aitask.intake")

# Redis may blink; only after this long is the database asked directly, and then this often.
AWAY_S = 2.0
POLL_S = 0.5
# A row that is merely locked is set aside and tried again after so long, twice as long each time.
LOCKED_RETRY_S = 0.05
LOCKED_RETRY_MOST_S = 1.0
# Of more the entries stay pending, to be taken over after a lease.
MOST_ASIDE = 1000
# Under load slots come free one by one; to fill them by the dozen costs a tenth, and waits at most this long.
GATHER_S = 0.01
GATHER_PART = 4
# Claimed at a time: with thousands of free slots the first calls need not wait for the last claim.
MOST_CLAIMED = 240
_DATABASE_RETRY_S = 0.5
# How often a family is looked through for tasks behind those that were put off.
LOOK_BEHIND_S = 0.2
# XAUTOCLAIM looks at this many entries a call.
_TAKE_OVER_MOST = 100

T = TypeVar("T")
Start = Callable[[Claimed, "Hint | None"], None]


@dataclass(frozen=True, slots=True)
class _Aside:
    """A hint whose row was locked, when it is tried again (monotonic), and how long it waited for that."""

    hint: Hint
    at: float
    after_s: float


class Intake:
    """Reads hints and claims their tasks, as many as may begin now.

    Args:
        start: begins the call of a claimed task; called on the loop.
        group_gone_for: told of a family whose group had to be made again.
        origin: on the local default, under whose settings tasks were asked that may be called here.
    """

    def __init__(
        self,
        db: Database,
        hints: HintReader,
        gate: Gate,
        holdings: Holdings,
        limits: Limits,
        *,
        worker: str,
        families: tuple[str, ...],
        start: Start,
        group_gone_for: Callable[[str], None],
        origin: str | None = None,
    ) -> None:
        self._db = db
        self._hints = hints
        self._gate = gate
        self._holdings = holdings
        self._limits = limits
        self._worker = worker
        self._families = families
        self._start = start
        self._group_gone_for = group_gone_for
        self._origin = origin
        self._thread = DbThread("aitask-claim")
        self._outage = Outage(log, "nothing can be claimed: %s", "tasks are claimed again")
        self._suspect_from = max(1, limits.max_rescues - 1)
        self._away_since: float | None = None
        self._stopping = False
        self._changed = asyncio.Event()
        self._cursors = dict.fromkeys(families, "0-0")
        self._claim_lock = asyncio.Lock()
        self._aside: dict[str, _Aside] = {}
        self._behind: set[str] = set()
        self._unsure = False
        self._looked_behind_at = 0.0

    def stop(self) -> None:
        """Take nothing more."""
        self._stopping = True
        self._changed.set()

    async def stopped(self) -> None:
        """Wait, once told to stop, until no claim is under way any more."""
        async with self._claim_lock:
            pass

    def slot_freed(self) -> None:
        """A slot is free, or the gate has changed."""
        self._changed.set()

    async def prepare(self) -> None:
        """Make the consumer groups, if Redis is there."""
        await self._quietly(self._hints.ensure_groups(self._families))

    async def run(self) -> None:
        """Take tasks until stopped."""
        while not self._stopping:
            chosen, each = self._gate.plan()
            if chosen and each * len(chosen) < self._gate.slots // GATHER_PART and self._gate.running:
                await asyncio.sleep(GATHER_S)
                chosen, each = self._gate.plan()
            if not chosen:
                await self._wait(0.2)
            elif self._away_since is not None and time.monotonic() - self._away_since > AWAY_S:
                await self._poll(chosen, each)
            else:
                await self._read(chosen, each)

    async def _wait(self, seconds: float) -> None:
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    async def _read(self, chosen: list[str], each: int) -> None:
        try:
            hints = await self._hints.read(chosen, each=max(1, min(each, MOST_CLAIMED // len(chosen))))
        except HintsUnavailable as error:
            await self._redis_failed(error, chosen)
            return
        self._redis_back()
        if hints:
            await self.take(hints)

    async def _redis_failed(self, error: HintsUnavailable, families: Iterable[str]) -> None:
        if group_gone(error):
            log.warning("consumer groups were gone and are made again")
            for family in families:
                self._group_gone_for(family)
            try:
                await self._hints.ensure_groups(self._families)
                return
            except HintsUnavailable as second:
                error = second
        if self._away_since is None:
            log.warning("Redis is away; tasks go on from the database: %s", error.message)
            self._away_since = time.monotonic()
        await self._wait(0.1)

    def _redis_back(self) -> None:
        if self._away_since is not None:
            log.info("Redis is back")
            self._away_since = None

    async def _poll(self, chosen: list[str], each: int) -> None:
        """Claim straight from the database, and see whether Redis is back."""
        began = 0
        for family in chosen:
            due = partial(claims.claim_due, self._db, family, *self._terms(), most=min(each, MOST_CLAIMED))
            began += self._begin((task, None) for task in await self._claiming(due) or [])
        try:
            await self._hints.ensure_groups(self._families)
            self._redis_back()
        except HintsUnavailable:
            # A full hand means that there is more.
            await self._wait(0.02 if began >= min(each, MOST_CLAIMED) else POLL_S)

    async def take(self, hints: list[Hint]) -> None:
        """Claim what these hints name; every hint ends claimed, set aside, discarded, buried or handed on."""
        nameless = [hint for hint in hints if hint.task_id is None]
        named: dict[str, Hint] = {}
        spare = []
        for hint in hints:
            if hint.task_id is not None and named.setdefault(hint.task_id, hint) is not hint:
                spare.append(hint)
        await self._quietly(self._hints.bury(nameless, reason="names no task"))
        await self._quietly(self._hints.discard(spare))
        while named and not self._stopping:
            if await self._claim(named):
                self._set_aside(named)
                return
            await self._wait(_DATABASE_RETRY_S)
        await self._hand_on(named)

    async def _claim(self, named: dict[str, Hint]) -> bool:
        """Claim what these hints name; those whose rows are locked are left in it. Returns False without a database."""
        result = await self._claiming(partial(claims.claim, self._db, list(named), *self._terms()))
        if result is None:
            return False
        claimed, fates = result
        self._begin((task, named.pop(task.id)) for task in claimed)
        done = [named.pop(task_id) for task_id, fate in fates.items() if fate in (HintFate.DONE, HintFate.PUT_OFF)]
        self._note_put_off(hint for hint in done if fates[hint.task_id or ""] is HintFate.PUT_OFF)
        unknown = [named.pop(task_id) for task_id, fate in fates.items() if fate is HintFate.UNKNOWN]
        await self._quietly(self._hints.discard(done))
        await self._quietly(self._hints.bury(unknown, reason="no such task"))
        return True

    def _note_put_off(self, hints: Iterable[Hint]) -> None:
        """Behind tasks of a model that is left alone others may wait: their families are looked through."""
        for family, number in Counter(hint.family for hint in hints).items():
            self._gate.passed(family, number)
            self._behind.add(family)

    async def _look_behind(self) -> None:
        """Claim due tasks of other models past those that were put off, without waiting for their hints' turn."""
        if not self._behind or time.monotonic() - self._looked_behind_at < LOOK_BEHIND_S:
            return
        self._looked_behind_at = time.monotonic()
        behind, self._behind = self._behind, set()
        for family in behind:
            most = min(self._gate.room(family), MOST_CLAIMED)
            if most <= 0:
                continue
            due = partial(claims.claim_due, self._db, family, *self._terms(), most=most)
            self._begin((task, None) for task in await self._claiming(due) or [])

    def _set_aside(self, locked: dict[str, Hint], *, after_s: float = LOCKED_RETRY_S) -> None:
        """Keep hints whose rows somebody else has locked for later: the reader goes on."""
        for task_id, hint in locked.items():
            if len(self._aside) < MOST_ASIDE:
                self._aside.setdefault(task_id, _Aside(hint, time.monotonic() + after_s, after_s))

    async def retry_locked(self) -> None:
        """Try again, for ever, what was set aside, as slots allow."""
        while not self._stopping:
            await asyncio.sleep(LOCKED_RETRY_S)
            self._behind |= self._gate.warmed()
            await self._look_behind()
            due = self._due_aside()
            for task_id in due:
                del self._aside[task_id]
            named = {task_id: aside.hint for task_id, aside in due.items()}
            if named and await self._claim(named):
                due = {task_id: due[task_id] for task_id in named}
            for task_id, aside in due.items():
                after_s = min(LOCKED_RETRY_MOST_S, 2 * aside.after_s)
                self._set_aside({task_id: aside.hint}, after_s=after_s)
        await self._hand_on({task_id: aside.hint for task_id, aside in self._aside.items()})

    def _due_aside(self) -> dict[str, _Aside]:
        """What may be tried again now: its time has come and its family has room."""
        now = time.monotonic()
        room = {family: self._gate.room(family) for family in self._families}
        due: dict[str, _Aside] = {}
        for task_id, aside in list(self._aside.items()):
            family = aside.hint.family
            if aside.at <= now and room.get(family, 0) > 0 and len(due) < self._gate.slots - self._gate.running:
                room[family] -= 1
                due[task_id] = aside
        return due

    async def _hand_on(self, named: dict[str, Hint]) -> None:
        """Stopped in between: others get these at once instead of after a lease."""
        resend = [(hint.family, task_id) for task_id, hint in named.items()]
        await self._quietly(self._hints.discard(list(named.values()), resend=resend))

    async def _claiming(self, function: Callable[[], T]) -> T | None:
        """Claim, one at a time, or return None when the database is away: then nothing new is claimed."""
        async with self._claim_lock:
            if self._stopping:
                return None
            try:
                if self._unsure:
                    await self._give_back_what_nobody_knows_of()
                claimed = await self._thread.call(function)
            except AitaskError as error:
                # It may have been committed all the same, and the reply lost.
                self._unsure = self._unsure or (isinstance(error, DatabaseUnavailable) and error.unknown)
                self._outage.met(error)
                return None
            self._outage.over()
            return claimed

    async def _give_back_what_nobody_knows_of(self) -> None:
        """Give back tasks that are this worker's by a claim whose reply was lost: nobody beats for them."""
        held = [holding.task.id for holding in self._holdings.snapshot()]
        given = await self._thread.call(partial(claims.give_back, self._db, worker=self._worker, held=held))
        self._unsure = False
        if given:
            log.warning("a claim's reply was lost; its tasks are given back", extra={"tasks": len(given)})

    def _begin(self, claimed: Iterable[tuple[Claimed, Hint | None]]) -> int:
        number = 0
        for task, hint in claimed:
            number += 1
            self._start(task, hint)
        return number

    async def take_over(self) -> None:
        """Take over entries that have been idle for longer than a lease, the cursor carried on from pass to pass.

        Idle time does not prove a task abandoned: the claim looks at the database's lease.
        """
        chosen, each = self._gate.plan()
        for family in [] if self._stopping else chosen:
            try:
                cursor, hints = await self._hints.take_over(
                    family,
                    idle_s=self._limits.lease_s,
                    cursor=self._cursors[family],
                    most=min(each, _TAKE_OVER_MOST),
                )
            except HintsUnavailable:
                return
            self._cursors[family] = cursor
            if hints:
                await self.take(hints)

    async def take_overdue(self) -> None:
        """Claim what has waited for a hint for too long: a Redis that is full can be read and takes no hint."""
        chosen, each = self._gate.plan()
        for family in [] if self._stopping else chosen:
            overdue = partial(claims.claim_overdue, self._db, family, *self._terms(), most=min(each, MOST_CLAIMED))
            self._begin((task, None) for task in await self._claiming(overdue) or [])

    async def take_suspect(self) -> bool:
        """Claim one task that workers have died on, if none is held: alone, so that it can hurt no other twice.

        Returns whether one is held now.
        """
        if self._holdings.has_suspect(self._suspect_from):
            return True
        open_now = [family for family in self._families if self._gate.room(family) > 0]
        if not open_now or self._stopping:
            return False
        task = await self._claiming(partial(claims.claim_suspect, self._db, open_now, *self._terms()))
        if task is not None:
            self._begin([(task, None)])
        return task is not None

    async def _quietly(self, said: Awaitable[None]) -> None:
        """What Redis does not take now is done later by whoever meets the entry again."""
        try:
            await said
        except HintsUnavailable:
            log.debug("hints could not be put away")

    def _terms(self) -> tuple[Terms, list[Paced]]:
        limits = self._limits
        terms = Terms(self._worker, limits.lease_s, limits.deadline_s, limits.max_rescues, self._origin)
        return terms, self._gate.paced()
