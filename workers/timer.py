"""The time limits of one call: as a whole, and between two pieces of payload."""

from __future__ import annotations

import asyncio
from types import TracebackType

from shared.errors import UpstreamError


class CallTimer:
    """A context manager that ends the block when a limit passes.

    Re-arming only moves a number; the loop's own timer looks at it when it fires, so thousands of pieces a second
    cost no timers.

    Raises:
        UpstreamError: at the end of the block, `timeout` or `idle_timeout`, when a limit passed.
    """

    def __init__(self, *, total_s: float, idle_s: float) -> None:
        self._total_s = total_s
        self._idle_s = idle_s
        self.expired: str | None = None
        self._forgiven = False

    def __enter__(self) -> CallTimer:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        now = self._loop.time()
        self._end = now + self._total_s
        self._idle_end = now + self._idle_s
        self._handle = self._loop.call_at(min(self._end, self._idle_end), self._fire)
        return self

    def rearm(self, idle_s: float | None = None) -> None:
        """Payload has come: the idle limit counts from now. A shorter one may be given for what follows."""
        self._idle_end = self._loop.time() + (self._idle_s if idle_s is None else idle_s)
        if idle_s is not None:
            self._handle.cancel()
            self._handle = self._loop.call_at(min(self._end, self._idle_end), self._fire)

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
        if self.expired == "timeout":
            message = f"no whole answer within {self._total_s:g} s"
        else:
            message = f"nothing came for {self._idle_s:g} s"
        raise UpstreamError(message, kind=self.expired, retryable=True) from None
