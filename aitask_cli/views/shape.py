"""The JSON shape, version 1: documented in README.md, held by a test. Fields are only ever added."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared import columns
from shared.domain import AttemptView, BatchLine, BatchView, Cooldown, Pause, TaskView, WorkerView
from shared.families import Family
from shared.finish import is_cut
from shared.models import is_other
from shared.redaction import masked_url

if TYPE_CHECKING:
    from aitask_cli.pending import PendingView
    from aitask_cli.probe import Probe
    from aitask_cli.queues import QueueView
    from shared.store.conversations import ConversationLine
    from shared.store.syslog import LogLine
    from shared.streams import DeadLetter

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
        "name": view.name,
        "family": view.family,
        "status": int(view.status),
        "state": view.status.name,
        "attempt": view.attempt,
        "failures": view.failures,
        "rescues": view.rescues,
        **columns.as_json(view),
        "cut": view.status == 1 and is_cut(view.finish_reason),
        "other_model": view.status == 1 and is_other(view.model, view.upstream_model),
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


def conversations(lines: Sequence[ConversationLine]) -> dict[str, Any]:
    """A listing of conversations."""
    return {
        "conversations": [
            {"id": line.id, "title": line.title, "last_at": line.last_at.isoformat(), "batches": line.batches}
            for line in lines
        ]
    }


def workers(views: Sequence[WorkerView], pauses: Sequence[Pause], cooldowns: Sequence[Cooldown] = ()) -> dict[str, Any]:
    """The workers, the pauses in force, and the models left alone."""
    return {
        "workers": [
            {
                "id": view.id,
                "host": view.host,
                "pid": view.pid,
                "families": list(view.families),
                "slots": view.slots,
                "in_flight": view.in_flight,
                "started_at": view.started_at.isoformat(),
                "heartbeat_age": round(view.heartbeat_age_s, 3),
                "version": view.version,
                "state": view.state,
            }
            for view in views
        ],
        "pauses": [
            {"family": pause.family, "kind": pause.kind, "reason": pause.reason, "left": pause.left_s}
            for pause in pauses
        ],
        "cooldowns": [
            {"family": found.family, "model": found.model, "reason": found.reason, "left": found.left_s}
            for found in cooldowns
        ],
    }


def families(found: Sequence[tuple[Family, Probe]], endings: Mapping[str, str]) -> dict[str, Any]:
    """The families with their endpoints; never a key. `ending`: that the default model ends, and what mends it."""
    return {
        "families": [
            {
                "name": family.name,
                "endpoint": masked_url(family.endpoint),
                "key": family.api_key is not None,
                "default_model": family.default_model,
                "patterns": [*family.routed, *family.patterns],
                "reachable": probe.error is None,
                "error": probe.error,
                "remedy": family.missing or probe.remedy or None,
                "ending": endings.get(family.name),
                "models": list(probe.models) if probe.models is not None else None,
            }
            for family, probe in found
        ]
    }


def logs(lines: Sequence[LogLine]) -> dict[str, Any]:
    """Records of the system log, oldest first."""
    return {
        "logs": [
            {
                "at": line.at.isoformat(),
                "level": line.level,
                "logger": line.logger,
                "message": line.message,
                "fields": line.fields,
                "trace": line.trace,
            }
            for line in lines
        ]
    }


def pending(views: Sequence[PendingView]) -> dict[str, Any]:
    """Pending entries with their tasks; prompts only when they were asked for."""
    return {
        "pending": [
            {
                "entry": view.entry.entry_id,
                "family": view.entry.family,
                "consumer": view.entry.consumer,
                "idle": view.entry.idle_s,
                "deliveries": view.entry.deliveries,
                "state": view.state.value,
                "task": view.entry.task_id,
                "batch": view.row.batch_id if view.row else None,
                "model": view.row.model if view.row else None,
                "lease_left": view.row.lease_left_s if view.row else None,
                **({"prompt": view.prompt} if view.prompt is not None else {}),
            }
            for view in views
        ]
    }


def queues(views: Sequence[QueueView]) -> dict[str, Any]:
    """What waits and runs, per family."""
    return {
        "queues": [
            {
                "family": view.counts.family,
                "waiting": view.counts.waiting,
                "delayed": view.counts.delayed,
                "running": view.counts.running,
                "lag": view.lag,
                "oldest": view.counts.oldest_s,
                "workers": view.workers,
                "paused": view.paused,
            }
            for view in views
        ]
    }


def dead_letters(letters: Sequence[DeadLetter]) -> dict[str, Any]:
    """Dead letters with their fields, bytes that are no text replaced."""
    return {
        "dead_letters": [
            {
                "id": letter.id,
                "stream": letter.stream,
                "entry": letter.entry_id,
                "reason": letter.reason,
                "fields": {
                    k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, v in letter.fields.items()
                },
            }
            for letter in letters
        ]
    }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
