"""Submitting: one transaction, then one pipelined XADD. The same for the command line and the gateway."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.domain import NewBatch, NewTask
from shared.errors import HintsUnavailable, UsageFault
from shared.families import Family, route
from shared.ids import new_id, new_ordered_id
from shared.settings import Settings
from shared.store.engine import Database
from shared.store.submit import submit as write
from shared.streams import Streams
from shared.text import is_storable

MAX_MODELS = 64
MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asks: a prompt and the models to ask it of."""

    prompt: str
    models: Sequence[str]
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that has been checked: nothing in it can be refused any more but by the servers."""

    request: Request
    routed: tuple[tuple[str, Family], ...]
    twice: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch that is stored. `hinted` is false when Redis was away; the reconciler then sends the hints."""

    batch_id: str
    conversation_id: str
    task_ids: tuple[str, ...]
    new: bool
    hinted: bool


def plan(request: Request, settings: Settings) -> Plan:
    """Check a request without touching any server.

    Raises:
        UsageFault: something in it is bad; the message names it.
    """
    if not request.prompt.strip():
        raise UsageFault("the prompt is empty", remedy="give it as an argument or on standard input")
    _checked_text("the prompt", request.prompt, settings.max_prompt_bytes)
    if request.system is not None:
        _checked_text("the system prompt", request.system, settings.max_prompt_bytes)
    if request.idempotency_key is not None:
        _checked_key(request.idempotency_key)
    if not request.models:
        names = ",".join(family.name for family in settings.families)
        raise UsageFault("no model is named", remedy=f"for example: -m {names}")
    routed: dict[str, Family] = {}
    twice = []
    for name in request.models:
        model, family = route(name, settings.families)
        if model in routed:
            twice.append(name)
        routed.setdefault(model, family)
    if len(routed) > MAX_MODELS:
        raise UsageFault(f"{len(routed)} models are named", remedy=f"ask at most {MAX_MODELS} at once")
    return Plan(request, tuple(routed.items()), tuple(twice))


def submit(db: Database, streams: Streams, checked: Plan) -> Submission:
    """Store a checked request and send its hints.

    Raises:
        UsageFault: its idempotency key was used for another request.
        DatabaseUnavailable: nothing was stored.
    """
    request = checked.request
    batch = NewBatch(
        id=new_id(),
        prompt=request.prompt,
        system=request.system,
        options=request.options,
        tasks=tuple(NewTask(new_ordered_id(), model, family.name) for model, family in checked.routed),
        idempotency_key=request.idempotency_key,
        request_hash=_hash(checked) if request.idempotency_key is not None else None,
    )
    written = write(db, batch, conversation_id=new_id())
    hinted = True
    if written.new:
        try:
            streams.send((task.family, task.id) for task in batch.tasks)
        except HintsUnavailable:
            hinted = False
    return Submission(written.batch_id, written.conversation_id, written.task_ids, written.new, hinted)


def _checked_text(what: str, text: str, most_bytes: int) -> None:
    if not is_storable(text):
        raise UsageFault(f"{what} has a NUL or a broken character", remedy="save it as UTF-8 text")
    size = len(text.encode())
    if size > most_bytes:
        raise UsageFault(
            f"{what} is {size:,} bytes long, the limit is {most_bytes:,}",
            remedy="shorten it, or raise AITASK_MAX_PROMPT_BYTES",
        )


def _checked_key(key: str) -> None:
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise UsageFault("the idempotency key is malformed", remedy=f"1 to {MAX_KEY_CHARS} printable characters")


def _hash(checked: Plan) -> str:
    request = checked.request
    said = [request.prompt, request.system, request.options, [model for model, _ in checked.routed]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
