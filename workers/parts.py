"""The parts of a worker: every thread and task is watched, and the first that ends by itself ends the worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

log = logging.getLogger("aitask.worker")


class PartEnded(Exception):
    """A part of the worker ended by itself. A bug: it keeps its traceback, and the cause is the part's own error."""

    def __init__(self, part: str) -> None:
        super().__init__(f"the part {part!r} of the worker ended by itself")
        self.part = part


class Parts:
    """Starts parts and tells which one ended first. Made on the loop; threads report to it from anywhere."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[PartEnded] = self._loop.create_future()
        self._tasks: list[asyncio.Task[Any]] = []
        self._stopping = False
        # What no part of ours wraps, a library's thread or a pool's, is seen here.
        threading.excepthook = self._uncaught

    def task(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a part on the loop. It must go on until `stopping` or a cancellation."""
        started = self._loop.create_task(coroutine, name=name)
        started.add_done_callback(lambda task: self._task_ended(name, task))
        self._tasks.append(started)
        return started

    def thread(self, name: str, function: Callable[[], None]) -> None:
        """Start a part on a daemon thread of its own: nothing that it waits for delays the exit."""

        def watched() -> None:
            error: BaseException | None = None
            try:
                function()
            except BaseException as caught:  # whatever it is, a thread that is gone must be seen
                error = caught
            self.ended(name, error)

        threading.Thread(target=watched, name=f"aitask-{name}", daemon=True).start()

    def watch(self, name: str, task: asyncio.Task[Any]) -> None:
        """Watch a task that may end in peace, such as a call: only an error of it counts."""
        task.add_done_callback(lambda done: self._failed_only(name, done))

    def stopping(self) -> None:
        """From here on parts may end."""
        self._stopping = True

    async def wait(self) -> PartEnded:
        """Wait for the first part that ends by itself, and return what is to be raised for it."""
        return await asyncio.shield(self._ended)

    def cancel(self) -> None:
        """Cancel every task that is left."""
        self.stopping()
        for task in self._tasks:
            task.cancel()

    def ended(self, name: str, error: BaseException | None) -> None:
        """Report the end of a part; for any thread."""
        # A loop that is closed has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._note, name, error)

    def _note(self, name: str, error: BaseException | None) -> None:
        if self._stopping and error is None:
            return
        failure = PartEnded(name)
        failure.__cause__ = error
        if self._ended.done():
            log.error("a part of the worker ended by itself: %s", name, exc_info=_info(error))
        else:
            self._ended.set_result(failure)

    def _task_ended(self, name: str, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            self._note(name, task.exception())
        elif not self._stopping:
            self._note(name, asyncio.CancelledError())

    def _failed_only(self, name: str, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._note(name, task.exception())

    def _uncaught(self, args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread is not None else "a thread"
        self.ended(name, args.exc_value)


_Info = tuple[type[BaseException], BaseException, "TracebackType | None"]


def _info(error: BaseException | None) -> _Info | None:
    return (type(error), error, error.__traceback__) if error is not None else None
