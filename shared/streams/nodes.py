"""Which server a key lies on: one for all keys, or a Cluster's node for each slot.

A Cluster is asked node by node through the same clients as a single server: their connections translate every fault,
they try once, and what is one MULTI on a single server is one for each slot here. That a URL without `+cluster` leads
to a Cluster is found out with the first connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from shared.errors import HintsUnavailable
from shared.redis_url import Kind, RedisTarget, parse
from shared.streams.clients import made, made_async

Place = tuple[str, int]
F = TypeVar("F", bound=Callable[..., Any])

# What a Cluster answers while slots move: nothing was done, and a look at its map mends it.
_MOVED = (MovedError, AskError, TryAgainError, ClusterDownError)
_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Which node has which slots, as (first, last, node)."""

    ranges: tuple[tuple[int, int, Place], ...]

    def of(self, key: str) -> Place:
        """The node of a key."""
        slot = key_slot(key.encode())
        for first, last, place in self.ranges:
            if first <= slot <= last:
                return place
        raise ClusterDownError(f"no node of the Cluster has the slot {slot}")


def slot_map(reply: Sequence[Any], asked: Place) -> SlotMap:
    """Read the reply to CLUSTER SLOTS; a node that does not know its own name has the one it was asked by."""
    ranges = []
    for first, last, primary, *_ in reply:
        host = primary[0].decode() if isinstance(primary[0], bytes) else primary[0]
        ranges.append((int(first), int(last), (asked[0] if host in (None, "", "?") else host, int(primary[1]))))
    return SlotMap(tuple(ranges))


def moved(error: BaseException) -> bool:
    """Whether an error says that a slot is elsewhere now."""
    return isinstance(error.__cause__ if isinstance(error, HintsUnavailable) else error, _MOVED)


def again_when_moved(method: F) -> F:
    """Do it once more when a slot has moved: its old node has done nothing."""
    if asyncio.iscoroutinefunction(method):

        @wraps(method)
        async def on_loop(*args: Any, **more: Any) -> Any:
            try:
                return await method(*args, **more)
            except HintsUnavailable as error:
                if not moved(error):
                    raise
            await asyncio.sleep(_AGAIN_S)
            return await method(*args, **more)

        return on_loop  # type: ignore[return-value]

    @wraps(method)
    def at_once(*args: Any, **more: Any) -> Any:
        try:
            return method(*args, **more)
        except HintsUnavailable as error:
            if not moved(error):
                raise
        return method(*args, **more)

    return at_once  # type: ignore[return-value]


class _Nodes:
    def __init__(self, url: str, make: Callable[..., Any], *, connect_s: float, reply_s: float) -> None:
        self._target = parse(url)
        self._make = make
        self._bounds = {"connect_s": connect_s, "reply_s": reply_s}
        self._clients: dict[Place, Any] = {}
        self._map: SlotMap | None = None
        self.clustered = _known(self._target)
        single = self._target.kind is not Kind.CLUSTER
        # Of a Cluster any node; asked only for what every node knows.
        self.first: Any = make(self._target, **self._bounds) if single else self._node(self._target.hosts[0])

    def forget(self) -> None:
        """Something failed: look again where the slots are, and whether it is a Cluster at all."""
        self._map = None
        if not self.clustered:
            self.clustered = _known(self._target)

    def _node(self, place: Place) -> Any:
        if place not in self._clients:
            alone = replace(self._target, kind=Kind.SINGLE, hosts=(place,))
            self._clients[place] = self._make(alone, **self._bounds)
        return self._clients[place]

    def _seeds(self) -> list[Place]:
        known = [place for place in self._clients if place not in self._target.hosts]
        return [*random.sample(known, len(known)), *self._target.hosts]

    def _every(self) -> Iterable[Any]:
        return {id(client): client for client in (self.first, *self._clients.values())}.values()


def _known(target: RedisTarget) -> bool | None:
    if target.kind is Kind.CLUSTER:
        return True
    # Behind Sentinel, or on a Unix socket, there is none.
    return False if target.socket or target.kind is Kind.SENTINEL else None


class Nodes(_Nodes):
    """For threads. Every method may raise redis' own errors."""

    def __init__(self, url: str, *, connect_s: float, reply_s: float) -> None:
        super().__init__(url, made, connect_s=connect_s, reply_s=reply_s)

    def ready(self) -> bool:
        """Find out whether it is a Cluster."""
        if self.clustered is None:
            try:
                self.clustered = bool(int(self.first.info("cluster").get("cluster_enabled", 0)))
            except NoPermissionError:
                self.clustered = False
        return self.clustered

    def at(self, key: str) -> Any:
        """The client of the server that has a key."""
        if not self.ready():
            return self.first
        if self._map is None:
            self._map = self._look()
        return self._node(self._map.of(key))

    def _look(self) -> SlotMap:
        failed: RedisError = ClusterDownError("no node of the Cluster answers")
        for place in self._seeds():
            try:
                return slot_map(self._node(place).execute_command("CLUSTER SLOTS"), place)
            except ResponseError:
                raise
            except RedisError as error:
                failed = error
        raise failed

    def close(self) -> None:
        for client in self._every():
            client.close()


class AsyncNodes(_Nodes):
    """The same for asyncio."""

    def __init__(self, url: str, *, connect_s: float, reply_s: float) -> None:
        super().__init__(url, made_async, connect_s=connect_s, reply_s=reply_s)

    async def ready(self) -> bool:
        """Find out whether it is a Cluster."""
        if self.clustered is None:
            try:
                self.clustered = bool(int((await self.first.info("cluster")).get("cluster_enabled", 0)))
            except NoPermissionError:
                self.clustered = False
        return self.clustered

    async def at(self, key: str) -> Any:
        """The client of the server that has a key."""
        if not await self.ready():
            return self.first
        if self._map is None:
            self._map = await self._look()
        return self._node(self._map.of(key))

    async def by_client(self, keys: Iterable[str]) -> list[tuple[Any, list[str]]]:
        """The keys with the client of each, those of one server together."""
        found: dict[int, tuple[Any, list[str]]] = {}
        for key in keys:
            client = await self.at(key)
            found.setdefault(id(client), (client, []))[1].append(key)
        return list(found.values())

    async def each(self, keys: Iterable[str], ask: Callable[[Any, str], Awaitable[Any]]) -> list[Any]:
        """Ask the servers of these keys at once. Returns replies and errors in the keys' order."""
        placed = [(await self.at(key), key) for key in keys]
        return await asyncio.gather(*(ask(client, key) for client, key in placed), return_exceptions=True)

    async def _look(self) -> SlotMap:
        failed: RedisError = ClusterDownError("no node of the Cluster answers")
        for place in self._seeds():
            try:
                return slot_map(await self._node(place).execute_command("CLUSTER SLOTS"), place)
            except ResponseError:
                raise
            except RedisError as error:
                failed = error
        raise failed

    async def close(self) -> None:
        for client in self._every():
            await client.aclose()
