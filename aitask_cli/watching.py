"""Following a batch: the database says how it stands, live output what is being said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from shared.domain import BatchView, TaskStatus
from shared.errors import DatabaseUnavailable
from shared.live import LivePiece, LiveReader
from shared.store import read
from shared.store.engine import Database

# The first looks come quickly, for answers that take no time; then the database is left in peace: the end of live
# output says when to look.
_FIRST_LOOK_S = 0.03
_LOOK_S = 1.0
_AWAY_S = 0.3
_TAIL_CHARS = 2000
_UPKEEP_S = 2.0


class WaitExpired(Exception):
    """The time to wait is over; the batch goes on."""


@dataclass(slots=True)
class Partial:
    """What a running attempt has said so far: its tail, and how much it was."""

    attempt: int
    tail: str = ""
    characters: int = 0
    thinking: bool = False
    first_s: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A batch at one moment (`at`, monotonic seconds)."""

    batch: BatchView
    at: float
    partial: dict[str, Partial] = field(default_factory=dict)


def follow(
    db: Database,
    live: LiveReader,
    batch_id: str,
    *,
    wait_s: float | None,
    step_s: float,
    notice: Callable[[str], None],
    upkeep: Callable[[BatchView], None] = lambda batch: None,
) -> Iterator[Snapshot]:
    """Yield a batch's snapshots until it has finished, the last one finished.

    A database that goes away is waited for: the batch does not depend on who watches.

    Args:
        step_s: the longest time between two snapshots.
        upkeep: called every few seconds while tasks are unfinished.

    Raises:
        WaitExpired: it has not finished within `wait_s`.
        NotFound: there is no such batch.
    """
    end = None if wait_s is None else time.monotonic() + wait_s
    partial: dict[str, Partial] = {}
    looked = _Looker(db, batch_id, notice)
    look_s = _FIRST_LOOK_S
    kept_up = time.monotonic()
    while True:
        batch, at = looked.look()
        if time.monotonic() - kept_up > _UPKEEP_S:
            upkeep(batch)
            kept_up = time.monotonic()
        for task in batch.tasks:
            if task.id in partial and (task.attempt != partial[task.id].attempt or task.status is TaskStatus.PENDING):
                del partial[task.id]
        next_look = time.monotonic() + look_s
        look_s = min(_LOOK_S, look_s * 1.5)
        while True:
            yield Snapshot(batch, at, partial)
            if all(task.status.terminal for task in batch.tasks):
                return
            now = time.monotonic()
            if end is not None and now >= end:
                raise WaitExpired
            if now >= next_look:
                break
            left_s = max(0.005, min(step_s, next_look - now, *([end - now] if end else [])))
            if _listen(live, batch, at, partial, left_s):
                # Its result is being recorded at this moment.
                look_s = _FIRST_LOOK_S
                break


def _listen(live: LiveReader, batch: BatchView, at: float, partial: dict[str, Partial], block_s: float) -> bool:
    """Wait for live output, or for as long as it would have taken. Returns whether an attempt has ended."""
    running = {task.id: task for task in batch.tasks if task.status is TaskStatus.PROCESSING}
    began = time.monotonic()
    pieces = live.read([(task.id, task.attempt) for task in running.values()], block_s=block_s)
    if pieces is None:
        time.sleep(max(0.0, block_s - (time.monotonic() - began)))
        return False
    for piece in pieces:
        _add(partial, piece, (running[piece.task_id].running_s or 0.0) + time.monotonic() - at)
    return any(piece.end for piece in pieces)


def _add(partial: dict[str, Partial], piece: LivePiece, running_s: float) -> None:
    said = partial.setdefault(piece.task_id, Partial(piece.attempt))
    if said.first_s is None and piece.text:
        said.first_s = running_s
    if said.thinking and not piece.reasoning:
        said.tail = ""
    said.thinking = piece.reasoning
    said.characters += len(piece.text)
    said.tail = (said.tail + piece.text)[-_TAIL_CHARS:]


class _Looker:
    """Asks the database cheaply whether anything changed, and for the whole batch only then."""

    def __init__(self, db: Database, batch_id: str, notice: Callable[[str], None]) -> None:
        self._db = db
        self._id = batch_id
        self._notice = notice
        self._states: object = None
        self._last: tuple[BatchView, float] | None = None
        self._away = False

    def look(self) -> tuple[BatchView, float]:
        while True:
            try:
                states = read.states(self._db, self._id)
                if self._last is None or states != self._states:
                    self._last = (read.batch(self._db, self._id), time.monotonic())
                    self._states = tuple(sorted((t.id, int(t.status), t.attempt) for t in self._last[0].tasks))
                self._away = False
                return self._last
            except DatabaseUnavailable as error:
                if self._last is None:
                    raise
                if not self._away:
                    self._notice(f"{error.message}; waiting for it, the batch goes on")
                self._away = True
                time.sleep(_AWAY_S)
