"""The gateway's measures: submissions next to direct ones, memory over many requests, a thousand watchers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import aiohttp

from benchmarks.stage import all_done, mock, now_mb, stage, upstream
from shared.submission import Request, plan, submit
from tests.stand import COMMAND, Stand, wait_for

AT_ONCE = 16
BODY = {"prompt": "hello", "model": "qwen,gemini,deepseek"}


@dataclass
class Running:
    """A gateway as a process of its own."""

    pid: int
    url: str


@contextlib.contextmanager
def running_gateway(stand: Stand) -> Iterator[Running]:
    """Run `aitask gateway` for a stand."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen(
        [str(COMMAND), "gateway", "--port", str(port)], env=stand.env, cwd=stand.home,
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def listening() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        wait_for(listening, what="the gateway")
        yield Running(process.pid, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


async def _post(url: str, number: int) -> float:
    left = iter(range(number))
    async with aiohttp.ClientSession() as session:

        async def some() -> None:
            for _ in left:
                async with session.post(f"{url}/v1/chat/completions", json=BODY) as reply:
                    assert reply.status == 200, await reply.text()
                    await reply.read()

        began = time.monotonic()
        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        return number / (time.monotonic() - began)


def gateway(submissions: int = 1500, requests: int = 50_000, watchers: int = 1000) -> None:
    """Submissions per second, memory over 50,000 requests, and 1,000 watchers of one process."""
    with mock() as up, stage(up.url) as stand, running_gateway(stand) as running:
        checked = plan(Request(prompt="hello", models=BODY["model"].split(",")), stand.settings)
        direct, through = [], []
        for _ in range(3):
            through.append(asyncio.run(_post(running.url, submissions)))
            with stand.db() as db, stand.streams() as streams, ThreadPoolExecutor(4) as pool:
                began = time.monotonic()
                list(pool.map(lambda _: submit(db, streams, checked), range(submissions)))
                direct.append(submissions / (time.monotonic() - began))
        plain, over = sorted(direct)[1], sorted(through)[1]
        print(
            f"gateway: {over:.0f} batches of three per second through it, {plain:.0f} direct: {over / plain:.2f} of it"
        )
        before = now_mb(running.pid)
        asyncio.run(_get(f"{running.url}/v1/models", requests // 2))
        half = now_mb(running.pid)
        asyncio.run(_get(f"{running.url}/v1/models", requests // 2))
        print(f"gateway: memory {before:.0f} MiB, after {requests // 2:,} requests {half:.0f}, "
              f"after {requests:,} {now_mb(running.pid):.0f}")  # fmt: skip
    with upstream("--latency", "1", "--tps", "20", "--tokens", "100") as slow, stage(slow.url) as stand:
        stand.start_worker("qwen", "-c", "200")
        with running_gateway(stand) as running:
            batches = [stand.submit(f"p{n}", "qwen").batch_id for n in range(100)]
            before = now_mb(running.pid)
            told = asyncio.run(_watch(running.url, batches, watchers))
            all_done(stand, 100, timeout_s=60)
            print(f"gateway: {watchers} watchers of 100 batches, {told} told the end; "
                  f"memory {before:.0f} to {now_mb(running.pid):.0f} MiB")  # fmt: skip


async def _get(url: str, number: int) -> None:
    left = iter(range(number))
    async with aiohttp.ClientSession() as session:

        async def some() -> None:
            for _ in left:
                async with session.get(url) as reply:
                    await reply.read()

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def _watch(url: str, batches: list[str], number: int) -> int:
    connector = aiohttp.TCPConnector(limit=number)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def watch(batch_id: str) -> bool:
            async with session.get(f"{url}/v1/batches/{batch_id}/events") as reply:
                said = ""
                async for line in reply.content:
                    if line.startswith(b"data: "):
                        said = line[6:].decode()
                return bool(json.loads(said).get("status") == "COMPLETED")

        return sum(await asyncio.gather(*(watch(batches[n % len(batches)]) for n in range(number))))
