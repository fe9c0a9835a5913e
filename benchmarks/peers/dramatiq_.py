"""The job for dramatiq with Redis: threads."""

from __future__ import annotations

from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import job as jobs

THREADS = 32
COMMAND = ("dramatiq", "benchmarks.peers.dramatiq_", "--processes", "1", "--threads", str(THREADS))
dramatiq.set_broker(RedisBroker(url=jobs.REDIS))


@dramatiq.actor(max_retries=0)
def job(task_id: str, model: str, prompt: str) -> None:
    jobs.blocking_job(task_id, model, prompt)


async def start() -> None:
    return None


async def enqueue(tasks: Sequence[tuple[str, str, str]]) -> None:
    for task in tasks:
        job.send(*task)
