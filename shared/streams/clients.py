"""redis-py clients of one server each. The only place that makes any."""

from __future__ import annotations

from typing import Any

import redis
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.redis_url import Kind, RedisTarget, Tls
from shared.streams import door

# redis-py's types end at Sentinel.
_sync: Any = redis.sentinel
_async: Any = aioredis.sentinel


def made(target: RedisTarget, *, connect_s: float, reply_s: float) -> Any:
    """Make a synchronous client of a server, or of the primary that Sentinel names.

    Args:
        connect_s: bound for connecting, in seconds.
        reply_s: bound for each reply, in seconds.
    """
    # One retry layer, the task row: the client itself tries once.
    options = _options(target, connect_s, reply_s) | {"retry": Retry(NoBackoff(), 0)}
    if target.kind is Kind.SENTINEL:
        asked = _sync.Sentinel(target.hosts, sentinel_kwargs=_sentinel(target, connect_s), **options)
        kind: Any = door.SyncSentinelTls if target.tls else door.SyncSentinel
        pool: Any = _sync.SentinelConnectionPool(target.service, asked, connection_class=kind, **options)
        return redis.Redis.from_pool(pool)
    kind = door.SyncSocket if target.socket else door.SyncTls if target.tls else door.SyncTcp
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **_place(target), **options))


def made_async(target: RedisTarget, *, connect_s: float, reply_s: float) -> Any:
    """Make the same for asyncio."""
    options = _options(target, connect_s, reply_s) | {"retry": AsyncRetry(NoBackoff(), 0)}
    if target.kind is Kind.SENTINEL:
        asked = _async.Sentinel(target.hosts, sentinel_kwargs=_sentinel(target, connect_s), **options)
        kind: Any = door.AsyncSentinelTls if target.tls else door.AsyncSentinel
        pool: Any = _async.SentinelConnectionPool(target.service, asked, connection_class=kind, **options)
        return aioredis.Redis.from_pool(pool)
    kind = door.AsyncSocket if target.socket else door.AsyncTls if target.tls else door.AsyncTcp
    return aioredis.Redis.from_pool(aioredis.ConnectionPool(connection_class=kind, **_place(target), **options))


def _place(target: RedisTarget) -> dict[str, Any]:
    if target.socket:
        return {"path": target.socket}
    host, port = target.hosts[0]
    return {"host": host, "port": port}


def _options(target: RedisTarget, connect_s: float, reply_s: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "db": target.db, "username": target.username, "password": target.password,
        "socket_connect_timeout": connect_s, "socket_timeout": reply_s,
    }  # fmt: skip
    return options | (_tls(target.tls) if target.tls else {})


def _sentinel(target: RedisTarget, connect_s: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": target.sentinel_username, "password": target.sentinel_password,
        "socket_connect_timeout": connect_s, "socket_timeout": connect_s,
    }  # fmt: skip
    return options | ({"ssl": True} | _tls(target.tls) if target.tls else {})


def _tls(tls: Tls) -> dict[str, Any]:
    return {
        "ssl_cert_reqs": tls.verify, "ssl_check_hostname": tls.check_hostname,
        "ssl_ca_certs": tls.ca_file, "ssl_ca_path": tls.ca_directory,
        "ssl_certfile": tls.certificate, "ssl_keyfile": tls.key, "ssl_password": tls.key_password,
    }  # fmt: skip
