"""Blocking calls off the event loop: as many at once as there are database connections, no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

CONNECTIONS = 8


class Threads:
    """A pool of threads for the store."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="aitask-gateway")

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function on a thread and return what it returns, or raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
