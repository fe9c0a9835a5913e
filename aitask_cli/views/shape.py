"""The JSON shape, version 1: documented in README.md, held by a test. Fields are only ever added."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from shared.domain import AttemptView, BatchLine, BatchView, TaskView

VERSION = 1


def dumps(body: dict[str, Any]) -> str:
    """JSON with its version, for people too: indented, characters as they are."""
    return json.dumps({"version": VERSION, **body}, indent=2, ensure_ascii=False)


def batch(view: BatchView) -> dict[str, Any]:
    """A batch with its tasks."""
    return {
        "batch": {
            "id": view.id,
            "conversation_id": view.conversation_id,
            "status": view.status.value,
            "prompt": view.prompt,
            "system": view.system,
            "options": view.options,
            "created_at": view.created_at.isoformat(),
            "tasks": [task(one) for one in view.tasks],
        }
    }


def task(view: TaskView) -> dict[str, Any]:
    """One task. Durations in seconds, `status` as the stored integer, `state` its name."""
    return {
        "id": view.id,
        "model": view.model,
        "family": view.family,
        "status": int(view.status),
        "state": view.status.name,
        "attempt": view.attempt,
        "failures": view.failures,
        "rescues": view.rescues,
        "response_text": view.response_text,
        "reasoning_text": view.reasoning_text,
        "error_kind": view.error_kind,
        "error_msg": view.error_msg,
        "http_status": view.http_status,
        "cost_time": view.cost_time_s,
        "first_token": view.first_token_s,
        "prompt_tokens": view.prompt_tokens,
        "completion_tokens": view.completion_tokens,
        "finish_reason": view.finish_reason,
        "upstream_model": view.upstream_model,
        "again_in": round(view.run_in_s, 3) if view.status == 0 and view.run_in_s > 0 else None,
        "worker": view.worker,
        "finished_at": view.finished_at.isoformat() if view.finished_at else None,
    }


def attempts(views: Sequence[AttemptView]) -> list[dict[str, Any]]:
    """A task's ended attempts."""
    return [
        {
            "number": view.number,
            "worker": view.worker,
            "started_at": view.started_at.isoformat() if view.started_at else None,
            "ended_at": view.ended_at.isoformat(),
            "outcome": view.outcome,
            "error_kind": view.error_kind,
            "error_msg": view.error_msg,
            "http_status": view.http_status,
        }
        for view in views
    ]


def batches(lines: Sequence[BatchLine]) -> dict[str, Any]:
    """A listing."""
    return {
        "batches": [
            {
                "id": line.id,
                "status": line.status.value,
                "prompt_head": line.prompt_head,
                "created_at": line.created_at.isoformat(),
                "models": list(line.models),
                "states": [status.name for status in line.statuses],
            }
            for line in lines
        ]
    }
