"""The worker's asyncio side of the task streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError, WatchError

from shared.streams.clients import async_client
from shared.streams.dead_letters import DEAD_LETTER_CAP, refuse_full
from shared.streams.door import translating
from shared.streams.hints import FIELD, Hint, parse
from shared.streams.keys import Keys

_BURY_TRIES = 5


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
        self.namespace = namespace
        self.consumer = consumer
        self._block_ms = int(block_s * 1000)

        self.keys = Keys(namespace, origin=origin)
        self._reading = async_client(dsn, connect_s=timeout_s, reply_s=block_s + timeout_s)
        self._writing = async_client(dsn, connect_s=timeout_s, reply_s=timeout_s)

    async def close(self) -> None:
        """Close both connections."""
        await self._reading.aclose()
        await self._writing.aclose()

    async def ensure_groups(self, families: Sequence[str]) -> None:
        """Create what is missing of the families' groups, from the very first entry on."""
        with translating():
            for family in families:
                try:
                    await self._writing.xgroup_create(self.keys.tasks(family), self.namespace, id="0", mkstream=True)
                except ResponseError as error:
                    if "BUSYGROUP" not in str(error):
                        raise

    async def read(self, families: Sequence[str], *, each: int) -> list[Hint]:
        """Read at most `each` new entries per family, waiting up to the block time for the first."""
        names = {self.keys.tasks(family): family for family in families}
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
        name = self.keys.tasks(family)
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
                pipe.xadd(self.keys.tasks(family), {FIELD: task_id})
            for family in {hint.family for hint in hints}:
                ids = [hint.entry_id for hint in hints if hint.family == family]
                pipe.xack(self.keys.tasks(family), self.namespace, *ids)
                pipe.xdel(self.keys.tasks(family), *ids)
            await pipe.execute()

    async def bury(self, hints: Sequence[Hint], *, reason: str) -> None:
        """Move entries that name no task to the dead letters, whole, in one MULTI with their end.

        Raises:
            HintsUnavailable: nothing was moved, also because what lies under the dead letters' key takes no entry.
        """
        if not hints:
            return
        with translating():
            for tries_left in reversed(range(_BURY_TRIES)):
                try:
                    await self._move(hints, reason)
                    return
                except WatchError:
                    # Another worker buried something in between.
                    if not tries_left:
                        raise

    async def _move(self, hints: Sequence[Hint], reason: str) -> None:
        async with self._writing.pipeline(transaction=True) as pipe:
            # EXEC goes on after a command that fails, so what could make XADD fail is looked at first, and watched.
            await pipe.watch(self.keys.dead_letters)
            found = await pipe.type(self.keys.dead_letters)
            if found == b"stream":
                refuse_full(await pipe.xinfo_stream(self.keys.dead_letters))
            elif found != b"none":
                raise ResponseError(f"WRONGTYPE {self.keys.dead_letters} is no stream: remove or rename it")
            pipe.multi()
            for hint in hints:
                stream = self.keys.tasks(hint.family)
                letter: dict[Any, Any] = {b"reason": reason, b"stream": stream, b"entry": hint.entry_id}
                letter |= {b"field:" + key: value for key, value in hint.fields.items()}
                pipe.xadd(self.keys.dead_letters, letter, maxlen=DEAD_LETTER_CAP, approximate=True)
                pipe.xack(stream, self.namespace, hint.entry_id)
                pipe.xdel(stream, hint.entry_id)
            await pipe.execute()
