"""The worker's asyncio side of the task streams."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from redis.exceptions import ResponseError, WatchError

from shared.errors import HintsUnavailable
from shared.streams.dead_letters import DEAD_LETTER_CAP, refuse_full
from shared.streams.door import FOREIGN, translated, translating
from shared.streams.hints import FIELD, Hint, parse
from shared.streams.installation import Ownership
from shared.streams.keys import Keys
from shared.streams.nodes import AsyncNodes, again_when_moved

_BURY_TRIES = 5
# In a Cluster every family is read by itself, and waited for in turns as short as this.
_TURN_S = 0.025


class HintReader:
    """The worker's asyncio side: blocking reads on one connection, acknowledgements on another.

    Args:
        block_s: how long one read waits for an entry; the reply timeout exceeds it.
        ownership: what is known of the namespace's owner; while that is another, hints can't be had.
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
        ownership: Ownership | None = None,
    ) -> None:
        self.namespace = namespace
        self.consumer = consumer
        self._block_ms = int(block_s * 1000)

        self._keys = Keys(namespace, origin=origin)
        self._ownership = ownership or Ownership()
        self._reading = AsyncNodes(dsn, connect_s=timeout_s, reply_s=block_s + timeout_s)
        self._writing = AsyncNodes(dsn, connect_s=timeout_s, reply_s=timeout_s)
        self._owed: HintsUnavailable | None = None

    async def close(self) -> None:
        """Close every connection."""
        await self._reading.close()
        await self._writing.close()

    async def _named(self) -> Keys:
        with translating():
            return replace(self._keys, clustered=await self._writing.ready())

    @asynccontextmanager
    async def _at(self, key: str) -> AsyncIterator[Any]:
        """The writing client of the server that has a key; what it raises is translated."""
        self._ownership.refuse(self._keys)
        with translating():
            try:
                yield await self._writing.at(key)
            except FOREIGN:
                self._writing.forget()
                raise

    @again_when_moved
    async def ensure_groups(self, families: Sequence[str]) -> None:
        """Create what is missing of the families' groups, from the very first entry on."""
        keys = await self._named()
        for family in families:
            async with self._at(keys.tasks(family)) as client:
                try:
                    await client.xgroup_create(keys.tasks(family), self.namespace, id="0", mkstream=True)
                except ResponseError as error:
                    if "BUSYGROUP" not in str(error):
                        raise

    async def read(self, families: Sequence[str], *, each: int) -> list[Hint]:
        """Read at most `each` new entries per family, waiting up to the block time for the first."""
        self._ownership.refuse(self._keys)
        keys = await self._named()
        names = {keys.tasks(family): family for family in families}
        if keys.clustered:
            return await self._read_nodes(names, each=each)
        with translating():
            try:
                return await self._read(self._reading.first, names, each=each, block_ms=self._block_ms)
            except FOREIGN:
                self._reading.forget()
                self._writing.forget()
                raise

    async def _read(self, client: Any, names: dict[str, str], *, each: int, block_ms: int | None) -> list[Hint]:
        reply = await client.xreadgroup(
            self.namespace, self.consumer, dict.fromkeys(names, ">"), count=each, block=block_ms
        )
        items = reply.items() if isinstance(reply, dict) else reply or []
        hints = []
        for name, entries in items:
            # redis-py nests a dict reply's entries one list deeper.
            flat = entries[0] if entries and isinstance(entries[0], list) else entries
            hints += [parse(names[name.decode()], entry_id, fields) for entry_id, fields in flat]
        return hints

    async def _read_nodes(self, names: dict[str, str], *, each: int) -> list[Hint]:
        """The same from a Cluster: all families at once, first without waiting, then in short turns."""
        end = time.monotonic() + self._block_ms / 1000
        block_ms = None
        while True:
            hints = await self._turn(names, each=each, block_ms=block_ms)
            if hints or time.monotonic() > end:
                return hints
            block_ms = self._block_ms if len(names) == 1 else int(_TURN_S * 1000)

    async def _turn(self, names: dict[str, str], *, each: int, block_ms: int | None) -> list[Hint]:
        """Read each family once. What fails is raised when nothing came, or else with the next turn."""
        if self._owed is not None:
            owed, self._owed = self._owed, None
            raise owed from owed.__cause__

        async def read(client: Any, name: str) -> list[Hint]:
            return await self._read(client, {name: names[name]}, each=each, block_ms=block_ms)

        with translating():
            try:
                replies = await self._reading.each(names, read)
            except FOREIGN:
                self._reading.forget()
                raise
        failed = [reply for reply in replies if isinstance(reply, BaseException)]
        hints = [hint for reply in replies if isinstance(reply, list) for hint in reply]
        if failed:
            self._reading.forget()
            self._fail(failed, now=not hints)
        return hints

    def _fail(self, failed: Sequence[BaseException], *, now: bool) -> None:
        for error in failed:
            if not isinstance(error, FOREIGN):
                raise error
        with_cause = translated(failed[0])
        with_cause.__cause__ = failed[0]
        if now:
            raise with_cause
        self._owed = with_cause

    @again_when_moved
    async def take_over(self, family: str, *, idle_s: float, cursor: str, most: int) -> tuple[str, list[Hint]]:
        """Claim entries that have been pending for longer than `idle_s`; returns where to go on and the hints."""
        name = (await self._named()).tasks(family)
        async with self._at(name) as client:
            reply = await client.xautoclaim(
                name, self.namespace, self.consumer, int(idle_s * 1000), start_id=cursor, count=most
            )
        # Redis 6.2 answers nil for an entry that was deleted while pending; later servers drop it themselves.
        hints = [parse(family, entry_id, fields) for entry_id, fields in reply[1] if entry_id is not None]
        return reply[0].decode() if isinstance(reply[0], bytes) else str(reply[0]), hints

    async def discard(self, hints: Sequence[Hint], *, resend: Sequence[tuple[str, str]] = ()) -> None:
        """Acknowledge and delete entries, in one MULTI; hints to (family, task id) may be sent anew in it.

        In a Cluster each family has its own MULTI.
        """
        families = {hint.family for hint in hints} | {family for family, _ in resend}
        if not families:
            return
        clustered = (await self._named()).clustered
        for part in [{family} for family in families] if clustered else [families]:
            await self._discard(
                [hint for hint in hints if hint.family in part], [again for again in resend if again[0] in part]
            )

    @again_when_moved
    async def _discard(self, hints: Sequence[Hint], resend: Sequence[tuple[str, str]]) -> None:
        keys = await self._named()
        async with self._at(keys.tasks(hints[0].family if hints else resend[0][0])) as client:
            pipe = client.pipeline(transaction=True)
            for family, task_id in resend:
                pipe.xadd(keys.tasks(family), {FIELD: task_id})
            for family in {hint.family for hint in hints}:
                ids = [hint.entry_id for hint in hints if hint.family == family]
                pipe.xack(keys.tasks(family), self.namespace, *ids)
                pipe.xdel(keys.tasks(family), *ids)
            await pipe.execute()

    async def bury(self, hints: Sequence[Hint], *, reason: str) -> None:
        """Move entries that name no task to the dead letters, whole, in one MULTI with their end.

        In a Cluster they are added there first and end then. What another installation under this namespace has sent
        just ends: it names a task of theirs.

        Raises:
            HintsUnavailable: nothing was moved, also because what lies under the dead letters' key takes no entry.
        """
        if hints and await self._is_shared():
            ours = [hint for hint in hints if hint.task_id is None]
            await self.discard([hint for hint in hints if hint.task_id is not None])
            hints = ours
        if not hints:
            return
        keys = await self._named()
        for tries_left in reversed(range(_BURY_TRIES)):
            try:
                await (self._copy if keys.clustered else self._move)(keys, hints, reason)
                break
            except HintsUnavailable as error:
                # Another worker buried something in between.
                if not tries_left or not isinstance(error.__cause__, WatchError):
                    raise
        if keys.clustered:
            await self.discard(hints)

    async def _is_shared(self) -> bool:
        """Whether another installation has said that it sends its hints here too."""
        if self._ownership.mine is None:
            return False
        others = self._keys.others
        async with self._at(others) as client:
            return bool(await client.exists(others))

    @again_when_moved
    async def _copy(self, keys: Keys, hints: Sequence[Hint], reason: str) -> None:
        async with self._at(keys.dead_letters) as client, client.pipeline(transaction=True) as pipe:
            for hint in hints:
                letter = _letter(keys, hint, reason)
                pipe.xadd(keys.dead_letters, letter, maxlen=DEAD_LETTER_CAP, approximate=True)
            await pipe.execute()

    async def _move(self, keys: Keys, hints: Sequence[Hint], reason: str) -> None:
        async with self._at(keys.dead_letters) as client, client.pipeline(transaction=True) as pipe:
            # EXEC goes on after a command that fails, so what could make XADD fail is looked at first, and watched.
            await pipe.watch(keys.dead_letters)
            found = await pipe.type(keys.dead_letters)
            if found == b"stream":
                refuse_full(await pipe.xinfo_stream(keys.dead_letters))
            elif found != b"none":
                raise ResponseError(f"WRONGTYPE {keys.dead_letters} is no stream: remove or rename it")
            pipe.multi()
            for hint in hints:
                stream = keys.tasks(hint.family)
                letter = _letter(keys, hint, reason)
                pipe.xadd(keys.dead_letters, letter, maxlen=DEAD_LETTER_CAP, approximate=True)
                pipe.xack(stream, self.namespace, hint.entry_id)
                pipe.xdel(stream, hint.entry_id)
            await pipe.execute()


def _letter(keys: Keys, hint: Hint, reason: str) -> dict[Any, Any]:
    letter: dict[Any, Any] = {b"reason": reason, b"stream": keys.tasks(hint.family), b"entry": hint.entry_id}
    return letter | {b"field:" + key: value for key, value in hint.fields.items()}
