"""The job for streaq: Redis streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streaq import Worker

from benchmarks.peers import job as jobs

COMMAND = ("streaq", "run", "benchmarks.peers.streaq_:worker")
worker: Any = Worker(redis_url=jobs.REDIS, concurrency=jobs.SLOTS)


@worker.task()
async def job(task_id: str, model: str, prompt: str) -> None:
    await jobs.job(task_id, model, prompt)


async def start() -> None:
    await worker.__aenter__()


async def stop() -> None:
    await worker.__aexit__(None, None, None)


async def enqueue(tasks: Sequence[tuple[str, str, str]]) -> None:
    await worker.enqueue_many([job.enqueue(*task) for task in tasks])
