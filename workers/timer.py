"""The time limits of one call: as a whole, before its first payload, and between two pieces of payload."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from shared.errors import UpstreamError


class CallTimer:
    """A context manager that ends the block when a limit passes.

    Re-arming only moves a number; the loop's own timer looks at it when it fires, so thousands of pieces a second
    cost no timers.

    Args:
        total_s: the whole call, but for the time that it only queues.
        idle_s: between two pieces of payload.
        first_s: before the first one; by default the same.
        queue_s: how long an upstream may put off the first one by signs of life.

    Raises:
        UpstreamError: at the end of the block, `timeout` or `idle_timeout`, when a limit passed.
    """

    def __init__(self, *, total_s: float, idle_s: float, first_s: float | None = None, queue_s: float = 0.0) -> None:
        self._total_s = total_s
        self._idle_s = idle_s
        self._first_s = idle_s if first_s is None else first_s
        self._queue_s = queue_s
        self._begun = False
        self._queued = False
        self.expired: str | None = None
        self._forgiven = False

    def __enter__(self) -> CallTimer:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        now = self._loop.time()
        self._end = now + self._total_s
        self._idle_end = now + self._first_s
        self._queue_end = now + self._queue_s
        self._handle = self._loop.call_at(min(self._end, self._idle_end), self._fire)
        return self

    def rearm(self, idle_s: float | None = None) -> None:
        """Payload has come: the idle limit counts from now. A shorter one may be given for what follows."""
        self._begun = True
        self._idle_end = self._loop.time() + (self._idle_s if idle_s is None else idle_s)
        if idle_s is not None:
            self._handle.cancel()
            self._handle = self._loop.call_at(min(self._end, self._idle_end), self._fire)

    def queued(self) -> None:
        """A sign of life without payload: before the first one, the call has its turn still to come."""
        if self._begun:
            return
        now = self._loop.time()
        if now < self._queue_end:
            self._queued = True
            self._idle_end = min(now + self._first_s, max(self._queue_end, self._idle_end))
            self._end = now + self._total_s

    def whole(self) -> None:
        """Nothing can come before everything does: from now on only the whole limit holds."""
        self._idle_s = self._first_s = self._idle_end = math.inf

    def forgive(self) -> None:
        """The limit passed when all had been said: no error."""
        self._forgiven = True
        if self._task is not None and hasattr(self._task, "uncancel"):
            self._task.uncancel()

    def _fire(self) -> None:
        now = self._loop.time()
        if now < min(self._end, self._idle_end):
            self._handle = self._loop.call_at(min(self._end, self._idle_end), self._fire)
            return
        self.expired = "timeout" if now >= self._end else "idle_timeout"
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        if self.expired is None or self._forgiven or kind is not asyncio.CancelledError:
            return
        if self._task is not None and hasattr(self._task, "uncancel"):
            self._task.uncancel()
        raise UpstreamError(self._said(), kind=self.expired, retryable=True) from None

    def _said(self) -> str:
        if self.expired == "timeout":
            return f"no whole answer within {self._total_s:g} s"
        if self._begun:
            return f"nothing came for {self._idle_s:g} s"
        if self._queued and self._loop.time() >= self._queue_end:
            return f"nothing but signs of life came for {self._queue_s:g} s"
        return f"no word of an answer came for {self._first_s:g} s"
