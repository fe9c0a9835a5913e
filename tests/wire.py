"""A process' way to its servers over TCP, each through a fault proxy of its own."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from tests.proxy import Proxy, Target
from tests.stand import Stand


class Wire:
    """Two proxies of one process: before PostgreSQL and before Redis."""

    def __init__(self, stand: Stand) -> None:
        self._database = stand.database
        self.postgres = Proxy(Target(path=str(stand.servers.postgres.sockets / ".s.PGSQL.5432")))
        self.redis = Proxy(Target(path=_path(stand.servers.valkey.url)))

    @property
    def variables(self) -> dict[str, str]:
        """The settings of a process that goes this way."""
        return {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{self.postgres.port}/{self._database}",
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}",
        }

    @property
    def both(self) -> tuple[Proxy, Proxy]:
        return self.postgres, self.redis

    def stop(self) -> None:
        for proxy in self.both:
            proxy.stop()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()


def _path(url: str) -> str:
    return unquote(urlsplit(url).path)
