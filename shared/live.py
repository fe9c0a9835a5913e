"""Live output: partial text on its way to watchers, best effort. The final text always comes from the database.

One Redis stream per task and attempt, `N:live:TASK:ATTEMPT`: entries with the fields `k` (`t` text, `r` reasoning,
`e` end) and `x`. Whole up to 1 MiB, then its tail; it expires.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.streams.door import FOREIGN
from shared.streams.keys import Keys
from shared.streams.nodes import AsyncNodes, Nodes

FLUSH_S = 0.075
FLUSH_BYTES = 512
KEEP_BYTES = 1 << 20
# Long enough for the slowest answer; a stream that has ended is only kept for those who are reading it.
EXPIRE_S = 3600
EXPIRE_ENDED_S = 120
# In a Cluster streams are looked at so often while their next entries are waited for.
_TURN_S = 0.05


class Feed:
    """The live output of one attempt."""

    __slots__ = ("begun", "kept_bytes", "of", "pending", "pending_bytes", "sizes", "wake")

    def __init__(self, of: tuple[str, int], wake: Callable[[], None]) -> None:
        self.of = of
        self.wake = wake
        self.pending: list[tuple[str, str]] = []
        self.pending_bytes = 0
        self.sizes: deque[int] = deque()
        self.kept_bytes = 0
        self.begun = False

    def piece(self, text: str, *, reasoning: bool) -> None:
        """Take a piece of text; it is sent with the next flush."""
        self.pending.append(("r" if reasoning else "t", text))
        self.pending_bytes += len(text)
        if self.pending_bytes >= FLUSH_BYTES:
            self.wake()

    def drop(self) -> None:
        """What waits is sent, or can't be."""
        self.pending, self.pending_bytes = [], 0


class LivePublisher:
    """The worker's side: pieces are gathered for 75 ms or 512 bytes and sent in one pipeline for all tasks."""

    def __init__(self, dsn: str, *, namespace: str, timeout_s: float = 2.0) -> None:
        self._keys = Keys(namespace)
        self._nodes = AsyncNodes(dsn, connect_s=timeout_s, reply_s=timeout_s)
        self._feeds: dict[tuple[str, int], Feed] = {}
        self._ended: list[Feed] = []
        self._wake = asyncio.Event()

    async def close(self) -> None:
        """Close the connection; what is not sent is dropped."""
        await self._nodes.close()

    def open(self, task_id: str, attempt: int) -> Feed:
        """Begin the live output of an attempt."""
        feed = self._feeds[task_id, attempt] = Feed((task_id, attempt), self._wake.set)
        return feed

    def end(self, feed: Feed) -> None:
        """The attempt is over. An answer that was never flushed needs no stream at all."""
        if self._feeds.pop(feed.of, None) is not None and feed.begun:
            self._ended.append(feed)

    async def run(self) -> None:
        """Flush for ever."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), FLUSH_S)
            self._wake.clear()
            if self._ended or any(feed.pending for feed in self._feeds.values()):
                await self._flush()

    async def _flush(self) -> None:
        ended, self._ended = self._ended, []
        feeds = [feed for feed in self._feeds.values() if feed.pending]
        try:
            keys = replace(self._keys, clustered=await self._nodes.ready())
            for part in _multis([*feeds, *ended], alone=keys.clustered):
                client = await self._nodes.at(keys.live(*part[0].of))
                pipe = client.pipeline(transaction=True)
                for feed in part:
                    _write(pipe, keys.live(*feed.of), feed, end=feed in ended)
                await pipe.execute()
        except FOREIGN:
            # Best effort: watchers get the whole text from the database in the end.
            self._nodes.forget()
            for feed in feeds:
                feed.drop()
            await asyncio.sleep(0.5)


def _multis(feeds: list[Feed], *, alone: bool) -> list[list[Feed]]:
    """What goes in one MULTI: everything, or in a Cluster, where every task has a slot of its own, one feed."""
    return [[feed] for feed in feeds] if alone else [feeds] if feeds else []


def _write(pipe: Any, name: str, feed: Feed, *, end: bool) -> None:
    if feed.pending:
        _append(pipe, name, feed)
    if end:
        pipe.xadd(name, {"k": "e", "x": ""})
        pipe.expire(name, EXPIRE_ENDED_S)


def _append(pipe: Any, name: str, feed: Feed) -> None:
    runs: list[tuple[str, list[str]]] = []
    for kind, text in feed.pending:
        if not runs or runs[-1][0] != kind:
            runs.append((kind, []))
        runs[-1][1].append(text)
    feed.drop()
    for kind, parts in runs:
        text = "".join(parts)
        data = text.encode("utf-8", "replace")
        feed.sizes.append(len(data))
        feed.kept_bytes += len(data)
        while feed.kept_bytes > KEEP_BYTES and len(feed.sizes) > 1:
            feed.kept_bytes -= feed.sizes.popleft()
        pipe.xadd(name, {"k": kind, "x": data}, maxlen=len(feed.sizes), approximate=False)
    # Each time, and in one MULTI with what makes the stream: a FLUSHALL may have taken the last one.
    pipe.expire(name, EXPIRE_S)
    feed.begun = True


@dataclass(frozen=True, slots=True)
class LivePiece:
    """A piece of a running answer; `end` marks that the attempt is over."""

    task_id: str
    attempt: int
    text: str
    reasoning: bool
    end: bool = False


class LiveReader:
    """The watcher's side: replays each stream from its start and goes on from there."""

    def __init__(self, dsn: str, *, namespace: str, timeout_s: float = 1.0) -> None:
        self._keys = Keys(namespace)
        self._nodes = Nodes(dsn, connect_s=timeout_s, reply_s=timeout_s + 1.0)
        self._cursors: dict[str, str] = {}

    def close(self) -> None:
        self._nodes.close()

    def read(self, running: Sequence[tuple[str, int]], *, block_s: float) -> list[LivePiece] | None:
        """Wait for pieces of these (task id, attempt) pairs. None when Redis is away: the caller waits by itself."""
        if not running:
            return None
        try:
            keys = replace(self._keys, clustered=self._nodes.ready())
            names = {keys.live(*pair): pair for pair in running}
            self._cursors = {name: self._cursors.get(name, "0") for name in names}
            reply = self._in_turns(block_s) if keys.clustered else self._waiting(block_s)
        except FOREIGN:
            self._nodes.forget()
            return None
        pieces = []
        for raw_name, entries in _items(reply):
            name = raw_name.decode()
            for entry_id, fields in entries:
                self._cursors[name] = entry_id.decode()
                pieces.append(_piece(names[name], fields))
        return pieces

    def _waiting(self, block_s: float) -> Any:
        block_ms = max(1, int(block_s * 1000))
        return self._nodes.first.xread(dict[Any, Any](self._cursors), block=block_ms, count=1000)

    def _in_turns(self, block_s: float) -> Any:
        """The same in a Cluster, where one read can't wait for streams of several slots."""
        end = time.monotonic() + block_s
        while True:
            found: list[Any] = []
            for name, cursor in self._cursors.items():
                found += _items(self._nodes.at(name).xread({name: cursor}, count=1000))
            if found or time.monotonic() > end:
                return found
            time.sleep(_TURN_S)


class LiveTail:
    """Many watchers' side: reads many streams at once without waiting, each from where its caller left it."""

    def __init__(self, dsn: str, *, namespace: str, timeout_s: float = 1.0) -> None:
        self._keys = Keys(namespace)
        self._nodes = AsyncNodes(dsn, connect_s=timeout_s, reply_s=timeout_s)

    async def close(self) -> None:
        await self._nodes.close()

    async def read(self, cursors: Mapping[tuple[str, int], str]) -> list[tuple[str, LivePiece]]:
        """Return (entry id, piece) of what came after these cursors; nothing when Redis is away."""
        if not cursors:
            return []
        try:
            keys = replace(self._keys, clustered=await self._nodes.ready())
            names = {keys.live(*pair): pair for pair in cursors}
            reply = await self._read({name: cursors[pair] for name, pair in names.items()}, alone=keys.clustered)
        except FOREIGN:
            self._nodes.forget()
            return []
        return [
            (entry_id.decode(), _piece(names[name.decode()], fields))
            for name, entries in reply
            for entry_id, fields in entries
        ]

    async def _read(self, cursors: dict[str, str], *, alone: bool) -> list[tuple[bytes, list[Any]]]:
        if not alone:
            return _items(await self._nodes.first.xread(cursors, count=1000))
        found = []
        for client, names in await self._nodes.by_client(cursors):
            pipe = client.pipeline(transaction=False)
            for name in names:
                pipe.xread({name: cursors[name]}, count=1000)
            for reply in await pipe.execute():
                found += _items(reply)
        return found


def _items(reply: Any) -> list[tuple[bytes, list[Any]]]:
    if isinstance(reply, Mapping):
        return [
            (name, entries[0] if entries and isinstance(entries[0], list) else entries)
            for name, entries in reply.items()
        ]
    return list(reply or [])


def _piece(pair: tuple[str, int], fields: Mapping[bytes, bytes]) -> LivePiece:
    kind = fields.get(b"k")
    return LivePiece(*pair, fields.get(b"x", b"").decode("utf-8", "replace"), kind == b"r", kind == b"e")
