"""How states, times and numbers are put into words. Pure."""

from __future__ import annotations

import datetime as dt

from shared.domain import TaskStatus, TaskView
from shared.finish import is_cut
from shared.models import is_other
from shared.text import one_line

CUT_QUESTION = (
    "cut question: the model saw only part of it; give it a larger context, Ollama's by OLLAMA_CONTEXT_LENGTH"
)

_KINDS = {
    "connect": "can't connect",
    "connect_timeout": "can't connect",
    "timeout": "too slow",
    "idle_timeout": "went silent",
    "reset": "connection broke",
    "incomplete_stream": "broke off",
    "lease_expired": "its worker stopped",
    "handed_back": "its worker stopped",
    "bad_json": "bad answer",
    "bad_answer": "bad answer",
    "empty_answer": "empty answer",
    "no_answer": "no answer",
    "interrupted": "broken off",
    "rate_limited": "too many requests",
    "quota_exhausted": "quota used up",
    "error_object": "error",
    "tls": "TLS failed",
}


def short_id(batch_id: str) -> str:
    """The start of an id, enough to name it by."""
    return batch_id.split("-")[0]


def kind_in_words(kind: str | None) -> str:
    """An error kind for people: `http_429` is 429."""
    if not kind:
        return "failed"
    return _KINDS.get(kind, kind.removeprefix("http_").replace("_", " "))


def state(task: TaskView, *, max_failures: int, elapsed_s: float = 0.0) -> str:
    """What a task is doing, or waiting for.

    Args:
        elapsed_s: how old the view is: waits have become shorter by as much.
    """
    if task.status is TaskStatus.SUCCESS:
        return ", ".join([f"answered by {other}" if (other := other_model(task)) else "answered", *_cuts(task)])
    if task.status is TaskStatus.FAILED:
        return f"failed: {kind_in_words(task.error_kind)}"
    if task.status is TaskStatus.PROCESSING:
        return "running" if task.attempt <= 1 else f"running, attempt {task.attempt}"
    left_s = task.run_in_s - elapsed_s
    if task.error_kind is None:
        return "waiting"
    again = f"again in {duration(left_s)}" if left_s > 0.5 else "again now"
    return f"{kind_in_words(task.error_kind)}, {again}, try {task.failures + 1} of {max_failures}"


def other_model(task: TaskView) -> str | None:
    """The model that answered, where it is another than the one asked."""
    answered = task.status is TaskStatus.SUCCESS and is_other(task.model, task.upstream_model)
    return one_line(task.upstream_model or "", 60) if answered else None


def _cuts(task: TaskView) -> list[str]:
    return [*(["cut"] if is_cut(task.finish_reason) else []), *(["cut question"] if task.cut_question else [])]


def flaws(task: TaskView) -> list[str]:
    """What keeps an answer from being that of the model asked to the question asked, each with its remedy."""
    if task.status is not TaskStatus.SUCCESS:
        return []
    other = other_model(task)
    return [
        *([f"answered by {other}"] if other else []),
        *(["cut: the limit of tokens was reached"] if is_cut(task.finish_reason) else []),
        *([CUT_QUESTION] if task.cut_question else []),
    ]


def reason(task: TaskView) -> str:
    """Why a task failed, in one line."""
    return one_line(task.error_msg or kind_in_words(task.error_kind), 300)


def duration(seconds: float) -> str:
    """A duration as people read it: 0.8 s, 12 s, 3:05 min, 2:10 h."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60) if seconds >= 6000 else int(seconds // 60)
    if seconds < 6000:
        return f"{minutes}:{int(seconds % 60):02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def ago(when: dt.datetime, now: dt.datetime) -> str:
    """How long ago something was."""
    seconds = (now - when).total_seconds()
    for size, unit in ((3600, "h"), (60, "min")):
        if size <= seconds < 86_400:
            return f"{seconds / size:.0f} {unit} ago"
    if seconds < 60:
        return f"{max(0.0, seconds):.0f} s ago"
    return when.astimezone().strftime("%Y-%m-%d %H:%M")
