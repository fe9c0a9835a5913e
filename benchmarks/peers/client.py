"""A peer's submitting side, a process of its own: `python -m benchmarks.peers.client NAME load|rate|idle …`.

load PROMPTS: submit so many. rate SECONDS: print batches per second, 16 in flight. idle ASKS: print the monotonic time
before each submission, a line each, and wait for a line on standard input in between.
"""

from __future__ import annotations

import asyncio
import sys
import time
from importlib import import_module
from typing import Any

from benchmarks.peers import job as jobs

AT_ONCE = 16


async def load(peer: Any, prompts: int) -> None:
    left = iter(range(prompts))

    async def some() -> None:
        for number in left:
            await jobs.submit(f"prompt {number}", peer.enqueue)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def rate(peer: Any, seconds: float) -> None:
    end, made = time.monotonic() + seconds, 0

    async def some() -> None:
        nonlocal made
        while time.monotonic() < end:
            await jobs.submit("hello", peer.enqueue)
            made += 1

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    print(made / seconds)


async def idle(peer: Any, asks: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(asks):
        await loop.run_in_executor(None, sys.stdin.readline)
        began = time.monotonic()
        await jobs.submit("hello", peer.enqueue)
        print(began, flush=True)


async def main(name: str, what: str, amount: str) -> None:
    peer = import_module(f"benchmarks.peers.{name}_")
    await peer.start()
    await {"load": load, "rate": rate, "idle": idle}[what](peer, int(amount))
    if hasattr(peer, "stop"):
        await peer.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
