"""What a command works with: settings, the database and the streams, local or configured."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from aitask_cli.announcing import announce
from aitask_cli.version import version
from shared.errors import SettingFault, UsageFault
from shared.loading import load
from shared.settings import Settings, for_demo

if TYPE_CHECKING:
    from aitask_cli.local.background import Wanted
    from aitask_cli.local.stack import LocalStack
    from shared.domain import BatchView
    from shared.store.engine import Database
    from shared.streams import Streams

Say = Callable[[str], None]


@dataclass
class Session:
    """The servers a command uses, opened on first use. `stack` is None on configured servers."""

    settings: Settings
    stack: LocalStack | None
    say: Say
    loaded_at: float = field(default_factory=time.monotonic)

    @cached_property
    def db(self) -> Database:
        """The database; its tables are checked first."""
        from shared.store import schema

        database = self.unchecked_db
        schema.check(database)
        return database

    @cached_property
    def unchecked_db(self) -> Database:
        """The database, whatever is in it."""
        from shared import servers

        return servers.reading(self.settings)

    @cached_property
    def streams(self) -> Streams:
        """The task streams. Short timeouts: a submission must not hang on a Redis that is away."""
        from shared import servers

        return servers.streams(self.settings, timeout_s=servers.SUBMIT_REDIS_TIMEOUT_S)

    def ensure_worker(self, families: Collection[str]) -> list[str]:
        """See to it that the families are served. Returns those that are not, which only happens on configured servers.

        On the local default a background worker is started where one is missing.
        """
        from shared.store import fleet

        if self.stack is None:
            return sorted(set(families) - fleet.served_families(self.db))
        from aitask_cli.local import background

        started = background.ensure(self.stack.paths, self._wanted, families, workers=lambda: fleet.workers(self.db))
        if started:
            self.say(f"started a worker in the background; its log: {self.stack.paths.log / background.LOG_NAME}")
        return []

    @cached_property
    def _wanted(self) -> Wanted:
        from aitask_cli.local.background import Wanted
        from aitask_cli.local.origins import secret

        assert self.stack is not None
        mark = self.settings.fingerprint(version(), secret=secret(self.stack.paths))
        return Wanted(self.settings, mark, self.loaded_at)

    def make_way(self) -> None:
        """Before something is submitted: no worker with older settings of ours may take it up."""
        if self.stack is not None:
            from aitask_cli.local import background

            background.make_way(self.stack.paths, self._wanted)

    def keep_worked(self, batch: BatchView) -> None:
        """Start a background worker again if the one that had this batch has died; whoever waits sees to it."""
        from aitask_cli.local import background

        ours = self.settings.origin
        left = {t.family for t in batch.tasks if not t.status.terminal and t.origin in (None, ours)}
        if self.stack is not None and left and not background.alive(self.stack.paths, ours):
            self.ensure_worker(left)

    def leaver(self, release: Callable[[], None]) -> Callable[[Callable[[], bool]], bool]:
        """Return what lets the background worker leave: the servers stop with it, unless somebody uses them.

        Args:
            release: gives up the worker's lock. Called before the servers can be used again, so that nobody takes a
                worker that is leaving for one that works.
        """
        stack = self.stack
        if stack is None:
            raise UsageFault("a background worker belongs to local servers", remedy="run: aitask worker")

        def leave(nothing_left: Callable[[], bool]) -> bool:
            def last_check() -> bool:
                gone = nothing_left()
                if gone:
                    release()
                return gone

            left = stack.leave(only_if=last_check)
            if not left:
                stack.enter()
            return left

        return leave

    def close(self) -> None:
        """Close what was opened; the last user of local servers stops them."""
        for name in ("unchecked_db", "streams"):
            if name in self.__dict__:
                self.__dict__[name].close()
        if self.stack is not None:
            from aitask_cli.local import background

            stack = self.stack
            stack.leave(only_if=lambda: not background.any_alive(stack.paths))


def settings_for(*, demo: bool, say: Say | None = None) -> Settings:
    """Read the settings, for the demo when asked.

    Args:
        say: told, once for each, what has to be said of them.

    Raises:
        SettingFault: a value is bad, or only one of the two servers is configured.
    """
    settings = load(demo=demo)
    if say is not None:
        announce(settings, say)
    if demo:
        return for_demo(settings)
    if settings.local_database != settings.local_redis:
        given, missing = ("DATABASE_URL", "REDIS_URL") if settings.local_redis else ("REDIS_URL", "DATABASE_URL")
        raise SettingFault(f"{given} is set and {missing} is not", remedy="set both, or neither for local servers")
    return settings


@contextmanager
def open_session(*, demo: bool, say: Say, keeper: bool = False) -> Iterator[Session]:
    """Open what a command works with; on the local default the servers are started and set up when they are not.

    Args:
        keeper: whether the command itself stays with the servers, as a worker does.

    Raises:
        Unavailable: no servers are configured and none are installed, or they don't start.
    """
    settings = settings_for(demo=demo, say=say)
    session = _local_session(settings, say, keeper=keeper) if settings.local else Session(settings, None, say)
    try:
        yield session
    finally:
        session.close()


def _local_session(settings: Settings, say: Say, *, keeper: bool) -> Session:
    from aitask_cli.local.stack import LocalStack
    from shared.migrations import HEAD
    from shared.store import operate, schema

    stack = LocalStack(settings)
    stack.enter()
    started = stack.start(say)
    session = Session(stack.configured(), stack, say)
    if (schema.current(session.unchecked_db) or "") < HEAD:
        schema.upgrade(session.unchecked_db)
        if session.settings.origin is not None:
            operate.adopt(session.unchecked_db, session.settings.origin)
    if started and not keeper:
        # Whoever starts the servers leaves a worker with them: it stops them again when there is nothing to do.
        session.ensure_worker([family.name for family in session.settings.families])
    return session
