"""What a supervisor says to everybody once a part of it stays down: a row among the workers, which serves nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from aitask_cli.processes import MOST_ENDS, WITHIN_S, how
from aitask_cli.version import version
from shared.domain import WorkerView
from shared.errors import AitaskError
from shared.settings import Settings

# The key in a row's state. Its `families` are empty, so that nobody, of whatever release, takes it for one that serves.
DOWN = "down"
REPORT_S = 10.0


@dataclass(frozen=True, slots=True)
class Down:
    """One part that stays down."""

    part: str
    families: tuple[str, ...]
    host: str
    pid: int
    said: str

    @property
    def remedy(self) -> str:
        return f"see what it said last, mend it, and start it again: {self.part}"


def downs(workers: Sequence[WorkerView]) -> list[Down]:
    """The parts among the workers' rows that stay down."""
    return [_down(worker, worker.state[DOWN]) for worker in workers if DOWN in worker.state]


def _down(worker: WorkerView, state: Mapping[str, Any]) -> Down:
    return Down(
        part=str(state.get("part", "aitask worker")),
        families=tuple(state.get("families", ())),
        host=worker.host,
        pid=worker.pid,
        said=str(state.get("said", "it ended again and again")),
    )


def living(workers: Sequence[WorkerView]) -> list[WorkerView]:
    """The workers' rows that are workers."""
    return [worker for worker in workers if DOWN not in worker.state]


class DownReport:
    """Writes the row, and again every so often, as a worker's heartbeat would be, for as long as the supervisor stays.

    Args:
        part: the command line of the part.
    """

    def __init__(self, settings: Settings, part: str, families: Sequence[str]) -> None:
        self._settings = settings
        self._part = part
        self._families = families
        self._id = f"supervisor:{socket.gethostname()}:{os.getpid()}:{token_hex(3)}"
        self._said = ""
        self._due_at = 0.0

    def __call__(self, code: int | None) -> None:
        """Report an end, or (None) that it is down still."""
        if code is not None:
            self._said = f"{MOST_ENDS} ends in {int(WITHIN_S / 60)} min; the last one {how(code)}"
            self._due_at = 0.0
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + REPORT_S
        # A database that is away is told at the next turn.
        with contextlib.suppress(AitaskError):
            self._write()

    def _write(self) -> None:
        from shared import servers
        from shared.store import fleet

        state = {DOWN: {"part": self._part, "families": list(self._families), "said": self._said}}
        db = servers.reading(self._settings, name=self._id, connections=1, timeout_s=2.0)
        try:
            fleet.report(db, fleet.WorkerReport(
                id=self._id, host=socket.gethostname(), pid=os.getpid(), families=(), slots=0, in_flight=0,
                lease_s=3 * REPORT_S, version=version(), state=state,
            ))  # fmt: skip
        finally:
            db.close()

    def withdraw(self) -> None:
        """Take the row away: whoever starts the part again starts it afresh."""
        if not self._said:
            return
        from shared import servers
        from shared.store import fleet

        with contextlib.suppress(AitaskError):
            db = servers.reading(self._settings, name=self._id, connections=1, timeout_s=1.0)
            try:
                fleet.leave(db, self._id)
            finally:
                db.close()
