"""Submitting many prompts: hundreds of batches a transaction, two transactions at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from shared.domain import BULK, NewBatch, NewTask
from shared.errors import HintsUnavailable
from shared.ids import new_id, new_ordered_id
from shared.store.engine import Database
from shared.store.submit import Bulk, submit_many
from shared.streams import Streams
from shared.submission import Plan, hashes

BATCHES_A_COMMIT = 500
# One is being made ready while PostgreSQL writes another.
AT_ONCE = 2


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
    chunks = (plans[start : start + BATCHES_A_COMMIT] for start in range(0, len(plans), BATCHES_A_COMMIT))
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="aitask-bulk") as threads:
        under_way: deque[Future[Submitted]] = deque()
        for chunk in chunks:
            under_way.append(threads.submit(_store, db, streams, chunk))
            if len(under_way) > AT_ONCE:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _store(db: Database, streams: Streams, plans: Sequence[Plan]) -> Submitted:
    made = [_bulk(plan, streams.origin) for plan in plans]
    ids = submit_many(db, made)
    fresh = [one.batch for one, batch_id in zip(made, ids, strict=True) if one.batch.id == batch_id]
    hints = [(task.family, task.id) for batch in fresh for task in batch.tasks]
    try:
        streams.send(hints)
    except HintsUnavailable:
        return Submitted(tuple(ids), len(fresh), len(hints), False)
    return Submitted(tuple(ids), len(fresh), len(hints), True)


def _bulk(plan: Plan, origin: str | None) -> Bulk:
    request = plan.request
    tasks = tuple(NewTask(new_ordered_id(), model, family.name) for model, family in plan.routed)
    told_apart, told_apart_earlier = hashes(plan)
    batch = NewBatch(
        id=new_id(), prompt=request.prompt, system=request.system, options=request.options, tasks=tasks,
        idempotency_key=request.idempotency_key, lane=BULK, origin=origin,
        request_hash=told_apart, earlier_hashes=told_apart_earlier,
    )  # fmt: skip
    return Bulk(batch, new_id())
