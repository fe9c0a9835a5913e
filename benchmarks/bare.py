"""The bare limit: the same HTTP client in a plain loop, without queue and database.

Usage: python -m benchmarks.bare URL CALLS AT_ONCE httpx|aiohttp; prints the seconds it took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp

from workers.transport import Transport, chunks

BODY = {"model": "qwen", "messages": [{"role": "user", "content": "hello"}], "stream": True}


async def run(url: str, calls: int, at_once: int, kind: str) -> float:
    """Make the calls, so many at once, and return the seconds."""
    left = iter(range(calls))
    body = json.dumps(BODY).encode()
    headers = {"Content-Type": "application/json"}

    async def with_httpx() -> None:
        for _ in left:
            async with transport.open("POST", url, headers, body) as reply:
                async for _chunk in chunks(reply):
                    pass

    async def with_aiohttp() -> None:
        for _ in left:
            async with session.post(url, data=body, headers=headers) as reply:
                await reply.read()

    if kind == "httpx":
        transport = Transport(at_once)
        began = time.monotonic()
        await asyncio.gather(*(with_httpx() for _ in range(at_once)))
        took = time.monotonic() - began
        await transport.close()
        return took
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:
        began = time.monotonic()
        await asyncio.gather(*(with_aiohttp() for _ in range(at_once)))
        return time.monotonic() - began


if __name__ == "__main__":
    print(asyncio.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
