"""Submitting: one transaction, then one pipelined XADD. The same for the command line and the gateway."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shared.context import context_for
from shared.domain import NewBatch, NewTask
from shared.errors import DatabaseUnavailable, HintsUnavailable, MayBeStored, UsageFault
from shared.families import Family, route
from shared.ids import new_id, new_ordered_id
from shared.request_hash import AskedModel, EarlierHash, earlier_hashes, request_hash
from shared.settings import Settings
from shared.store import conversations
from shared.store.conversations import Turn
from shared.store.engine import Database, UnstorableData
from shared.store.submit import Written, stored
from shared.store.submit import submit as write
from shared.streams import Streams
from shared.text import is_storable

MAX_MODELS = 64
MAX_KEY_CHARS = 255
# How long a server is waited for that may have stored what was submitted, for all that it said nothing.
SETTLE_S = 10.0
_SETTLE_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asks: a prompt and the models to ask it of.

    `conversation` names one to continue (an id, the start of one, or `last`). `context` gives earlier messages
    outright, each with `role` and `content`, instead of a conversation's.
    """

    prompt: str
    models: Sequence[str]
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    conversation: str | None = None
    context: Sequence[dict[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that has been checked: nothing in it can be refused any more but by the servers."""

    request: Request
    routed: tuple[tuple[str, Family], ...]
    twice: tuple[str, ...]
    context_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch that is stored.

    `hinted` is false when Redis was away; the reconciler then sends the hints. `left_out` names the models whose
    answers to earlier prompts were not there yet and so are no part of what they are told.
    """

    batch_id: str
    conversation_id: str
    task_ids: tuple[str, ...]
    new: bool
    hinted: bool
    left_out: tuple[str, ...] = ()


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
    _checked_context(request.context, settings.context_bytes)
    if request.idempotency_key is not None:
        _checked_key(request.idempotency_key)
    if not request.models:
        names = ",".join(family.name for family in settings.families)
        raise UsageFault("no model is named", remedy=f"for example: -m {names}")
    if len(request.models) > MAX_MODELS:
        # Before routing: that is work for each name.
        raise UsageFault(f"{len(request.models)} models are named", remedy=f"ask at most {MAX_MODELS} at once")
    routed: dict[tuple[str, str], tuple[str, Family]] = {}
    twice = []
    for name in request.models:
        model, family = route(name, settings.families)
        if (family.name, model) in routed:
            twice.append(name)
        routed.setdefault((family.name, model), (model, family))
    return Plan(request, tuple(routed.values()), tuple(twice), settings.context_bytes)


def submit(db: Database, streams: Streams, checked: Plan) -> Submission:
    """Store a checked request and send its hints.

    Raises:
        Conflict: its idempotency key was used for another request.
        DatabaseUnavailable: nothing was stored.
        MayBeStored: the reply to the commit was lost, and PostgreSQL did not come back in time to be asked.
    """
    with nothing_is_stored():
        return _submit(db, streams, checked)


@contextmanager
def nothing_is_stored() -> Iterator[None]:
    """Have an outage say what is known of a submission in which it came: nothing was submitted."""
    try:
        yield
    except MayBeStored:
        raise
    except DatabaseUnavailable as error:
        said = f"{error.message}; nothing was submitted"
        raise DatabaseUnavailable(said, remedy=error.remedy, waits=error.waits) from error


def _submit(db: Database, streams: Streams, checked: Plan) -> Submission:
    request = checked.request
    continued = _Continued.look_up(db, request, checked.context_bytes)
    told_apart, told_apart_earlier = hashes(checked)
    batch = NewBatch(
        id=new_id(),
        prompt=request.prompt,
        system=request.system if request.system is not None else continued.system,
        options=request.options,
        tasks=tuple(
            NewTask(
                new_ordered_id(), model, family.name, tuple(request.context) or continued.context(family.name, model)
            )
            for model, family in checked.routed
        ),
        conversation_id=continued.id,
        origin=streams.origin,
        idempotency_key=request.idempotency_key,
        request_hash=told_apart,
        earlier_hashes=told_apart_earlier,
    )
    written = _stored(db, batch, continued.id or new_id())
    hinted = True
    if written.new:
        try:
            streams.send((task.family, task.id) for task in batch.tasks)
        except HintsUnavailable:
            hinted = False
    left_out = continued.unfinished((family.name, model) for model, family in checked.routed)
    return Submission(written.batch_id, written.conversation_id, written.task_ids, written.new, hinted, left_out)


def _stored(db: Database, batch: NewBatch, conversation_id: str) -> Written:
    """Write a batch. Where the reply to the commit is lost, its id is looked up once the server is back."""
    try:
        return write(db, batch, conversation_id=conversation_id)
    except DatabaseUnavailable as error:
        if not error.unknown:
            raise
        lost = error
    end = time.monotonic() + SETTLE_S
    while time.monotonic() < end:
        time.sleep(_SETTLE_AGAIN_S)
        try:
            found = stored(db, batch.id)
            # What is not there is written now, under the same ids: one of the two at most comes to be.
            return found or write(db, batch, conversation_id=conversation_id)
        except DatabaseUnavailable:
            continue
        except UnstorableData:
            # The first one's commit came after the look.
            continue
    raise MayBeStored(batch.id, lost.message)


@dataclass(frozen=True, slots=True)
class _Continued:
    """The conversation that a request goes on with, as it stands at this moment; nothing when it opens one."""

    id: str | None = None
    turns: tuple[Turn, ...] = ()
    most_bytes: int = 0

    @classmethod
    def look_up(cls, db: Database, request: Request, most_bytes: int) -> _Continued:
        if request.conversation is None:
            return cls()
        found = conversations.find(db, request.conversation)
        return cls(found, tuple(conversations.turns(db, found)), most_bytes)

    @property
    def system(self) -> str | None:
        return self.turns[-1].system if self.turns else None

    def context(self, family: str, model: str) -> tuple[dict[str, str], ...]:
        return context_for((family, model), self.turns, most_bytes=self.most_bytes)

    def unfinished(self, models: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        waiting = {key for turn in self.turns for key in turn.unfinished}
        return tuple(model for family, model in models if (family, model) in waiting)


def _checked_text(what: str, text: str, most_bytes: int) -> None:
    if not is_storable(text):
        raise UsageFault(f"{what} has a NUL or a broken character", remedy="save it as UTF-8 text")
    size = len(text.encode())
    if size > most_bytes:
        raise UsageFault(
            f"{what} is {size:,} bytes long, the limit is {most_bytes:,}",
            remedy="shorten it, or raise AITASK_MAX_PROMPT_BYTES",
        )


def _checked_context(context: Sequence[dict[str, str]], most_bytes: int) -> None:
    for message in context:
        if not is_storable(message["content"]):
            raise UsageFault("an earlier message has a NUL or a broken character", remedy="send it as UTF-8 text")
    size = sum(len(message["content"].encode()) for message in context)
    if size > most_bytes:
        raise UsageFault(
            f"the earlier messages are {size:,} bytes long, the limit is {most_bytes:,}",
            remedy="send fewer, or raise AITASK_CONTEXT_BYTES",
        )


def _checked_key(key: str) -> None:
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise UsageFault("the idempotency key is malformed", remedy=f"1 to {MAX_KEY_CHARS} printable characters")


def hashes(checked: Plan) -> tuple[str | None, tuple[EarlierHash, ...]]:
    """What tells a request from another under the same idempotency key: its hash, and what earlier releases made of it.

    Without a key there is nothing to tell apart.
    """
    request = checked.request
    if request.idempotency_key is None:
        return None, ()
    said = [request.prompt, request.system, request.options, request.conversation, list(request.context)]
    bare = {name.lower() for name in request.models}
    models = [AskedModel(family.name, model, family.name in bare) for model, family in checked.routed]
    return request_hash(said, models), earlier_hashes(said, models)
