"""The door to the workers: run one until it is told to stop. The only module that the command line may import."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Callable

import uvloop

from shared.errors import AitaskError, UsageFault
from shared.families import Family
from shared.settings import Settings
from shared.store import schema
from workers.dblog import DatabaseLog
from workers.worker import Options, Worker

log = logging.getLogger("aitask.worker")

# Sockets besides those of the calls: database, Redis, logs, DNS.
_SPARE_FILES = 64


def run(
    settings: Settings,
    families: tuple[Family, ...],
    *,
    slots: int,
    version: str,
    leave: Callable[[Callable[[], bool]], bool] | None = None,
) -> None:
    """Run a worker until SIGTERM or SIGINT; unfinished tasks are handed back.

    Args:
        leave: where the worker may leave when idle, what does it: given a last check, it returns whether it left.

    Raises:
        UsageFault: no family, or none that can be called.
        Unavailable: the database can't be had or is of another version.
    """
    served = _served(families)
    worker_slots = _slots_within_file_limit(slots)
    uvloop.run(_run(settings, Options(served, worker_slots, version, leave)))


def _served(families: tuple[Family, ...]) -> tuple[Family, ...]:
    for family in families:
        if family.missing:
            log.warning("the family %s is not served: %s", family.name, family.missing)
    served = tuple(family for family in families if not family.missing)
    if not served:
        raise UsageFault("there is no family that this worker could serve", remedy="see: aitask doctor")
    return served


def _slots_within_file_limit(slots: int) -> int:
    """Raise the process's open-file limit as far as it may, and use no more slots than it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = slots + _SPARE_FILES
    if soft < wanted:
        ceiling = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft < wanted:
        fitting = max(1, soft - _SPARE_FILES)
        log.warning(
            "the open-file limit of %d allows only %d slots of %d; raise it with ulimit -n", soft, fitting, slots
        )
        return fitting
    return slots


async def _run(settings: Settings, options: Options) -> None:
    worker = Worker(settings, options)
    try:
        schema.check(worker.db)
    except AitaskError:
        worker.db.close()
        raise
    if settings.enable_db_log:
        DatabaseLog(worker.db).install()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, worker.stop)
    await worker.run()
