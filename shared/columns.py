"""The columns that a worker fills, once: what a result holds, what the database keeps, what people and programs read.

A new one is a field here and a migration. The record statement, the select, the table, the JSON and the frozen objects
(`Finished` on its way in, `TaskView` on its way out) all come from this list; a test holds it equal to the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def _column(kind: str, meaning: str, *, json: str | None = None) -> Any:
    """A column of a PostgreSQL type. `json` is its name for programs, where that is another."""
    return field(default=None, metadata={"kind": kind, "meaning": meaning, "json": json})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a task's last attempt. None: not known, or not ended."""

    response_text: str | None = _column("text", "the answer")
    reasoning_text: str | None = _column("text", "what the model thought before it answered")
    error_kind: str | None = _column("text", "why it failed, as a short stable word")
    error_msg: str | None = _column("text", "why it failed, in a sentence")
    http_status: int | None = _column("smallint", "the upstream's status")
    cost_time_s: float | None = _column("double precision", "how long the call took, in seconds", json="cost_time")
    first_token_s: float | None = _column(
        "double precision", "from the call's begin to its first piece of text, in seconds", json="first_token"
    )
    prompt_tokens: int | None = _column("integer", "tokens of the question, as the upstream counts them")
    completion_tokens: int | None = _column("integer", "tokens of the answer, thoughts included")
    finish_reason: str | None = _column("text", "how the upstream says that the answer ended")
    upstream_model: str | None = _column(
        "text", "the model that the upstream says it used, or is known to use in silence"
    )
    cut_question: bool | None = _column("boolean", "whether the model saw only part of the question")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its PostgreSQL type, what it means, and its name in JSON."""

    name: str
    kind: str
    meaning: str
    json: str


RESULT = tuple(
    Column(f.name, f.metadata["kind"], f.metadata["meaning"], f.metadata["json"] or f.name) for f in fields(Result)
)
# What must be made storable before it is written.
TEXTS = tuple(column.name for column in RESULT if column.kind == "text")


def as_json(result: Result) -> dict[str, Any]:
    """A result by its columns' names in JSON."""
    return {column.json: getattr(result, column.name) for column in RESULT}
