"""The task streams: hints in, hints out. Everything here may fail without any task being lost.

Key names, for a namespace N: `N:tasks:FAMILY` (stream, consumer group N), `N:sys_dead_letters` (stream).
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from shared.errors import HintsUnavailable
from shared.ids import is_id

FIELD = "task"
DEAD_LETTER_CAP = 10_000
# What is enqueued and what is in the stream may differ for this long: a commit and an XADD in between.
WATERMARK_GRACE_S = 5.0

# What Redis says when a group, or the stream under a blocked reader, has gone.
_GONE = ("NOGROUP", "UNBLOCKED", "no longer exists")


@dataclass(frozen=True, slots=True)
class Hint:
    """One stream entry. `task_id` is None when the entry names no task."""

    family: str
    entry_id: str
    task_id: str | None
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a family's stream has been delivered, in Redis' time; hints sent before it are gone or delivered."""

    redis_now: dt.datetime
    safe_until: dt.datetime


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """One entry that a consumer has read and nobody has acknowledged."""

    family: str
    entry_id: str
    consumer: str
    idle_s: float
    deliveries: int
    task_id: str | None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that named no task, whole: its stream, its id there, its fields, and why it is here."""

    id: str
    stream: str
    entry_id: str
    reason: str
    fields: Mapping[bytes, bytes]


@contextmanager
def translating() -> Iterator[None]:
    """Turn what redis-py raises into ours; a URL with a password never gets into the message."""
    try:
        yield
    except (RedisError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HintsUnavailable(f"Redis is not available: {reason}", remedy="see: aitask doctor") from error


def group_gone(error: BaseException) -> bool:
    """Tell whether an error means that the consumer group has to be made again."""
    origin = error.__cause__ if isinstance(error, HintsUnavailable) else error
    return isinstance(origin, ResponseError) and any(sign in str(origin) for sign in _GONE)


def stream_name(namespace: str, family: str, origin: str | None = None) -> str:
    """A family's stream; on the local default one for each origin, so that nobody reads what is another's."""
    return f"{namespace}:tasks:{family}{f'@{origin}' if origin else ''}"


def parse(family: str, entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> Hint:
    """Make a hint of an entry, whatever is in it. A deleted entry has no fields."""
    fields = fields or {}
    value = fields.get(FIELD.encode())
    text = value.decode("ascii", "replace") if value is not None else ""
    return Hint(family, entry_id.decode(), text.lower() if len(fields) == 1 and is_id(text) else None, fields)


class Streams:
    """The synchronous side: sending hints, acknowledging, and what the reconciler and operators ask.

    Args:
        dsn: Redis URL.
        namespace: first part of every key.
        timeout_s: bound for connecting and for each reply, in seconds.
        origin: whose streams these are, on the local default.
    """

    def __init__(self, dsn: str, *, namespace: str, timeout_s: float = 1.0, origin: str | None = None) -> None:
        self.namespace = namespace
        self.origin = origin
        # One retry layer, the task row: the client itself tries once.
        self.client = redis.Redis.from_url(
            dsn, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )

    def of(self, origin: str | None) -> Streams:
        """The streams of another origin, over the same connections."""
        other = copy.copy(self)
        other.origin = origin
        return other

    def everyones(self) -> list[Streams]:
        """The streams of every origin there is: on configured servers just these."""
        if self.origin is None:
            return [self]
        with translating():
            found = [key.decode("utf-8", "replace") for key in self.client.scan_iter(f"{self.namespace}:tasks:*@*")]
        return [self.of(origin) for origin in sorted({self.origin, *(name.rpartition("@")[2] for name in found)})]

    def _stream(self, family: str) -> str:
        return stream_name(self.namespace, family, self.origin)

    def close(self) -> None:
        self.client.close()

    def ping(self) -> None:
        """Raise HintsUnavailable unless Redis answers."""
        with translating():
            self.client.ping()

    def send(self, hints: Iterable[tuple[str, str]]) -> None:
        """Append one hint per (family, task id), all in one round trip.

        Straight on a connection: redis-py's pipeline costs three times as much for each command.
        """
        commands: list[Any] = [("XADD", self._stream(family), "*", FIELD, task_id) for family, task_id in hints]
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
                self.client.xgroup_create(self._stream(family), self.namespace, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
                return False
        return True

    def watermark(self, family: str) -> Watermark | None:
        """Read how far the family's hints have been delivered (design: "Reconciler"). None: there is no group."""
        name = self._stream(family)
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
        if not following:
            return Watermark(now, now)
        waiting_since = int(following[0][0].split(b"-")[0]) / 1000
        # An entry may bear any id, so a date that can't be one counts as long ago.
        waiting_since = min(max(waiting_since, 0.0), now.timestamp())
        return Watermark(now, dt.datetime.fromtimestamp(waiting_since, dt.timezone.utc))

    def owned(self, family: str, consumer: str, entry_ids: Sequence[str]) -> list[str]:
        """Return those of the entries that are pending for this consumer."""
        name = self._stream(family)
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
                name = self._stream(family)
                self.client.xclaim(name, self.namespace, consumer, 0, [*mine], idle=0, justid=True)

    def drop_consumer_if_idle(self, family: str, consumer: str) -> None:
        """Remove a consumer that has no pending entries; with some it stays, so that they are not lost sight of."""
        name = self._stream(family)
        with translating():
            if not self.client.xpending_range(name, self.namespace, "-", "+", 1, consumername=consumer):
                self.client.xgroup_delconsumer(name, self.namespace, consumer)

    def drop_dead_consumers(self, family: str, *, idle_s: float) -> int:
        """Remove consumers that have read nothing for so long and have no pending entries. Returns how many."""
        name = self._stream(family)
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
        name = self._stream(family)
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
        return [_pending(family, row, entry, self.origin) for row, entry in zip(listed, found, strict=True)]

    def lag(self, family: str) -> int:
        """How many of a family's entries no worker has read yet."""
        name = self._stream(family)
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
                pipe.xack(self._stream(family), self.namespace, entry_id)
                pipe.xdel(self._stream(family), entry_id)
            pipe.execute()

    def dead_letters(self, *, most: int = DEAD_LETTER_CAP) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        with translating():
            found: Any = self.client.xrange(f"{self.namespace}:sys_dead_letters", count=most)
        return [_dead_letter(entry_id, fields) for entry_id, fields in found]

    def retry_dead_letter(self, letter: DeadLetter) -> None:
        """Put an entry back into its stream as it was, and its letter away, in one MULTI."""
        with translating():
            pipe = self.client.pipeline(transaction=True)
            if letter.fields:
                pipe.xadd(letter.stream, dict[Any, Any](letter.fields))
            pipe.xdel(f"{self.namespace}:sys_dead_letters", letter.id)
            pipe.execute()

    def remove_dead_letter(self, letter_id: str) -> bool:
        """Delete a dead letter. Returns whether there was one."""
        with translating():
            return bool(self.client.xdel(f"{self.namespace}:sys_dead_letters", letter_id))


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


def _dead_letter(entry_id: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    original = {name[6:]: value for name, value in fields.items() if name.startswith(b"field:")}
    return DeadLetter(entry_id.decode(), text(b"stream"), text(b"entry"), text(b"reason"), original)


class HintReader:
    """The worker's asyncio side: blocking reads on one connection, acknowledgements on another.

    Args:
        block_s: how long one read waits for an entry; the reply timeout exceeds it.
    """

    def __init__(
        self,
        dsn: str,
        *,
        namespace: str,
        consumer: str,
        block_s: float = 0.5,
        timeout_s: float = 2.0,
        origin: str | None = None,
    ) -> None:
        from redis import asyncio as aioredis
        from redis.asyncio.retry import Retry as AsyncRetry

        self.namespace = namespace
        self.consumer = consumer
        self.origin = origin
        self._block_ms = int(block_s * 1000)

        def client(reply_s: float) -> Any:
            return aioredis.Redis.from_url(
                dsn,
                socket_timeout=reply_s,
                socket_connect_timeout=timeout_s,
                retry=AsyncRetry(NoBackoff(), 0),
            )

        self._reading = client(block_s + timeout_s)
        self._writing = client(timeout_s)

    def _stream(self, family: str) -> str:
        return stream_name(self.namespace, family, self.origin)

    async def close(self) -> None:
        """Close both connections."""
        await self._reading.aclose()
        await self._writing.aclose()

    async def ensure_groups(self, families: Sequence[str]) -> None:
        """Create what is missing of the families' groups, from the very first entry on."""
        with translating():
            for family in families:
                try:
                    await self._writing.xgroup_create(self._stream(family), self.namespace, id="0", mkstream=True)
                except ResponseError as error:
                    if "BUSYGROUP" not in str(error):
                        raise

    async def read(self, families: Sequence[str], *, each: int) -> list[Hint]:
        """Read at most `each` new entries per family, waiting up to the block time for the first."""
        names = {self._stream(family): family for family in families}
        with translating():
            reply = await self._reading.xreadgroup(
                self.namespace, self.consumer, dict.fromkeys(names, ">"), count=each, block=self._block_ms
            )
        items = reply.items() if isinstance(reply, dict) else reply or []
        hints = []
        for name, entries in items:
            # redis-py nests a dict reply's entries one list deeper.
            flat = entries[0] if entries and isinstance(entries[0], list) else entries
            hints += [parse(names[name.decode()], entry_id, fields) for entry_id, fields in flat]
        return hints

    async def take_over(self, family: str, *, idle_s: float, cursor: str, most: int) -> tuple[str, list[Hint]]:
        """Claim entries that have been pending for longer than `idle_s`; returns where to go on and the hints."""
        name = self._stream(family)
        with translating():
            reply = await self._writing.xautoclaim(
                name, self.namespace, self.consumer, int(idle_s * 1000), start_id=cursor, count=most
            )
        # Redis 6.2 answers nil for an entry that was deleted while pending; later servers drop it themselves.
        hints = [parse(family, entry_id, fields) for entry_id, fields in reply[1] if entry_id is not None]
        return reply[0].decode() if isinstance(reply[0], bytes) else str(reply[0]), hints

    async def discard(self, hints: Sequence[Hint], *, resend: Sequence[tuple[str, str]] = ()) -> None:
        """Acknowledge and delete entries, in one MULTI; hints to (family, task id) may be sent anew in it."""
        if not hints and not resend:
            return
        with translating():
            pipe = self._writing.pipeline(transaction=True)
            for family, task_id in resend:
                pipe.xadd(self._stream(family), {FIELD: task_id})
            for family in {hint.family for hint in hints}:
                ids = [hint.entry_id for hint in hints if hint.family == family]
                pipe.xack(self._stream(family), self.namespace, *ids)
                pipe.xdel(self._stream(family), *ids)
            await pipe.execute()

    async def bury(self, hints: Sequence[Hint], *, reason: str) -> None:
        """Move entries that name no task to the dead letters, whole, in one MULTI with their end."""
        if not hints:
            return
        with translating():
            pipe = self._writing.pipeline(transaction=True)
            for hint in hints:
                stream = self._stream(hint.family)
                letter: dict[Any, Any] = {b"reason": reason, b"stream": stream, b"entry": hint.entry_id}
                letter |= {b"field:" + key: value for key, value in hint.fields.items()}
                pipe.xadd(f"{self.namespace}:sys_dead_letters", letter, maxlen=DEAD_LETTER_CAP, approximate=True)
                pipe.xack(stream, self.namespace, hint.entry_id)
                pipe.xdel(stream, hint.entry_id)
            await pipe.execute()
