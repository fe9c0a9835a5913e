"""What waits for a worker with the settings it was asked under, when there is none. Only on the local default."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from aitask_cli.session import Session
from aitask_cli.views.words import short_id
from shared.store import fleet, operate


@dataclass(frozen=True, slots=True)
class Stranded:
    """A batch with tasks that nobody is there to call, and the file of settings it was asked under."""

    batch_id: str
    asked_under: str
    ours: bool

    def __str__(self) -> str:
        name = short_id(self.batch_id)
        said = f"{name} was asked under {self.asked_under}, which has no worker"
        return (
            f"{said}: aitask watch {name}"
            if self.ours
            else f"{said}; to call it with these settings: aitask retry {name}"
        )


def stranded(session: Session, batch_ids: Collection[str]) -> list[Stranded]:
    """Return those of these batches that wait for a worker which isn't there."""
    if session.stack is None:
        return []
    from aitask_cli.local import background
    from aitask_cli.local.origins import asked_under

    paths, ours = session.stack.paths, session.settings.origin
    served = {worker.origin for worker in fleet.workers(session.db)}
    return [
        Stranded(batch_id, asked_under(paths, origin), origin == ours)
        for batch_id, origin in operate.waiting_origins(session.db)
        if batch_id in batch_ids and origin not in served and not background.alive(paths, origin)
    ]
