"""The background worker of a data directory: at most one, started when nobody else serves a family."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterable

from aitask_cli.local import locks
from aitask_cli.local.paths import LocalPaths
from aitask_cli.local.process import exists, start_detached, this_program, wait_until
from shared.domain import WorkerView
from shared.errors import Unavailable
from shared.loading import child_environment
from shared.settings import Settings

# A worker drains for at most 4 s; after twice that something holds it.
_REPLACE_S = 8.0
LOG_NAME = "worker.log"


def alive(paths: LocalPaths) -> bool:
    """Tell whether the background worker lives, or is being started."""
    return locks.held(paths.worker_lock)


def ensure(
    paths: LocalPaths,
    families: Collection[str],
    *,
    workers: Callable[[], Iterable[WorkerView]],
    fingerprint: str,
    settings: Settings,
) -> bool:
    """Start a background worker unless each of the families is served. Returns whether one was started.

    One that runs with other settings or of another version is replaced; what it had begun is handed back first.

    Raises:
        Unavailable: the old one does not go.
    """
    with locks.exclusive(paths.start_lock):
        lock = locks.take(paths.worker_lock)
        if lock is None:
            if _noted(paths).get("fingerprint") == fingerprint:
                return False
            _terminate(paths)
            lock = locks.take(paths.worker_lock)
            if lock is None:
                raise Unavailable("the background worker does not stop", remedy="run: aitask down")
        elif set(families) <= _served(workers()):
            os.close(lock)
            return False
        try:
            _spawn(paths, lock, fingerprint, settings)
        finally:
            # The child has the lock through its own copy of the descriptor.
            os.close(lock)
    return True


def stop(paths: LocalPaths) -> bool:
    """End the background worker and wait for it. Returns whether there was one."""
    with locks.exclusive(paths.start_lock):
        pid = _noted(paths).get("pid")
        found = alive(paths)
        if found:
            _terminate(paths)
    # Its lock is free before its process has ended, also when it was leaving by itself just now.
    if isinstance(pid, int):
        wait_until(lambda: not exists(pid), timeout_s=_REPLACE_S)
        paths.worker_file.unlink(missing_ok=True)
    return found


def _served(workers: Iterable[WorkerView]) -> set[str]:
    """The families that have a live worker. One of this machine whose process is gone is not waited for."""
    here = socket.gethostname()
    living = [w for w in workers if w.host != here or exists(w.pid)]
    return {family for worker in living for family in worker.families}


def _noted(paths: LocalPaths) -> dict[str, object]:
    try:
        noted = json.loads(paths.worker_file.read_text())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _terminate(paths: LocalPaths) -> None:
    # The lock is held, so the pid noted beside it is that of the holder.
    pid = _noted(paths).get("pid")
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if isinstance(pid, int):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        if wait_until(lambda: not alive(paths), timeout_s=_REPLACE_S):
            return


def _spawn(paths: LocalPaths, lock: int, fingerprint: str, settings: Settings) -> None:
    argv = this_program("worker", "--background", str(lock), *(["--demo"] if settings.demo else []))
    env = _environment(paths, settings)
    process = start_detached(argv, log=paths.log / LOG_NAME, cwd=paths.base, env=env, pass_fds=(lock,))
    fresh = paths.worker_file.with_suffix(".new")
    fresh.write_text(json.dumps({"pid": process.pid, "fingerprint": fingerprint}))
    fresh.replace(paths.worker_file)


def _environment(paths: LocalPaths, settings: Settings) -> dict[str, str]:
    # The demo's directory lies inside the data directory; `--demo` adds that step again.
    base = paths.base.parent if settings.demo else paths.base
    return {**child_environment(settings), "AITASK_DATA_DIR": str(base), "PYTHONUNBUFFERED": "1"}
