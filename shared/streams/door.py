"""The one door for what redis-py, asyncio, uvloop and the system raise: beyond it there is only HintsUnavailable.

redis-py translates what the sockets it knows raise. A transport that was closed under it raises in its own ways:
RuntimeError ("the handler is closed") from uvloop, AttributeError where the writer is gone, UnicodeError from a host
name. The connection classes here turn all of them into redis' own ConnectionError, so that its pools let go of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis import asyncio as aioredis
from redis import exceptions
from redis import sentinel as sync_sentinel
from redis.asyncio import sentinel as async_sentinel
from redis.exceptions import RedisError, ResponseError

from shared.errors import HintsUnavailable

FOREIGN = (RedisError, OSError, EOFError, asyncio.TimeoutError)

# What Redis says when a group, or the stream under a blocked reader, has gone.
_GONE = ("NOGROUP", "UNBLOCKED", "no longer exists")
_CLUSTER = "REDIS_URL=redis+cluster://HOST:PORT"
# By the type that redis-py gives to the code of a refusal: what it means here, and what mends it.
_REFUSALS: dict[type[Exception], tuple[str, str]] = {
    exceptions.ReadOnlyError: (
        "it is a replica, which takes no writes",
        "point REDIS_URL at its primary, or use redis+sentinel://HOST:26379/NAME",
    ),
    exceptions.AuthenticationError: (
        "it refuses the user or the password, or wants one",
        "REDIS_URL=redis://USER:PASSWORD@HOST:PORT, with @ : / in them as %40 %3A %2F",
    ),
    exceptions.NoPermissionError: (
        "its user may not do what is needed",
        "redis-cli ACL SETUSER NAME '~NAMESPACE:*' +@all -@admin +info +cluster",
    ),
    exceptions.AskError: ("it is a Cluster whose slots are elsewhere", _CLUSTER),
    exceptions.MovedError: ("it is a Cluster whose slots are elsewhere", _CLUSTER),
    exceptions.ClusterCrossSlotError: ("it is a Cluster", _CLUSTER),
    exceptions.OutOfMemoryError: ("its memory is full", "raise maxmemory: redis-cli config set maxmemory 0"),
}


@contextmanager
def translating() -> Iterator[None]:
    """Turn what redis-py raises into ours; a URL with a password never gets into the message."""
    try:
        yield
    except FOREIGN as error:
        raise translated(error) from error


def translated(error: BaseException) -> HintsUnavailable:
    """Put a foreign error into our words."""
    for kind, (meaning, remedy) in _REFUSALS.items():
        if isinstance(error, kind):
            return HintsUnavailable(f"Redis is not available: {meaning}", remedy=remedy)
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return HintsUnavailable(f"Redis is not available: {reason}", remedy="see: aitask doctor")


def group_gone(error: BaseException) -> bool:
    """Tell whether an error means that the consumer group has to be made again."""
    origin = error.__cause__ if isinstance(error, HintsUnavailable) else error
    return isinstance(origin, ResponseError) and any(sign in str(origin) for sign in _GONE)


@contextmanager
def _as_redis_says() -> Iterator[None]:
    try:
        yield
    except RedisError:
        raise
    except Exception as error:
        # Around calls of the library alone: whatever comes out of a transport means that the connection is no more.
        raise exceptions.ConnectionError(f"the connection broke: {type(error).__name__}: {error}") from error


class _Sync:
    """Over a redis-py connection: it raises redis' errors only, and is closed without a word."""

    def connect(self, *args: Any, **more: Any) -> Any:
        with _as_redis_says():
            return super().connect(*args, **more)  # type: ignore[misc]

    def send_packed_command(self, *args: Any, **more: Any) -> Any:
        with _as_redis_says():
            return super().send_packed_command(*args, **more)  # type: ignore[misc]

    def read_response(self, *args: Any, **more: Any) -> Any:
        with _as_redis_says():
            return super().read_response(*args, **more)  # type: ignore[misc]

    def can_read(self, *args: Any, **more: Any) -> Any:
        with _as_redis_says():
            return super().can_read(*args, **more)  # type: ignore[misc]

    def disconnect(self, *args: Any, **more: Any) -> None:
        try:
            with _as_redis_says():
                super().disconnect(*args, **more)  # type: ignore[misc]
        except RedisError:
            vars(self).update(_sock=None)


class _Async:
    """The same over an asyncio connection."""

    async def connect(self, *args: Any, **more: Any) -> Any:
        with _as_redis_says():
            return await super().connect(*args, **more)  # type: ignore[misc]

    async def send_packed_command(self, *args: Any, **more: Any) -> Any:
        with _as_redis_says():
            return await super().send_packed_command(*args, **more)  # type: ignore[misc]

    async def read_response(self, *args: Any, **more: Any) -> Any:
        with _as_redis_says():
            return await super().read_response(*args, **more)  # type: ignore[misc]

    async def can_read(self, *args: Any, **more: Any) -> Any:
        with _as_redis_says():
            return await super().can_read(*args, **more)  # type: ignore[misc]

    async def can_read_destructive(self, *args: Any, **more: Any) -> Any:
        with _as_redis_says():
            return await super().can_read_destructive(*args, **more)  # type: ignore[misc]

    async def disconnect(self, *args: Any, **more: Any) -> None:
        try:
            with _as_redis_says():
                await super().disconnect(*args, **more)  # type: ignore[misc]
        except RedisError:
            vars(self).update(_reader=None, _writer=None)


class SyncTcp(_Sync, redis.Connection):
    pass


class SyncTls(_Sync, redis.SSLConnection):
    pass


class SyncSocket(_Sync, redis.UnixDomainSocketConnection):
    pass


class SyncSentinel(_Sync, sync_sentinel.SentinelManagedConnection):
    pass


class SyncSentinelTls(_Sync, sync_sentinel.SentinelManagedSSLConnection):
    pass


class AsyncTcp(_Async, aioredis.Connection):
    pass


class AsyncTls(_Async, aioredis.SSLConnection):
    pass


class AsyncSocket(_Async, aioredis.UnixDomainSocketConnection):
    pass


class AsyncSentinel(_Async, async_sentinel.SentinelManagedConnection):
    pass


class AsyncSentinelTls(_Async, async_sentinel.SentinelManagedSSLConnection):
    pass
