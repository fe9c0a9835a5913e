"""What happened, written down by the database and by the clients, and a checker that replays both through the model.

The rules are design.md's invariants as far as a history can show them broken. `check` is pure; each rule is a generator
of sentences, one for each time it was broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# A test-only witness in the database: every change of a task, with who made it.
WITNESS = """
CREATE TABLE history (
    seq bigint GENERATED ALWAYS AS IDENTITY, id uuid, was smallint, now smallint, attempt_was integer, attempt integer,
    holder text, writer text, error_kind text, text_changed boolean, beat_age_s float, lease_s float,
    tx xid8, at timestamptz
);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history (id, was, now, attempt_was, attempt, holder, writer, error_kind, text_changed, beat_age_s,
                         lease_s, tx, at)
    SELECT NEW.id, OLD.status, NEW.status, OLD.attempt, NEW.attempt,
           CASE WHEN NEW.status = 3 THEN NEW.worker ELSE OLD.worker END, current_setting('application_name'),
           NEW.error_kind, NEW.response_text IS DISTINCT FROM OLD.response_text,
           (SELECT extract(epoch FROM clock_timestamp() - heartbeat_at) FROM worker WHERE worker.id = OLD.worker),
           (SELECT lease_s FROM worker WHERE worker.id = OLD.worker),
           pg_current_xact_id(), clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER witness AFTER UPDATE ON task FOR EACH ROW
WHEN (OLD.status IN (1, 2) OR OLD.status <> NEW.status OR OLD.attempt <> NEW.attempt)
EXECUTE FUNCTION witness();
"""
_READ = """
SELECT id::text, was, now, attempt_was, attempt, holder, writer, error_kind, text_changed, beat_age_s, lease_s,
       extract(epoch FROM at)::float
FROM history ORDER BY seq
"""
PENDING, SUCCESS, FAILED, PROCESSING = range(4)
TERMINAL = (SUCCESS, FAILED)
# A lease ends a whole lease after the last beat; one ended sooner than this part of it was ended under a living worker.
_BEAT_PART = 0.6


@dataclass(frozen=True)
class Change:
    """One change of one task."""

    id: str
    was: int
    now: int
    attempt_was: int
    attempt: int
    holder: str | None
    writer: str
    error_kind: str | None
    text_changed: bool
    beat_age_s: float | None = None
    lease_s: float | None = None
    at: float = 0.0


@dataclass(frozen=True)
class Operation:
    """What a client did and was told: `submit`, `cancel` or `retry`; `ok`, `fail` (nothing was done) or `unknown`."""

    what: str
    told: str
    ids: tuple[str, ...]
    at: float = 0.0
    batch_id: str = ""
    key: str | None = None


@dataclass(frozen=True)
class Call:
    """A call that reached an upstream, for the task it was for."""

    id: str
    at: float


@dataclass(frozen=True)
class Seen:
    """What a watcher was shown of an attempt."""

    id: str
    attempt: int
    text: str


@dataclass
class History:
    """All that was written down, and how the tasks stand in the end."""

    changes: Sequence[Change]
    operations: Sequence[Operation] = ()
    calls: Sequence[Call] = ()
    seen: Sequence[Seen] = ()
    # Of each task that exists: (status, attempt, text).
    final: Mapping[str, tuple[int, int, str | None]] = field(default_factory=dict)
    lease_s: float = 30.0
    # Clients call themselves by other names than workers: what they end, they may end.
    slack_s: float = 2.0


def changes(rows: Iterable[Sequence[Any]]) -> list[Change]:
    """Changes from the witness' rows, in their order."""
    return [Change(*row) for row in rows]


def read(query: Any) -> list[Change]:
    """Read the witness' book. `query` runs one statement and returns its rows."""
    return changes(query(_READ))


def check(history: History) -> list[str]:
    """Replay a history through the model. Returns a sentence for each time that a rule was broken."""
    return [said for rule in RULES for said in rule(history)]


def submits_are_true(history: History) -> Iterator[str]:
    """Every accepted submit exists, and every "nothing was submitted" is true."""
    for made in history.operations:
        if made.what != "submit":
            continue
        there = [i for i in made.ids if i in history.final]
        if made.told == "ok" and len(there) < len(made.ids):
            yield f"lost: accepted, and not there: {set(made.ids) - set(there)}"
        if made.told == "fail" and there:
            yield f"there, although nothing was said to be submitted: {there}"
        if made.told == "unknown" and there and len(there) < len(made.ids):
            yield f"half a submission is there: {there}"


def one_key_one_batch(history: History) -> Iterator[str]:
    """All who submitted under one idempotency key were told of one batch."""
    batches: dict[str, set[str]] = {}
    for made in history.operations:
        if made.what == "submit" and made.told == "ok" and made.key is not None:
            batches.setdefault(made.key, set()).add(made.batch_id)
    yield from (f"the key {key!r} made {len(made)} batches" for key, made in batches.items() if len(made) > 1)


def terminal_once(history: History) -> Iterator[str]:
    """A task that has ended changes no more, but for a retry by hand, each of which opens it once."""
    retries: dict[str, int] = {}
    for made in history.operations:
        if made.what == "retry" and made.told in ("ok", "unknown"):
            for task_id in made.ids:
                retries[task_id] = retries.get(task_id, 0) + 1
    for change in history.changes:
        if change.was not in TERMINAL:
            continue
        if change.was == FAILED and change.now == PENDING and retries.get(change.id, 0) > 0:
            retries[change.id] -= 1
        else:
            yield f"task {change.id} had ended as {change.was} and became {change.now}"


def the_fence_only_grows(history: History) -> Iterator[str]:
    """`attempt` never goes back, and each claim raises it by one."""
    for change in history.changes:
        if change.attempt < change.attempt_was:
            yield f"task {change.id}: attempt went from {change.attempt_was} back to {change.attempt}"
        claimed = change.was != PROCESSING and change.now == PROCESSING
        if claimed and change.attempt != change.attempt_was + 1:
            yield f"task {change.id} was claimed and its attempt went from {change.attempt_was} to {change.attempt}"
        taken_over = change.was == PROCESSING == change.now and change.attempt != change.attempt_was
        if taken_over:
            yield f"task {change.id} changed its attempt while it was held"


def recorded_by_its_holder(history: History) -> Iterator[str]:
    """A result is recorded by the worker that holds the task, for the attempt that it claimed."""
    claimed: dict[str, tuple[int, str | None]] = {}
    for change in history.changes:
        if change.now == PROCESSING and change.was != PROCESSING:
            claimed[change.id] = change.attempt, change.holder
        if change.now == SUCCESS and change.was != PROCESSING:
            yield f"task {change.id} was answered while nobody held it"
        elif change.now == SUCCESS:
            if claimed.get(change.id) != (change.attempt, change.holder):
                yield f"task {change.id}: claimed as {claimed.get(change.id)}, recorded as {change.attempt}"
            if change.writer != change.holder:
                yield f"task {change.id} is held by {change.holder}, its answer came from {change.writer}"


def ended_from_outside_moves_the_fence(history: History) -> Iterator[str]:
    """A cancel or a deadline raises the fence, so that the running call's result is stale."""
    for change in history.changes:
        outside = change.now == FAILED and change.error_kind in ("cancelled", "deadline", "operator")
        if outside and change.attempt == change.attempt_was:
            yield f"task {change.id} ended as {change.error_kind} and kept its attempt"


def no_call_after_a_cancel(history: History) -> Iterator[str]:
    """Once a cancelled task's worker has had a heartbeat's time, the task is called no more."""
    retried = {i for made in history.operations if made.what == "retry" for i in made.ids}
    for made in history.operations:
        if made.what != "cancel" or made.told != "ok":
            continue
        late = made.at + history.lease_s / 3 + history.slack_s
        for call in history.calls:
            if call.id in made.ids and call.id not in retried and call.at > late:
                yield f"task {call.id} was called {call.at - made.at:.1f} s after its cancel"


def watchers_saw_the_truth(history: History) -> Iterator[str]:
    """What a watcher was shown of the attempt that answered is how the final text begins."""
    for seen in history.seen:
        status, attempt, text = history.final.get(seen.id, (None, None, None))
        if status == SUCCESS and attempt == seen.attempt and not (text or "").startswith(seen.text):
            yield f"task {seen.id}: a watcher saw what is not in the answer: {seen.text[:40]!r}"


def no_living_worker_lost_a_lease(history: History) -> Iterator[str]:
    """No lease was ended while its worker beat."""
    for change in history.changes:
        ended = change.was == PROCESSING and change.error_kind in ("lease_expired", "poison")
        if not ended or change.beat_age_s is None or change.lease_s is None:
            continue
        if change.beat_age_s < change.lease_s * _BEAT_PART:
            yield f"task {change.id}: lease ended {change.beat_age_s:.2f} s after {change.holder}'s last beat"


RULES = (
    submits_are_true,
    one_key_one_batch,
    terminal_once,
    the_fence_only_grows,
    recorded_by_its_holder,
    ended_from_outside_moves_the_fence,
    no_call_after_a_cancel,
    watchers_saw_the_truth,
    no_living_worker_lost_a_lease,
)
