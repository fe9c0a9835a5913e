"""What waits and runs, per family."""

from __future__ import annotations

from dataclasses import dataclass

from aitask_cli.session import Session
from shared.errors import HintsUnavailable
from shared.store import fleet, operate
from shared.store.operate import QueueCounts


@dataclass(frozen=True, slots=True)
class QueueView:
    """One family. `lag` counts entries no worker has read yet, None while Redis is away."""

    counts: QueueCounts
    lag: int | None
    workers: int
    paused: str | None


def queues(session: Session) -> list[QueueView]:
    """Return every family that is known or has tasks which have not ended."""
    counts = {found.family: found for found in operate.queues(session.db)}
    names = [family.name for family in session.settings.families]
    workers = fleet.workers(session.db)
    paused = {pause.family: pause.reason for pause in fleet.pauses(session.db)}
    views = []
    for name in [*names, *sorted(set(counts) - set(names))]:
        try:
            lag: int | None = sum(streams.lag(name) for streams in session.streams.everyones())
        except HintsUnavailable:
            lag = None
        serving = sum(name in worker.families for worker in workers)
        views.append(QueueView(counts.get(name, QueueCounts(name, 0, 0, 0, None)), lag, serving, paused.get(name)))
    return views
