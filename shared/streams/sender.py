"""The synchronous side of the task streams: sending hints, and what the reconciler and operators ask."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis.exceptions import ResponseError

from shared.streams.clients import client
from shared.streams.dead_letters import DeadLetters
from shared.streams.door import translating
from shared.streams.hints import FIELD, PendingEntry, Watermark, parse, safe_until
from shared.streams.keys import Keys


class Streams(DeadLetters):
    """The synchronous side: sending hints, acknowledging, and what the reconciler and operators ask.

    Args:
        dsn: Redis URL.
        namespace: first part of every key.
        timeout_s: bound for connecting and for each reply, in seconds.
        origin: whose streams these are, on the local default.
    """

    def __init__(self, dsn: str, *, namespace: str, timeout_s: float = 1.0, origin: str | None = None) -> None:
        self.namespace = namespace
        self.keys = Keys(namespace, origin=origin)
        self.client: Any = client(dsn, connect_s=timeout_s, reply_s=timeout_s)

    def close(self) -> None:
        self.client.close()

    @property
    def origin(self) -> str | None:
        """Whose streams these are, on the local default."""
        return self.keys.origin

    def of(self, origin: str | None) -> Streams:
        """The streams of another origin, over the same connections."""
        other = copy.copy(self)
        other.keys = replace(self.keys, origin=origin)
        return other

    def everyones(self) -> list[Streams]:
        """The streams of every origin there is: on configured servers just these."""
        if self.keys.origin is None:
            return [self]
        with translating():
            names = [key.decode("utf-8", "replace") for key in self.client.scan_iter(self.keys.of_every_origin)]
        return [self.of(origin) for origin in sorted({self.keys.origin, *(name.rpartition("@")[2] for name in names)})]

    def ping(self) -> None:
        """Raise HintsUnavailable unless Redis answers."""
        with translating():
            self.client.ping()

    def send(self, hints: Iterable[tuple[str, str]]) -> None:
        """Append one hint per (family, task id), all in one round trip.

        Straight on a connection: redis-py's pipeline costs three times as much for each command.
        """
        commands: list[Any] = [("XADD", self.keys.tasks(family), "*", FIELD, task_id) for family, task_id in hints]
        if not commands:
            return
        pool = self.client.connection_pool
        with translating():
            connection: Any = pool.get_connection()
            try:
                connection.send_packed_command(connection.pack_commands(commands))
                for _ in commands:
                    connection.read_response()
            except BaseException:
                # What was not read would be taken for the next command's reply.
                connection.disconnect()
                raise
            finally:
                pool.release(connection)

    def ensure_group(self, family: str) -> bool:
        """Create the family's stream and group, from the very first entry on. Returns whether it was missing."""
        with translating():
            try:
                self.client.xgroup_create(self.keys.tasks(family), self.namespace, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
                return False
        return True

    def watermark(self, family: str) -> Watermark | None:
        """Read how far the family's hints have been delivered (design: "Reconciler"). None: there is no group."""
        name = self.keys.tasks(family)
        with translating():
            groups = self.client.xinfo_groups(name) if self.client.exists(name) else []
            mine = next((g for g in groups if g["name"] == self.namespace.encode()), None)
            if mine is None:
                return None
            last = mine["last-delivered-id"].decode()
            pipe = self.client.pipeline(transaction=True)
            pipe.time()
            pipe.xrange(name, min=f"({last}", max="+", count=1)
            (seconds, micros), following = pipe.execute()
        now = dt.datetime.fromtimestamp(seconds + micros / 1e6, dt.timezone.utc)
        return Watermark(now, safe_until(now, following[0][0] if following else None))

    def owned(self, family: str, consumer: str, entry_ids: Sequence[str]) -> list[str]:
        """Return those of the entries that are pending for this consumer."""
        name = self.keys.tasks(family)
        with translating():
            pipe = self.client.pipeline(transaction=False)
            for entry_id in entry_ids:
                pipe.xpending_range(name, self.namespace, entry_id, entry_id, 1, consumername=consumer)
            return [entry_id for entry_id, found in zip(entry_ids, pipe.execute(), strict=True) if found]

    def renew(self, family: str, consumer: str, entry_ids: Sequence[str]) -> None:
        """Set the idle time of this consumer's own entries back to 0."""
        mine = self.owned(family, consumer, entry_ids)
        if mine:
            with translating():
                name = self.keys.tasks(family)
                self.client.xclaim(name, self.namespace, consumer, 0, [*mine], idle=0, justid=True)

    def drop_consumer_if_idle(self, family: str, consumer: str) -> None:
        """Remove a consumer that has no pending entries; with some it stays, so that they are not lost sight of."""
        name = self.keys.tasks(family)
        with translating():
            if not self.client.xpending_range(name, self.namespace, "-", "+", 1, consumername=consumer):
                self.client.xgroup_delconsumer(name, self.namespace, consumer)

    def drop_dead_consumers(self, family: str, *, idle_s: float) -> int:
        """Remove consumers that have read nothing for so long and have no pending entries. Returns how many."""
        name = self.keys.tasks(family)
        with translating():
            dead = [
                consumer["name"]
                for consumer in self.client.xinfo_consumers(name, self.namespace)
                if consumer["pending"] == 0 and consumer["idle"] > idle_s * 1000
            ]
            for consumer in dead:
                self.client.xgroup_delconsumer(name, self.namespace, consumer)
        return len(dead)

    def pending(self, family: str, *, most: int = 10_000) -> list[PendingEntry]:
        """Return a family's pending entries, oldest first, each with the task it names."""
        name = self.keys.tasks(family)
        with translating():
            try:
                listed = self.client.xpending_range(name, self.namespace, "-", "+", most)
            except ResponseError as error:
                if "NOGROUP" in str(error):
                    return []
                raise
            pipe = self.client.pipeline(transaction=False)
            for row in listed:
                pipe.xrange(name, row["message_id"], row["message_id"])
            found = pipe.execute()
        return [_pending(family, row, entry, self.keys.origin) for row, entry in zip(listed, found, strict=True)]

    def lag(self, family: str) -> int:
        """How many of a family's entries no worker has read yet."""
        name = self.keys.tasks(family)
        with translating():
            groups = self.client.xinfo_groups(name) if self.client.exists(name) else []
            waiting = self.client.xlen(name)
        mine = next((group for group in groups if group["name"] == self.namespace.encode()), None)
        return max(0, int(waiting) - int(mine["pending"] if mine else 0))

    def remove(self, entries: Iterable[tuple[str, str]]) -> None:
        """Acknowledge and delete (family, entry id) pairs, in one MULTI."""
        with translating():
            pipe = self.client.pipeline(transaction=True)
            for family, entry_id in entries:
                pipe.xack(self.keys.tasks(family), self.namespace, entry_id)
                pipe.xdel(self.keys.tasks(family), entry_id)
            pipe.execute()


def _pending(family: str, row: Mapping[str, Any], entry: list[Any], origin: str | None) -> PendingEntry:
    hint = parse(family, row["message_id"], entry[0][1] if entry else None)
    return PendingEntry(
        family=family,
        entry_id=hint.entry_id,
        consumer=row["consumer"].decode("utf-8", "replace"),
        idle_s=row["time_since_delivered"] / 1000,
        deliveries=row["times_delivered"],
        task_id=hint.task_id,
        origin=origin,
    )
