"""Seeded faults inside a process: named points of worker, recorder, reconciler and submission that stall or fail.

They are put there by `command`, which makes the installed command's process wrap the functions before it begins: the
product itself has no switch for them. The chances come from a seed, each point's from a sequence of its own.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from shared.errors import DatabaseUnavailable, HintsUnavailable
from tests.stand import altered

# Where: module, what in it, and what a fault there is. What comes after the deed is a lost reply.
POINTS: dict[str, tuple[str, str, type[Exception]]] = {
    "submission writes": ("shared.submission", "write", DatabaseUnavailable),
    "submission hints": ("shared.streams.sender", "Streams.send", HintsUnavailable),
    "worker reads": ("shared.streams.reader", "HintReader.read", HintsUnavailable),
    "worker claims": ("shared.store.claims", "claim", DatabaseUnavailable),
    "worker beats": ("shared.store.work", "heartbeat", DatabaseUnavailable),
    "recorder writes": ("shared.store.work", "record", DatabaseUnavailable),
    "recorder acknowledges": ("shared.streams.reader", "HintReader.discard", HintsUnavailable),
    "reconciler's tick": ("workers.reconciler", "Reconciler._end_what_is_over", DatabaseUnavailable),
    "reconciler's hints": ("workers.reconciler", "Reconciler._hints_gone_before", DatabaseUnavailable),
}
STALL_S = 0.5


class Chance:
    """What befalls one point, call after call: the same for the same seed and name."""

    def __init__(self, seed: int, name: str, probability: float) -> None:
        self._random = random.Random(f"{seed} {name}")
        self._probability = probability

    def next(self) -> tuple[str, float]:
        """`nothing`, `stall`, `before` or `after`, and for how long it stalls, in seconds."""
        hit, which, length = (self._random.random() for _ in range(3))
        if hit >= self._probability:
            return "nothing", 0.0
        return ("stall", "before", "after")[int(which * 3)], length * STALL_S


def lost_reply(error: type[Exception]) -> Exception:
    """What the database's door raises when the reply to a commit is lost."""
    lost = error("a fault inside, by seed: the reply is lost")
    if isinstance(lost, DatabaseUnavailable):
        lost.unknown = True
    return lost


def wrapped(function: Callable[..., Any], chance: Chance, error: type[Exception]) -> Callable[..., Any]:
    """The function with faults before and after it."""

    @functools.wraps(function)
    def plain(*args: Any, **more: Any) -> Any:
        fault, stall_s = chance.next()
        if fault == "before":
            raise error("a fault inside, by seed")
        time.sleep(stall_s if fault == "stall" else 0)
        done = function(*args, **more)
        if fault == "after":
            raise lost_reply(error)
        return done

    @functools.wraps(function)
    async def waited(*args: Any, **more: Any) -> Any:
        fault, stall_s = chance.next()
        if fault == "before":
            raise error("a fault inside, by seed")
        await asyncio.sleep(stall_s if fault == "stall" else 0)
        done = await function(*args, **more)
        # What was read and not taken is pending until a lease has passed.
        if fault == "after":
            raise lost_reply(error)
        return done

    return waited if inspect.iscoroutinefunction(function) else plain


def install(seed: int, probability: float) -> None:
    """Put faults at every point of this process."""
    for name, (module, path, error) in POINTS.items():
        place: Any = import_module(module)
        *owners, last = path.split(".")
        for owner in owners:
            place = getattr(place, owner)
        setattr(place, last, wrapped(getattr(place, last), Chance(seed, name, probability), error))


def command(directory: Path, *, seed: int, probability: float) -> tuple[str, ...]:
    """The installed command with faults inside."""
    root = str(Path(__file__).parents[1])
    print(f"faults inside: seed {seed}, probability {probability:g}")
    changes = f"sys.path.insert(1, {root!r})\nfrom tests.inside import install\ninstall({seed}, {probability})"
    return altered(directory, changes)
