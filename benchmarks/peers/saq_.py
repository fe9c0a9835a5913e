"""The job for saq: lists in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import asyncio as aioredis
from saq.queue.redis import RedisQueue

from benchmarks.peers import job as jobs

COMMAND = ("saq", "benchmarks.peers.saq_.settings")
queue: Any = RedisQueue(aioredis.Redis.from_url(jobs.REDIS, max_connections=2000), max_concurrent_ops=64)


async def job(ctx: dict[str, Any], *, task_id: str, model: str, prompt: str) -> None:
    await jobs.job(task_id, model, prompt)


settings: dict[str, Any] = {"queue": queue, "functions": [job], "concurrency": jobs.SLOTS}


async def start() -> None:
    await queue.connect()


async def enqueue(tasks: Sequence[tuple[str, str, str]]) -> None:
    for task_id, model, prompt in tasks:
        await queue.enqueue("job", task_id=task_id, model=model, prompt=prompt, timeout=60, ttl=-1)
