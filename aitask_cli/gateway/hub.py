"""The hub: one reader of the database and of live output for every watcher of this process.

A thousand watchers cost one question to each server per round, however many batches they watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from aitask_cli.gateway.threads import Threads
from shared.domain import TaskState, TaskStatus, TaskView
from shared.errors import AitaskError, DatabaseUnavailable, NotFound
from shared.live import LivePiece, LiveTail
from shared.outage import Outage
from shared.store import read
from shared.store.engine import Database

log = logging.getLogger("aitask.gateway")

T = TypeVar("T")

TICK_S = 0.1
STATES_EVERY_S = 0.5
_AWAY_S = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing a watcher is told.

    `kind` is `state` (a task's state changed; `task` has the whole row once it has ended), `text` (a piece of a
    running answer) or `done` (every task has ended).
    """

    kind: str
    state: TaskState | None = None
    task: TaskView | None = None
    piece: LivePiece | None = None


@dataclass(slots=True)
class Position:
    """How much of one task a watcher has been told."""

    attempt: int = 0
    status: int = -1
    entry: str = "0-0"


class Cursor:
    """How much of a batch a watcher has been told; as text, the id of the event that told it."""

    _PART = re.compile(r"(\d{1,4})\.(\d{1,9})\.(-?\d)\.(\d{1,15}-\d{1,10})")

    def __init__(self, text: str | None = None) -> None:
        """Read a cursor. One that is malformed is none: the watcher begins at the start."""
        self.tasks: dict[int, Position] = {}
        for part in (text or "").split(","):
            match = self._PART.fullmatch(part)
            if match is None:
                self.tasks.clear()
                return
            self.tasks[int(match[1])] = Position(int(match[2]), int(match[3]), match[4])

    def at(self, position: int) -> Position:
        return self.tasks.setdefault(position, Position())

    def __str__(self) -> str:
        return ",".join(f"{number}.{p.attempt}.{p.status}.{p.entry}" for number, p in sorted(self.tasks.items()))


@dataclass(slots=True)
class _Watched:
    states: list[TaskState]
    ended: dict[str, TaskView] = field(default_factory=dict)
    pieces: dict[tuple[str, int], list[tuple[str, LivePiece]]] = field(default_factory=dict)
    watchers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def finished(self) -> bool:
        return all(state.status.terminal and state.id in self.ended for state in self.states)

    def tell(self) -> None:
        """Wake every watcher."""
        event, self.changed = self.changed, asyncio.Event()
        event.set()


class Busy(Exception):
    """As many watchers wait as may."""


class Hub:
    """Follows batches for as long as somebody watches them.

    Args:
        most: watchers at once.
    """

    def __init__(self, db: Database, tail: LiveTail, threads: Threads, *, most: int) -> None:
        self._most = most
        self._db = db
        self._tail = tail
        self._threads = threads
        self._watched: dict[str, _Watched] = {}
        self._wanted = asyncio.Event()

    def admit(self) -> None:
        """Check that one more may watch, before anything is done for it.

        Raises:
            Busy: none may.
        """
        if sum(watched.watchers for watched in self._watched.values()) >= self._most:
            raise Busy(f"{self._most} requests wait for answers, and no more may: AITASK_GATEWAY_WATCHERS")

    async def follow(self, batch_id: str, cursor: Cursor, *, idle_s: float = 15.0) -> AsyncIterator[Step | None]:
        """Yield what happens in a batch after the cursor, which is moved on, until every task has ended.

        Yields None when nothing has happened for `idle_s` seconds.

        Raises:
            NotFound: there is no such batch.
        """
        watched = await self._watch(batch_id)
        try:
            while True:
                changed = watched.changed
                for step in _news(watched, cursor):
                    yield step
                if watched.finished:
                    yield Step("done")
                    return
                if watched.changed is changed:
                    try:
                        await asyncio.wait_for(changed.wait(), idle_s)
                    except asyncio.TimeoutError:
                        yield None
        finally:
            watched.watchers -= 1
            if watched.watchers == 0 and self._watched.get(batch_id) is watched:
                del self._watched[batch_id]

    async def _watch(self, batch_id: str) -> _Watched:
        watched = self._watched.get(batch_id)
        if watched is None:
            states = (await _in_time(lambda: self._states(batch_id))).get(batch_id)
            if states is None:
                raise NotFound(f"no batch {batch_id}")
            # Another may have begun to watch it meanwhile.
            watched = self._watched.setdefault(batch_id, _Watched([]))
            if not watched.states:
                await _in_time(partial(self._take_states, {batch_id: watched}, {batch_id: states}))
        watched.watchers += 1
        self._wanted.set()
        return watched

    async def _states(self, batch_id: str) -> dict[str, list[TaskState]]:
        return await self._threads.run(lambda: read.states_of(self._db, [batch_id]))

    async def run(self) -> None:
        """Follow for ever; nothing is asked while nobody watches."""
        states_at = 0.0
        outage = Outage(log, "watchers wait: %s", "watchers go on")
        while True:
            open_now = {name: watched for name, watched in self._watched.items() if not watched.finished}
            if not open_now:
                self._wanted.clear()
                if not any(not watched.finished for watched in self._watched.values()):
                    await self._wanted.wait()
                continue
            try:
                ended = await self._read_live(open_now)
                if ended or time.monotonic() >= states_at:
                    found = await self._threads.run(partial(read.states_of, self._db, list(open_now)))
                    await self._take_states(open_now, found)
                    states_at = time.monotonic() + STATES_EVERY_S
                    outage.over()
            except AitaskError as error:
                # Batches do not depend on who watches: the watchers wait for the database.
                outage.met(error)
                await asyncio.sleep(_AWAY_S)
            except Exception:  # a bug must not leave every watcher waiting for ever
                log.exception("watching failed and is tried again")
                await asyncio.sleep(_AWAY_S)
            await asyncio.sleep(TICK_S)

    async def _read_live(self, open_now: Mapping[str, _Watched]) -> bool:
        """Read what running attempts have said. Returns whether one has ended."""
        owners: dict[tuple[str, int], _Watched] = {}
        cursors: dict[tuple[str, int], str] = {}
        for watched in open_now.values():
            for state in watched.states:
                if state.status is TaskStatus.PROCESSING:
                    pair = (state.id, state.attempt)
                    owners[pair] = watched
                    said = watched.pieces.get(pair)
                    cursors[pair] = said[-1][0] if said else "0"
        ended = False
        told: set[int] = set()
        for entry, piece in await self._tail.read(cursors):
            pair = (piece.task_id, piece.attempt)
            owners[pair].pieces.setdefault(pair, []).append((entry, piece))
            ended = ended or piece.end
            if id(owners[pair]) not in told:
                told.add(id(owners[pair]))
                owners[pair].tell()
        return ended

    async def _take_states(self, watched: Mapping[str, _Watched], found: Mapping[str, list[TaskState]]) -> None:
        over = [(name, s.id) for name, states in found.items() for s in states if s.status.terminal]
        news = [task_id for name, task_id in over if task_id not in watched[name].ended]
        ended = await self._threads.run(lambda: read.tasks(self._db, news)) if news else {}
        for name, states in found.items():
            one = watched[name]
            before, one.states = one.states, states
            # A row that could not be read is looked at again.
            kept = {**one.ended, **ended}
            one.ended = {s.id: kept[s.id] for s in states if s.status.terminal and s.id in kept}
            if before != states:
                one.tell()


def _news(watched: _Watched, cursor: Cursor) -> Iterator[Step]:
    """Yield what a watcher has not been told, and move its cursor on with each step."""
    for state in watched.states:
        known = cursor.at(state.position)
        if state.attempt != known.attempt:
            known.attempt, known.entry = state.attempt, "0-0"
            known.status = -1
        ended = watched.ended.get(state.id)
        if state.status.terminal and ended is None:
            continue
        if known.status == -1 and state.status is TaskStatus.PROCESSING:
            known.status = int(state.status)
            yield Step("state", state)
        for entry, piece in watched.pieces.get((state.id, state.attempt), ()):
            if _order(entry) > _order(known.entry):
                known.entry = entry
                if not piece.end:
                    yield Step("text", state, piece=piece)
        if state.status != known.status:
            known.status = int(state.status)
            yield Step("state", state, ended)


async def _in_time(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the database, and wait for it where it is away: who begins to watch then is told later, not nothing."""
    while True:
        try:
            return await ask()
        except DatabaseUnavailable as error:
            if not error.waits:
                raise
            await asyncio.sleep(_AWAY_S)


def _order(entry: str) -> tuple[int, int]:
    ms, _, number = entry.partition("-")
    return int(ms), int(number or 0)


@contextlib.asynccontextmanager
async def running(hub: Hub, after: Callable[[], None]) -> AsyncIterator[Hub]:
    """Run a hub for as long as the block lasts."""
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        after()
