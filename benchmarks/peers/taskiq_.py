"""The job for taskiq with taskiq-redis: a Redis stream with acknowledgement."""

from __future__ import annotations

from collections.abc import Sequence

from taskiq_redis import RedisStreamBroker

from benchmarks.peers import job as jobs

broker = RedisStreamBroker(url=jobs.REDIS)
COMMAND = (
    "taskiq", "worker", "benchmarks.peers.taskiq_:broker", "--workers", "1", "--max-async-tasks", str(jobs.SLOTS),
    "--log-level", "ERROR",
)  # fmt: skip


@broker.task
async def job(task_id: str, model: str, prompt: str) -> None:
    await jobs.job(task_id, model, prompt)


async def start() -> None:
    await broker.startup()


async def enqueue(tasks: Sequence[tuple[str, str, str]]) -> None:
    for task in tasks:
        await job.kiq(*task)
