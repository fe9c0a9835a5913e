"""The door to the workers: run one until it is told to stop. The only module that the command line may import."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Callable

import uvloop

from shared.families import Family
from shared.servers import ignored_parameters
from shared.settings import Settings
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
    retired: Callable[[], None] | None = None,
) -> None:
    """Run a worker until SIGTERM or SIGINT; unfinished tasks are handed back.

    Args:
        leave: where the worker may leave when idle, what does it: given a last check, it returns whether it left.
        retired: where SIGUSR1 makes the worker give way to one with newer settings, told once it claims no more.

    Without a family to serve it stays, idle: an exit would end the whole stack that it is a part of.

    Raises:
        Unavailable: the database refuses for a reason that does not pass, or is of another version.
        PartEnded: a part of the worker ended by itself.
    """
    for name, ignored in ignored_parameters(settings).items():
        log.warning("%s has parameters that mean nothing here and are ignored: %s", name, ", ".join(ignored))
    served = _served(families)
    if not served:
        uvloop.run(_idle())
        return
    worker_slots = _slots_within_file_limit(slots)
    uvloop.run(_run(settings, Options(served, worker_slots, version, leave, retired)))


def _served(families: tuple[Family, ...]) -> tuple[Family, ...]:
    for family in families:
        if family.missing:
            log.warning("the family %s is not served: %s", family.name, family.missing)
    return tuple(family for family in families if not family.missing)


async def _idle() -> None:
    log.warning("this worker has no family to serve and stays idle")
    told = asyncio.Event()
    _on_signals(told.set)
    await told.wait()


def _on_signals(stop: Callable[[], None]) -> None:
    """Have the signals that ask for an end stop the worker gracefully; SIGHUP when the terminal closes.

    One that is ignored, as nohup has it, stays so.
    """
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if sign is not signal.SIGHUP or signal.getsignal(sign) is not signal.SIG_IGN:
            loop.add_signal_handler(sign, stop)


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
    if settings.enable_db_log:
        DatabaseLog(worker.db).install()
    _on_signals(worker.stop)
    if options.retired is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, worker.retire)
    await worker.run()
