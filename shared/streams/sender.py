"""The synchronous side of the task streams: sending hints, and what the reconciler and operators ask."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from redis.exceptions import ResponseError

from shared.streams.dead_letters import DeadLetters
from shared.streams.door import FOREIGN, translating
from shared.streams.facts import RedisFacts
from shared.streams.facts import read as read_facts
from shared.streams.hints import FIELD, PendingEntry, Watermark, parse, safe_until
from shared.streams.installation import KEPT_S, Ownership
from shared.streams.keys import Keys
from shared.streams.nodes import Nodes, again_when_moved


class Streams(DeadLetters):
    """The synchronous side: sending hints, acknowledging, and what the reconciler and operators ask.

    Args:
        dsn: Redis URL.
        namespace: first part of every key.
        timeout_s: bound for connecting and for each reply, in seconds.
        origin: whose streams these are, on the local default.
        ownership: what is known of the namespace's owner; while that is another, hints can't be had.
    """

    def __init__(
        self, dsn: str, *, namespace: str, timeout_s: float = 1.0, origin: str | None = None,
        ownership: Ownership | None = None,
    ) -> None:  # fmt: skip
        self.namespace = namespace
        self.ownership = ownership or Ownership()
        self._keys = Keys(namespace, origin=origin)
        self._nodes = Nodes(dsn, connect_s=timeout_s, reply_s=timeout_s)

    @property
    def keys(self) -> Keys:
        """The names of the keys: the first time Redis is asked whether it is a Cluster."""
        if self._nodes.clustered is None:
            with translating():
                self._nodes.ready()
        return replace(self._keys, clustered=True) if self._nodes.clustered else self._keys

    @property
    def client(self) -> Any:
        """The client of a single Redis; of a Cluster the one of any node."""
        return self._nodes.first

    @contextmanager
    def at(self, key: str) -> Iterator[Any]:
        """The client of the server that has a key; what it raises is translated."""
        self.ownership.refuse(self._keys)
        with self._anyones(key) as client:
            yield client

    @contextmanager
    def _anyones(self, key: str) -> Iterator[Any]:
        with translating():
            try:
                yield self._nodes.at(key)
            except FOREIGN:
                self._nodes.forget()
                raise

    def close(self) -> None:
        self._nodes.close()

    @property
    def origin(self) -> str | None:
        """Whose streams these are, on the local default."""
        return self._keys.origin

    def of(self, origin: str | None) -> Streams:
        """The streams of another origin, over the same connections."""
        other = copy.copy(self)
        other._keys = replace(self._keys, origin=origin)
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

    def facts(self, families: Iterable[str]) -> RedisFacts:
        """What the server promises, and what lies under our names."""
        names = [self.keys.tasks(family) for family in families]
        strange = {}
        for name in [*names, self.keys.dead_letters]:
            with self._anyones(name) as client:
                kind = client.type(name).decode()
            if kind not in ("stream", "none"):
                strange[name] = kind
        with self._anyones(self.keys.dead_letters) as client:
            return read_facts(client.info(), strange)

    def owners(self) -> tuple[str | None, str | None]:
        """Whose namespace it is, and who else uses it."""
        found = []
        for name in (self.keys.installation, self.keys.others):
            with self._anyones(name) as client:
                found.append((client.get(name) or b"").decode("utf-8", "replace") or None)
        return found[0], found[1]

    def look_at_owner(self) -> None:
        """Keep the namespace ours, or take it where it is nobody's; another's is told of us."""
        mine, name, others = self.ownership.mine, self.keys.installation, self.keys.others
        if mine is None:
            return
        with self._anyones(name) as client:
            client.set(name, mine, nx=True, ex=KEPT_S)
            ours = self.ownership.found(client.get(name))
            if ours:
                client.expire(name, KEPT_S)
        if not ours:
            with self._anyones(others) as client:
                client.set(others, mine, ex=KEPT_S)

    def send(self, hints: Iterable[tuple[str, str]]) -> None:
        """Append one hint per (family, task id), all in one round trip; in a Cluster in one for each family."""
        self._send([*hints])

    @again_when_moved
    def _send(self, hints: Sequence[tuple[str, str]]) -> None:
        batches: dict[str, list[Any]] = {}
        for family, task_id in hints:
            name = self.keys.tasks(family)
            command = ("XADD", name, "*", FIELD, task_id)
            batches.setdefault(name if self._nodes.clustered else "", []).append(command)
        for name, commands in batches.items():
            with self.at(name) as client:
                _send(client.connection_pool, commands)

    @again_when_moved
    def ensure_group(self, family: str) -> bool:
        """Create the family's stream and group, from the very first entry on. Returns whether it was missing."""
        name = self.keys.tasks(family)
        with self.at(name) as client:
            try:
                client.xgroup_create(name, self.namespace, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
                return False
        return True

    @again_when_moved
    def watermark(self, family: str) -> Watermark | None:
        """Read how far the family's hints have been delivered (design: "Reconciler"). None: there is no group."""
        name = self.keys.tasks(family)
        with self.at(name) as client:
            groups = client.xinfo_groups(name) if client.exists(name) else []
            mine = next((g for g in groups if g["name"] == self.namespace.encode()), None)
            if mine is None:
                return None
            last = mine["last-delivered-id"].decode()
            pipe = client.pipeline(transaction=True)
            pipe.time()
            pipe.xrange(name, min=f"({last}", max="+", count=1)
            (seconds, micros), following = pipe.execute()
        now = dt.datetime.fromtimestamp(seconds + micros / 1e6, dt.timezone.utc)
        return Watermark(now, safe_until(now, following[0][0] if following else None))

    def owned(self, family: str, consumer: str, entry_ids: Sequence[str]) -> list[str]:
        """Return those of the entries that are pending for this consumer."""
        name = self.keys.tasks(family)
        with self.at(name) as client:
            pipe = client.pipeline(transaction=False)
            for entry_id in entry_ids:
                pipe.xpending_range(name, self.namespace, entry_id, entry_id, 1, consumername=consumer)
            return [entry_id for entry_id, found in zip(entry_ids, pipe.execute(), strict=True) if found]

    @again_when_moved
    def renew(self, family: str, consumer: str, entry_ids: Sequence[str]) -> None:
        """Set the idle time of this consumer's own entries back to 0."""
        mine = self.owned(family, consumer, entry_ids)
        name = self.keys.tasks(family)
        if mine:
            with self.at(name) as client:
                client.xclaim(name, self.namespace, consumer, 0, [*mine], idle=0, justid=True)

    def drop_consumer_if_idle(self, family: str, consumer: str) -> None:
        """Remove a consumer that has no pending entries; with some it stays, so that they are not lost sight of."""
        name = self.keys.tasks(family)
        with self.at(name) as client:
            if not client.xpending_range(name, self.namespace, "-", "+", 1, consumername=consumer):
                client.xgroup_delconsumer(name, self.namespace, consumer)

    def drop_dead_consumers(self, family: str, *, idle_s: float) -> int:
        """Remove consumers that have read nothing for so long and have no pending entries. Returns how many."""
        name = self.keys.tasks(family)
        with self.at(name) as client:
            dead = [
                consumer["name"]
                for consumer in client.xinfo_consumers(name, self.namespace)
                if consumer["pending"] == 0 and consumer["idle"] > idle_s * 1000
            ]
            for consumer in dead:
                client.xgroup_delconsumer(name, self.namespace, consumer)
        return len(dead)

    def pending(self, family: str, *, most: int = 10_000) -> list[PendingEntry]:
        """Return a family's pending entries, oldest first, each with the task it names."""
        name = self.keys.tasks(family)
        with self.at(name) as client:
            try:
                listed = client.xpending_range(name, self.namespace, "-", "+", most)
            except ResponseError as error:
                if "NOGROUP" in str(error):
                    return []
                raise
            pipe = client.pipeline(transaction=False)
            for row in listed:
                pipe.xrange(name, row["message_id"], row["message_id"])
            found = pipe.execute()
        return [_pending(family, row, entry, self.keys.origin) for row, entry in zip(listed, found, strict=True)]

    def lag(self, family: str) -> int:
        """How many of a family's entries no worker has read yet."""
        name = self.keys.tasks(family)
        with self.at(name) as client:
            groups = client.xinfo_groups(name) if client.exists(name) else []
            waiting = client.xlen(name)
        mine = next((group for group in groups if group["name"] == self.namespace.encode()), None)
        return max(0, int(waiting) - int(mine["pending"] if mine else 0))

    def remove(self, entries: Iterable[tuple[str, str]]) -> None:
        """Acknowledge and delete (family, entry id) pairs; each family's in one MULTI."""
        self._remove([*entries])

    @again_when_moved
    def _remove(self, entries: Sequence[tuple[str, str]]) -> None:
        by_name: dict[str, list[str]] = {}
        for family, entry_id in entries:
            by_name.setdefault(self.keys.tasks(family), []).append(entry_id)
        for name, ids in by_name.items():
            with self.at(name) as client:
                pipe = client.pipeline(transaction=True)
                pipe.xack(name, self.namespace, *ids)
                pipe.xdel(name, *ids)
                pipe.execute()


def _send(pool: Any, commands: Sequence[Any]) -> None:
    """Straight on a connection: redis-py's pipeline costs three times as much for each command."""
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
