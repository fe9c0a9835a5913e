"""The background workers of a data directory: at most one for each origin, started when nobody else serves a family."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from aitask_cli.local import locks
from aitask_cli.local.identity import identify, lives, living, send
from aitask_cli.local.paths import LocalPaths
from aitask_cli.local.process import exists, start_detached, this_program, wait_until
from shared.domain import WorkerView
from shared.errors import Unavailable
from shared.loading import child_environment
from shared.settings import Settings

# A worker drains for at most 4 s; after twice that something holds it.
_REPLACE_S = 8.0
LOG_NAME = "worker.log"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The worker that is to run: for whom, with which settings.

    Attributes:
        fingerprint: of the settings.
        at: when they were read (monotonic, the same in all processes of the machine).
    """

    settings: Settings
    fingerprint: str
    at: float

    @property
    def origin(self) -> str | None:
        return self.settings.origin


def alive(paths: LocalPaths, origin: str | None) -> bool:
    """Tell whether the background worker of an origin lives, or is being started."""
    return locks.held(paths.worker_lock(origin))


def any_alive(paths: LocalPaths) -> bool:
    """Tell whether a background worker of any origin lives, or is being started."""
    return any(locks.held(lock) for lock in paths.worker_locks)


def ensure(
    paths: LocalPaths, wanted: Wanted, families: Collection[str], *, workers: Callable[[], Iterable[WorkerView]]
) -> bool:
    """Start a background worker unless each of the families is served. Returns whether one was started.

    Of one origin the newest settings win: a worker with older ones, or of another version, makes way.

    Raises:
        Unavailable: the old one does not go.
    """
    with locks.exclusive(paths.start_lock):
        lock = _place(paths, wanted)
        if lock is None:
            return False
        try:
            if set(families) <= _served(workers(), wanted.origin):
                return False
            _spawn(paths, lock, wanted)
        finally:
            # The child has the lock through its own copy of the descriptor.
            os.close(lock)
    return True


def make_way(paths: LocalPaths, wanted: Wanted) -> None:
    """Have a worker with older settings of the same origin claim no more; what it has begun it ends.

    Raises:
        Unavailable: it does not go.
    """
    if not alive(paths, wanted.origin):
        return
    with locks.exclusive(paths.start_lock):
        lock = _place(paths, wanted)
        if lock is not None:
            os.close(lock)


def _place(paths: LocalPaths, wanted: Wanted) -> int | None:
    """Take the lock of the origin's worker, making an older one give it up. None: one with as new settings has it."""
    lock = locks.take(paths.worker_lock(wanted.origin))
    if lock is not None:
        return lock
    noted = _noted(paths.worker_file(wanted.origin))
    newer = isinstance(since := noted.get("at"), float) and since > wanted.at
    if newer or noted.get("fingerprint") == wanted.fingerprint:
        return None
    _end(paths, wanted.origin)
    lock = locks.take(paths.worker_lock(wanted.origin))
    if lock is None:
        raise Unavailable("the background worker does not stop", remedy="run: aitask down")
    return lock


def _end(paths: LocalPaths, origin: str | None) -> None:
    """Have a worker make way; one that does not is stopped, and killed."""
    file = paths.worker_file(origin)
    process = living(_noted(file))
    if process is not None:
        # It goes on until its calls have ended, and `stop` has to find it.
        with contextlib.suppress(OSError):
            file.replace(file.with_name(f"worker-leaving-{process.pid}.json"))
    for sign in (signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL):
        if process is not None:
            send(process, sign)
        if wait_until(lambda: not alive(paths, origin), timeout_s=_REPLACE_S):
            return


def stop(paths: LocalPaths) -> bool:
    """End the background workers of every origin and wait for them. Returns whether there were any."""
    with locks.exclusive(paths.start_lock):
        files = paths.worker_files
        found = [process for file in files if (process := living(_noted(file))) is not None]
        held = any_alive(paths)
        for process in found:
            send(process, signal.SIGTERM)
    # Not under the lock: one that ends takes it, and its own lock is free before its process has ended.
    if not wait_until(lambda: not any(map(lives, found)) and not any_alive(paths), timeout_s=_REPLACE_S):
        for process in found:
            send(process, signal.SIGKILL)
        wait_until(lambda: not any(map(lives, found)), timeout_s=_REPLACE_S)
    for file in files:
        if living(_noted(file)) is None:
            file.unlink(missing_ok=True)
    return held or bool(found)


def _served(workers: Iterable[WorkerView], origin: str | None) -> set[str]:
    """The families that living workers of the origin serve; one here whose process is gone does not."""
    here = socket.gethostname()
    living = [w for w in workers if (w.host != here or exists(w.pid)) and w.origin in (None, origin)]
    return {family for worker in living for family in worker.families}


def _noted(file: Path) -> dict[str, object]:
    try:
        noted = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _spawn(paths: LocalPaths, lock: int, wanted: Wanted) -> None:
    settings = wanted.settings
    argv = this_program("worker", "--background", str(lock), *(["--demo"] if settings.demo else []))
    env = _environment(paths, settings)
    process = start_detached(argv, log=paths.log / LOG_NAME, cwd=paths.base, env=env, pass_fds=(lock,))
    file = paths.worker_file(wanted.origin)
    fresh = file.with_suffix(".new")
    known = identify(process.pid)
    noted = {"pid": process.pid, **(known.noted() if known else {})}
    fresh.write_text(json.dumps({**noted, "fingerprint": wanted.fingerprint, "at": wanted.at}))
    fresh.replace(file)


def _environment(paths: LocalPaths, settings: Settings) -> dict[str, str]:
    # The demo's directory lies inside the data directory; `--demo` adds that step again.
    base = paths.base.parent if settings.demo else paths.base
    return {**child_environment(settings), "AITASK_DATA_DIR": str(base), "PYTHONUNBUFFERED": "1"}
