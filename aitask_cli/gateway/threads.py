"""Blocking calls off the event loop: as many at once as there are database connections, no more."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

CONNECTIONS = 8


class Threads:
    """A pool of threads. A call that hangs does not hold up the exit: they are daemons."""

    def __init__(self, number: int = CONNECTIONS, *, name: str = "aitask-gateway") -> None:
        self._number = number
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        for index in range(number):
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True).start()

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function on a thread and return what it returns, or raise what it raises."""
        future: Future[T] = Future()
        self._waiting.put((future, function))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads end; what waits is dropped."""
        for _ in range(self._number):
            self._waiting.put(None)

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            future, function = waiting
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
