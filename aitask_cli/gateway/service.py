"""What the routes do: submit, look, cancel, retry, over the same store as the command line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from aitask_cli.gateway.body import Bodies
from aitask_cli.gateway.hub import Hub
from aitask_cli.gateway.threads import Threads
from shared.domain import BatchPage, BatchView, TaskView
from shared.errors import AitaskError, DatabaseUnavailable, HintsUnavailable, NotFound, UsageFault
from shared.families import MAX_MODEL_CHARS
from shared.ids import is_id
from shared.settings import Settings
from shared.store import conversations, fleet, operate, read, schema
from shared.store.conversations import ConversationLine
from shared.store.engine import Database
from shared.streams import Streams
from shared.submission import MAX_MODELS, Request, Submission, plan, submit

# The texts of a page of history; its JSON may be somewhat longer.
HISTORY_BYTES = 8 << 20
_WORKER_EVERY_S = 2.0
_AWAY_S = 0.5


@dataclass
class Service:
    """The gateway's way to the servers.

    Attributes:
        local: whether a submission starts a worker where none lives.
        ensure_worker: sees to it that families are served where that is ours to do; returns those that are not.
    """

    settings: Settings
    db: Database
    streams: Streams
    threads: Threads
    hub: Hub
    local: bool
    ensure_worker: Callable[[Collection[str]], list[str]]
    bodies: Bodies = field(default_factory=Bodies)
    _ensured: dict[str, float] = field(default_factory=dict)

    async def submit(
        self,
        prompt: str,
        model: str,
        *,
        key: str | None,
        conversation_id: str | None = None,
        system: str | None = None,
        options: dict[str, Any] | None = None,
        context: Sequence[dict[str, str]] = (),
    ) -> Submission:
        """Store a batch for the models of a comma-separated list."""
        if conversation_id is not None:
            _whole_id(conversation_id, "conversation")
        request = Request(
            prompt=prompt, models=_names(model), system=system, options=options or {}, idempotency_key=key,
            conversation=conversation_id, context=context,
        )  # fmt: skip
        size = sum(map(len, (prompt, system or "", *(message["content"] for message in context))))
        checked = await self.bodies.aside(size, lambda: plan(request, self.settings))
        made = await self.threads.run(lambda: submit(self.db, self.streams, checked))
        await self._see_to_workers({family.name for _, family in checked.routed})
        return made

    async def _see_to_workers(self, families: set[str]) -> None:
        now = time.monotonic()
        wanted = {name for name in families if now - self._ensured.get(name, -1e9) > _WORKER_EVERY_S}
        if wanted:
            self._ensured |= dict.fromkeys(wanted, now)
            await self.threads.run(lambda: self.ensure_worker(wanted))

    async def batch(self, batch_id: str) -> BatchView:
        _whole_id(batch_id, "batch")
        return await self.threads.run(lambda: read.batch(self.db, batch_id))

    async def batch_in_time(self, batch_id: str) -> BatchView:
        """Return a batch, waiting for PostgreSQL where it is away: an answer under way does not end with a blip."""
        while True:
            try:
                return await self.batch(batch_id)
            except DatabaseUnavailable as error:
                if not error.waits:
                    raise
                await asyncio.sleep(_AWAY_S)

    async def task(self, task_id: str) -> TaskView:
        _whole_id(task_id, "task")
        return await self.threads.run(lambda: read.task(self.db, task_id))

    async def history(self, conversation_id: str, *, most: int, before: str | None) -> BatchPage:
        """Return a conversation's newest batches, or those before one: a page by number and by bytes."""
        _whole_id(conversation_id, "conversation")
        if before is not None:
            _whole_id(before, "batch")
        return await self.threads.run(
            lambda: read.of_conversation(self.db, conversation_id, most=most, most_bytes=HISTORY_BYTES, before=before)
        )

    async def conversations(self, most: int) -> list[ConversationLine]:
        return await self.threads.run(lambda: conversations.recent(self.db, most))

    async def cancel(self, batch_id: str) -> list[str]:
        """End a batch's tasks that have not ended; returns their ids."""
        ids = [task.id for task in (await self.batch(batch_id)).tasks]
        return sorted(await self.threads.run(lambda: operate.cancel(self.db, ids)))

    async def retry(self, batch_id: str) -> list[str]:
        """Try a batch's failed tasks anew; returns the ids of those that now wait."""
        batch = await self.batch(batch_id)
        again = await self.threads.run(
            lambda: operate.retry(self.db, [t.id for t in batch.tasks], origin=self.settings.origin)
        )
        try:
            await self.threads.run(lambda: self.streams.send(again))
        except HintsUnavailable:
            pass  # the reconciler sends them
        if again:
            await self._see_to_workers({family for family, _ in again})
        return sorted(task_id for _, task_id in again)

    async def ready(self) -> dict[str, tuple[bool, str]]:
        """Look at what a submission needs. Redis and workers only delay it; they are told all the same."""

        def look() -> dict[str, tuple[bool, str]]:
            found = {"database": _said(lambda: schema.check(self.db), "is there, its tables are of this version")}
            found["redis"] = _said(self.streams.ping, "is there")
            served: set[str] = set()
            if found["database"][0]:
                served = fleet.served_families(self.db)
            found["workers"] = (bool(served) or self.local, ", ".join(sorted(served)) or "none is running")
            return found

        return await self.threads.run(look)


def _names(text: str) -> list[str]:
    """Take a list of models apart. One that is far too long is not: that is work for each."""
    named = text.count(",") + 1
    if named > MAX_MODELS and len(text) > MAX_MODELS * MAX_MODEL_CHARS:
        raise UsageFault(f"{named:,} models are named", remedy=f"ask at most {MAX_MODELS} at once")
    return [name.strip() for name in text.split(",") if name.strip()]


def _said(check: Callable[[], Any], fine: str) -> tuple[bool, str]:
    try:
        check()
    except AitaskError as error:
        return False, str(error)
    return True, fine


def _whole_id(text: str, what: str) -> None:
    """Check an id. Only whole ids are taken here: a short prefix could be guessed."""
    if not is_id(text):
        shown = "".join(char for char in text[:60] if char.isprintable())
        raise NotFound(f"no {what} {shown!r}", remedy="give the whole id")
