"""A batch's events for watchers: what its tasks do and say, each event with the cursor to go on from."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from aitask_cli.gateway.hub import Cursor, Hub, Step
from aitask_cli.gateway.shapes import TaskResult
from shared.domain import BatchView, batch_status


async def events(hub: Hub, batch: BatchView, cursor: Cursor) -> AsyncIterator[bytes]:
    """Yield server-sent events after the cursor, until every task has ended."""
    yield b"retry: 1000\n\n"
    statuses = {task.position: task.status for task in batch.tasks}
    async for step in hub.follow(batch.id, cursor):
        if step is None:
            yield b": still here\n\n"
            continue
        if step.state is not None:
            statuses[step.state.position] = step.state.status
        yield _event(step, cursor, {"batch_id": batch.id, "status": batch_status(list(statuses.values())).value})


def told(batch: BatchView, cursor: Cursor) -> bool:
    """Whether a watcher with this cursor has been told everything, the end included."""
    return all(
        task.status.terminal and (known := cursor.tasks.get(task.position)) is not None
        and known.attempt == task.attempt and known.status == int(task.status)
        for task in batch.tasks
    )  # fmt: skip


def _event(step: Step, cursor: Cursor, batch: dict[str, Any]) -> bytes:
    said: dict[str, Any]
    if step.kind == "text" and step.piece is not None:
        piece = step.piece
        said = {"task_id": piece.task_id, "attempt": piece.attempt, "text": piece.text, "reasoning": piece.reasoning}
    elif step.state is not None:
        state = step.state
        said = {
            "task_id": state.id, "model_name": state.name, "status": int(state.status), "attempt": state.attempt,
        }  # fmt: skip
        if step.task is not None:
            said |= TaskResult.of(step.task).model_dump()
    else:
        said = batch
    return f"event: {step.kind}\nid: {cursor}\ndata: {json.dumps(said, ensure_ascii=False)}\n\n".encode()
