"""The job for arq: a sorted set in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers import job as jobs

COMMAND = ("arq", "benchmarks.peers.arq_.WorkerSettings")
SETTINGS = RedisSettings(unix_socket_path=jobs.REDIS.removeprefix("unix://").partition("?")[0])
_made: dict[str, Any] = {}


async def job(ctx: dict[str, Any], task_id: str, model: str, prompt: str) -> None:
    await jobs.job(task_id, model, prompt)


class WorkerSettings:
    """What arq's command reads."""

    functions: ClassVar = [job]
    redis_settings = SETTINGS
    max_jobs = jobs.SLOTS
    keep_result = 0
    poll_delay = 0.05


async def start() -> None:
    _made["redis"] = await create_pool(SETTINGS)


async def enqueue(tasks: Sequence[tuple[str, str, str]]) -> None:
    for task in tasks:
        await _made["redis"].enqueue_job("job", *task)
