"""Submitting many prompts: hundreds of batches a transaction, their hints sent on a thread beside the next one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from shared.domain import NewBatch, NewTask
from shared.errors import HintsUnavailable
from shared.ids import new_id, new_ordered_id
from shared.store.engine import Database
from shared.store.submit import Bulk, submit_many
from shared.streams import Streams
from shared.submission import Plan, request_hash

BATCHES_A_COMMIT = 500


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of some plans, in their order: the ids of their batches, and how many of those are new."""

    batch_ids: tuple[str, ...]
    new: int
    tasks: int
    hinted: bool


def submit_all(db: Database, streams: Streams, plans: Sequence[Plan]) -> Iterator[Submitted]:
    """Store checked requests, some hundreds at a time; what has been yielded is stored.

    Interrupted, it is begun anew with the same idempotency keys: what is there already is found and not stored twice.

    Raises:
        Conflict: a key was used for another request; the others of its commit are not stored either.
        DatabaseUnavailable: what has not been yielded may not be stored.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="aitask-hints") as beside:
        waiting: tuple[Submitted, Future[bool]] | None = None
        for start in range(0, len(plans), BATCHES_A_COMMIT):
            found, hints = _store(db, plans[start : start + BATCHES_A_COMMIT])
            if waiting is not None:
                yield _with_hints(*waiting)
            waiting = found, beside.submit(_send, streams, hints)
        if waiting is not None:
            yield _with_hints(*waiting)


def _store(db: Database, plans: Sequence[Plan]) -> tuple[Submitted, list[tuple[str, str]]]:
    made = [_bulk(plan) for plan in plans]
    ids = submit_many(db, made)
    fresh = [one.batch for one, batch_id in zip(made, ids, strict=True) if one.batch.id == batch_id]
    hints = [(task.family, task.id) for batch in fresh for task in batch.tasks]
    return Submitted(tuple(ids), len(fresh), len(hints), True), hints


def _bulk(plan: Plan) -> Bulk:
    request = plan.request
    tasks = tuple(NewTask(new_ordered_id(), model, family.name) for model, family in plan.routed)
    batch = NewBatch(
        id=new_id(), prompt=request.prompt, system=request.system, options=request.options, tasks=tasks,
        idempotency_key=request.idempotency_key,
        request_hash=request_hash(plan) if request.idempotency_key is not None else None,
    )  # fmt: skip
    return Bulk(batch, new_id())


def _send(streams: Streams, hints: list[tuple[str, str]]) -> bool:
    try:
        streams.send(hints)
    except HintsUnavailable:
        return False
    return True


def _with_hints(found: Submitted, sent: Future[bool]) -> Submitted:
    return Submitted(found.batch_ids, found.new, found.tasks, sent.result())
