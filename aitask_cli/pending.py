"""The pending entries of every family, joined with what the database says of their tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from aitask_cli.session import Session
from shared.domain import TaskStatus
from shared.store import operate
from shared.store.operate import TaskRow
from shared.streams import PendingEntry


class State(str, Enum):
    """What a pending entry is: work under way, work that its consumer dropped, or a hint that is not needed."""

    RUNNING = "running"
    ORPHANED = "orphaned"
    HINT_ONLY = "hint only"


@dataclass(frozen=True, slots=True)
class PendingView:
    """One pending entry with its task, if the database knows it."""

    entry: PendingEntry
    row: TaskRow | None
    state: State
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are meant."""

    family: str | None = None
    consumer: str | None = None
    idle_s: float = 0.0
    orphaned: bool = False


def state_of(entry: PendingEntry, row: TaskRow | None) -> State:
    """Decide what an entry is: the database's lease decides, not how long the entry has been idle."""
    if row is None or row.status.terminal:
        return State.HINT_ONLY
    if row.status is TaskStatus.PROCESSING and (row.lease_left_s or 0) > 0:
        # Another worker may have taken the task up by a newer hint.
        return State.RUNNING if row.worker == entry.consumer else State.HINT_ONLY
    return State.ORPHANED


def pending(session: Session, wanted: Filter, *, content: bool) -> list[PendingView]:
    """Return the entries that fit."""
    names = [family.name for family in session.settings.families]
    families = [wanted.family] if wanted.family else sorted({*names, *(q.family for q in operate.queues(session.db))})
    everyones = session.streams.everyones()
    entries = [entry for family in families for streams in everyones for entry in streams.pending(family)]
    entries = [
        entry
        for entry in entries
        if entry.idle_s >= wanted.idle_s and (wanted.consumer is None or wanted.consumer in entry.consumer)
    ]
    ids = [entry.task_id for entry in entries if entry.task_id]
    rows = operate.rows(session.db, ids)
    prompts = operate.prompts(session.db, ids) if content else {}
    views = []
    for entry in entries:
        row = rows.get(entry.task_id or "")
        views.append(PendingView(entry, row, state_of(entry, row), prompts.get(entry.task_id or "")))
    return [view for view in views if not wanted.orphaned or view.state is State.ORPHANED]


def act(session: Session, views: Sequence[PendingView], action: str, *, reason: str) -> int:
    """Do one thing to all of these entries. Returns how many it did something to.

    `claim` frees orphaned entries for any worker, `retry` tries their tasks at once, `fail` ends the tasks, `drop`
    puts the entries away and leaves the tasks alone.
    """
    if action == "claim":
        views = [view for view in views if view.state is not State.RUNNING]
    ids = [view.row.id for view in views if view.row is not None]
    if action == "fail":
        operate.fail(session.db, ids, reason=reason)
    elif action == "retry":
        session.streams.send(operate.retry(session.db, ids, origin=session.settings.origin))
    elif action == "claim":
        operate.owe_hints(session.db, ids)
    # After the database: an entry goes only when nobody needs it any more.
    keep = {view.entry.entry_id for view in views if action == "retry" and view.state is State.RUNNING}
    gone = [view.entry for view in views if view.entry.entry_id not in keep]
    for origin in {entry.origin for entry in gone}:
        session.streams.of(origin).remove((e.family, e.entry_id) for e in gone if e.origin == origin)
    return len(views)
