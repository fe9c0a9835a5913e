"""The bare limit: the same HTTP client in a plain loop, without queue and database.

Usage: python -m benchmarks.bare URL CALLS AT_ONCE; prints the seconds it took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop
from yarl import URL

from workers.transport import Transport

BODY = {"model": "qwen", "messages": [{"role": "user", "content": "hello"}], "stream": True}
HEADERS = {"Content-Type": "application/json"}


async def run(url: URL, calls: int, at_once: int) -> float:
    """Make the calls, so many at once, and return the seconds."""
    left = iter(range(calls))
    body = json.dumps(BODY).encode()
    transport = Transport(at_once)

    async def ask() -> None:
        for _ in left:
            async with transport.open("POST", url, HEADERS, body) as reply:
                await reply.read()

    began = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(at_once)))
    took = time.monotonic() - began
    await transport.close()
    return took


if __name__ == "__main__":
    print(uvloop.run(run(URL(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
