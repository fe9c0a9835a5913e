"""Keeping a signed-in endpoint warm, and its family paused for as long as the sign-in has expired."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from shared.errors import AitaskError, UpstreamError
from shared.kinds import ErrorKind
from shared.logs import TRACE_OF
from shared.store import fleet
from shared.store.engine import Database
from workers.dbthread import DbThread

if TYPE_CHECKING:
    from workers.families.generic import Behaviour
    from workers.upstream import UpstreamClient

log = logging.getLogger("aitask.keepalive")

# The error kind, the attempt's outcome and the pause's kind.
SIGNED_OUT = ErrorKind.SIGNED_OUT
# How soon an expired sign-in is looked at again: a person may renew it any moment.
RETRY_S = 5.0


class KeepAlive:
    """A light call every so often. An expired sign-in pauses the family for every worker; a renewed one resumes it."""

    def __init__(self, behaviour: Behaviour, upstream: UpstreamClient, db: Database, thread: DbThread) -> None:
        self._behaviour = behaviour
        self._upstream = upstream
        self._db = db
        self._thread = thread
        self._out: bool | None = None
        self._bug = ""
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """A call was refused for want of a sign-in: look now."""
        self._poked.set()

    async def run(self) -> None:
        """Look for ever; an endpoint without a session needs none."""
        if not self._behaviour.keepalive_s:
            await asyncio.Event().wait()
        while True:
            await self.look()
            every = self._behaviour.keepalive_s
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._poked.wait(), min(RETRY_S, every) if self._out else every)
            self._poked.clear()

    async def look(self) -> None:
        """Make the call, and pause or resume the family when it tells that the sign-in has changed."""
        reason = None
        try:
            await self._upstream.look(self._behaviour)
        except UpstreamError as error:
            # An endpoint that is merely away says nothing about the sign-in; the breaker sees to that.
            if error.kind != SIGNED_OUT:
                return
            reason = error.message
        except Exception as bug:  # an endpoint that can't even be asked must not end the worker
            self._once(bug)
            return
        if (reason is not None) != self._out:
            await self._change(reason)

    def _once(self, bug: Exception) -> None:
        """Say what is wrong, and say it again only when it changes."""
        if self._bug != repr(bug):
            self._bug = repr(bug)
            family = self._behaviour.family.name
            log.error("the endpoint can't be asked: %s", bug, extra={"family": family, TRACE_OF: bug})

    async def _change(self, reason: str | None) -> None:
        family = self._behaviour.family.name
        try:
            if reason is None:
                resumed = await self._thread.call(lambda: fleet.resume(self._db, family, kind=SIGNED_OUT))
                if resumed:
                    log.warning("signed in again; the family goes on", extra={"family": family})
            else:
                await self._thread.call(
                    lambda: fleet.pause(self._db, family, kind=SIGNED_OUT, reason=reason, for_s=None)
                )
                log.error("the family is paused: %s", reason, extra={"family": family})
        except AitaskError:
            return
        self._out = reason is not None
