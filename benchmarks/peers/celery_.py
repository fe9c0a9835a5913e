"""The job for Celery with Redis: threads, acknowledged late."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery

from benchmarks.peers import job as jobs

THREADS = 32
COMMAND = (
    "celery", "-A", "benchmarks.peers.celery_", "worker", "--pool", "threads", "--concurrency", str(THREADS),
    "--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat",
)  # fmt: skip
app = Celery("peer", broker=jobs.REDIS.replace("unix://", "redis+socket://"))
app.conf.update(task_ignore_result=True, task_acks_late=True)


@app.task
def job(task_id: str, model: str, prompt: str) -> None:
    jobs.blocking_job(task_id, model, prompt)


async def start() -> None:
    return None


async def enqueue(tasks: Sequence[tuple[str, str, str]]) -> None:
    for task in tasks:
        job.delay(*task)
