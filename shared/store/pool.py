"""A pool of connections to PostgreSQL: as many as its user may have, the last used first."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from psycopg2 import extensions

from shared.errors import DatabaseUnavailable
from shared.store.faults import is_lost

# A connection that has been idle for longer may have lost its server.
PING_AFTER_S = 1.0


@dataclass(eq=False)
class Link:
    """One connection, and what is known of it."""

    raw: Any
    generation: int
    used_at: float = field(default_factory=time.monotonic)
    # Statements that were sent once, and those that are prepared.
    seen: set[str] = field(default_factory=set)
    prepared: set[str] = field(default_factory=set)

    @property
    def usable(self) -> bool:
        """Whether it lives, as far as libpq knows, and is in no transaction. Asks nothing of the server."""
        return not self.raw.closed and bool(self.raw.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE)

    def lives(self) -> bool:
        """Ask the server, if it has been idle for a while."""
        if time.monotonic() - self.used_at < PING_AFTER_S:
            return True
        try:
            with contextlib.closing(self.raw.cursor()) as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error as error:
            return not is_lost(error, self.raw)
        return True

    def close(self) -> None:
        with contextlib.suppress(psycopg2.Error):
            self.raw.close()


class Pool:
    """Hands connections out, and makes them.

    Args:
        make: makes a connection.
        size: the most that are held.
        timeout_s: how long one is waited for.
    """

    def __init__(self, make: Callable[[], Any], *, size: int, timeout_s: float) -> None:
        self._make = make
        self._timeout_s = timeout_s
        self._free = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._generation = 0
        self.size = size
        self.made = 0

    def take(self) -> Link:
        """Take a connection that lives.

        Raises:
            DatabaseUnavailable: all are in use, and none came back in time; or none can be made.
        """
        if not self._free.acquire(timeout=self._timeout_s):
            raise DatabaseUnavailable(
                f"all {self.size} connections to PostgreSQL are in use", remedy="see: aitask doctor"
            )
        try:
            return self._living() or self._new()
        except BaseException:
            self._free.release()
            raise

    def give(self, link: Link) -> None:
        """Take a connection back; one that is lost, or in a transaction, is closed."""
        link.used_at = time.monotonic()
        with self._lock:
            kept = link.usable and link.generation == self._generation
            if kept:
                self._idle.append(link)
        if not kept:
            link.close()
        self._free.release()

    def distrust(self, link: Link) -> None:
        """A connection was lost: none of its time is used again, for they had the same server."""
        with self._lock:
            if link.generation == self._generation:
                self._generation += 1
        link.close()

    def close(self) -> None:
        """Close every connection that is not in use."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def _living(self) -> Link | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                link = self._idle.pop()
                current = link.generation == self._generation
            if current and link.lives():
                return link
            if current:
                self.distrust(link)
            link.close()

    def _new(self) -> Link:
        with self._lock:
            generation = self._generation
        link = Link(self._make(), generation)
        self.made += 1
        return link
