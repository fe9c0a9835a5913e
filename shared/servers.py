"""The one maker of servers: the only place that turns settings into clients of PostgreSQL and Redis.

Each client has the profile of its user. Imports are made where they are used: most commands need only one of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared import redis_url
from shared.postgres_url import parse_postgres_url
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.live import LivePublisher, LiveReader, LiveTail
    from shared.store.engine import Database
    from shared.streams import HintReader, Ownership, Streams

READING_TIMEOUT_S = 10.0
# A submission must not hang on a Redis that is away.
SUBMIT_REDIS_TIMEOUT_S = 0.5


def ignored_parameters(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The parameters of the servers' URLs that tune other people's clients and mean nothing here, by setting."""
    found = {
        "DATABASE_URL": parse_postgres_url(settings.database_url).ignored if settings.database_url else (),
        "REDIS_URL": redis_url.parse(settings.redis_url).ignored if settings.redis_url else (),
    }
    return {name: ignored for name, ignored in found.items() if ignored}


def hot(settings: Settings, *, name: str, connections: int = 1) -> Database:
    """PostgreSQL for a worker's part: statements planned once and always by index, everything over within a third of
    the lease. A worker has at most 4 connections in all.

    Args:
        name: what the connections call themselves in pg_stat_activity.
    """
    from shared.store.engine import Database, Profile

    profile = Profile.hot(lease_s=settings.lease_s)
    return Database(settings.database_dsn, connections=connections, profile=profile, name=name, pooled=settings.pooled)


def reading(
    settings: Settings, *, name: str = "aitask", connections: int = 2, timeout_s: float = READING_TIMEOUT_S
) -> Database:
    """PostgreSQL for people's commands and the gateway: the planner is free, the timeout is its own."""
    from shared.store.engine import Database, Profile

    profile = Profile.reading(timeout_s=timeout_s)
    return Database(settings.database_dsn, connections=connections, profile=profile, name=name, pooled=settings.pooled)


def streams(settings: Settings, *, timeout_s: float = 1.0, ownership: Ownership | None = None) -> Streams:
    """Redis, for sending hints and looking at streams."""
    from shared.streams import Streams

    return Streams(
        settings.redis_dsn, namespace=settings.namespace, timeout_s=timeout_s, origin=settings.origin,
        ownership=ownership,
    )  # fmt: skip


def hint_reader(settings: Settings, *, consumer: str, ownership: Ownership | None = None) -> HintReader:
    """Redis, for a worker's reads and acknowledgements."""
    from shared.streams import HintReader

    return HintReader(
        settings.redis_dsn, namespace=settings.namespace, consumer=consumer, origin=settings.origin,
        ownership=ownership,
    )  # fmt: skip


def live_publisher(settings: Settings) -> LivePublisher:
    """Redis, for what a worker's running answers say."""
    from shared.live import LivePublisher

    return LivePublisher(settings.redis_dsn, namespace=settings.namespace)


def live_reader(settings: Settings) -> LiveReader:
    """Redis, for one watcher of running answers."""
    from shared.live import LiveReader

    return LiveReader(settings.redis_dsn, namespace=settings.namespace)


def live_tail(settings: Settings) -> LiveTail:
    """Redis, for a gateway's many watchers."""
    from shared.live import LiveTail

    return LiveTail(settings.redis_dsn, namespace=settings.namespace)
