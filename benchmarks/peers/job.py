"""The job that every queue does: one call to the upstream, one result row. And the submission before it.

What it works with comes from the environment, for a queue's own worker starts it: PEER_URL, PEER_DIRECTORY (where
PostgreSQL's socket is), PEER_DATABASE, PEER_REDIS, PEER_SLOTS.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import threading
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

MODELS = ("qwen", "gemini", "deepseek")
TABLE = """
CREATE TABLE peer_task (id uuid PRIMARY KEY, batch_id uuid NOT NULL, model text NOT NULL, prompt text NOT NULL,
    status smallint NOT NULL DEFAULT 0, response_text text, finished_at timestamptz)
"""
_DONE = "UPDATE peer_task SET status = 1, response_text = {}, finished_at = now() WHERE id = {}"
_INSERT = (
    "INSERT INTO peer_task (id, batch_id, model, prompt) VALUES ($1, $4, $5, $8), ($2, $4, $6, $8), ($3, $4, $7, $8)"
)

REDIS = os.environ.get("PEER_REDIS", "redis://localhost")
SLOTS = int(os.environ.get("PEER_SLOTS", "128"))

_made: dict[str, Any] = {}
_local = threading.local()


def body(model: str, prompt: str) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}]}).encode()


async def pool() -> Any:
    """The process's asyncpg pool; whoever comes first has it made."""
    if "pool" not in _made:
        _made["pool"] = asyncio.create_task(_new_pool())
    return await _made["pool"]


async def _new_pool() -> Any:
    import asyncpg

    return await asyncpg.create_pool(
        host=os.environ["PEER_DIRECTORY"], user="postgres", database=os.environ["PEER_DATABASE"], min_size=4, max_size=4
    )


async def job(task_id: str, model: str, prompt: str) -> None:
    """Do one task with aiohttp and asyncpg."""
    import aiohttp

    if "session" not in _made:
        connector = aiohttp.TCPConnector(limit=SLOTS)
        _made["session"] = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
    headers = {"Content-Type": "application/json"}
    async with _made["session"].post(_url(), data=body(model, prompt), headers=headers) as reply:
        said = await reply.json()
    text = said["choices"][0]["message"]["content"]
    await (await pool()).execute(_DONE.format("$1", "$2"), text, uuid.UUID(task_id))


def blocking_job(task_id: str, model: str, prompt: str) -> None:
    """Do one task with the standard library's client and psycopg2, each thread with connections of its own."""
    import psycopg2

    if not hasattr(_local, "http"):
        parts = urlsplit(_url())
        _local.http = http.client.HTTPConnection(str(parts.hostname), parts.port)
        _local.db = psycopg2.connect(
            host=os.environ["PEER_DIRECTORY"], user="postgres", dbname=os.environ["PEER_DATABASE"]
        )
        _local.db.autocommit = True
    _local.http.request("POST", urlsplit(_url()).path, body(model, prompt), {"Content-Type": "application/json"})
    text = json.loads(_local.http.getresponse().read())["choices"][0]["message"]["content"]
    with _local.db.cursor() as cursor:
        cursor.execute(_DONE.format("%s", "%s"), (text, task_id))


async def submit(prompt: str, enqueue: Callable[[Sequence[tuple[str, str, str]]], Awaitable[None]]) -> None:
    """Store a prompt's three tasks in one commit, then hand them to the queue."""
    ids = [uuid.uuid4() for _ in MODELS]
    await (await pool()).execute(_INSERT, *ids, uuid.uuid4(), *MODELS, prompt)
    await enqueue([(str(task_id), model, prompt) for task_id, model in zip(ids, MODELS, strict=True)])


def _url() -> str:
    return f"{os.environ['PEER_URL']}/v1/chat/completions"
