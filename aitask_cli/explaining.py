"""Why a task isn't moving: the one reason, and the command that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aitask_cli.down import downs
from aitask_cli.views.words import duration, kind_in_words, reason, short_id
from shared.domain import Cooldown, Pause, TaskStatus, TaskView, WorkerView
from shared.families import Family
from shared.kinds import ErrorKind
from shared.store.recovery import Holder


@dataclass(frozen=True, slots=True)
class Explanation:
    """One reason, as a stable word and a sentence, and the command that mends it (empty: nothing to mend)."""

    kind: str
    why: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a reason is found from."""

    task: TaskView
    family: Family | None
    workers: Sequence[WorkerView]
    pauses: Sequence[Pause]
    max_failures: int
    cooldowns: Sequence[Cooldown] = ()
    turn: Holder | None = None
    row: Holder | None = None
    asked_under: str = ""
    ours: bool = True


# A reconciler's turn and a statement's lock last milliseconds; who holds one for longer stalls.
HELD_S = 2.0


def explain(facts: Facts) -> Explanation:
    """Find the reason: the first that holds, from what stops a family to what delays one task. Pure."""
    task = facts.task
    if task.status is TaskStatus.SUCCESS:
        return Explanation("answered", "it is answered", f"aitask show {short_id(task.batch_id)}")
    if task.status is TaskStatus.FAILED:
        return Explanation("failed", f"it failed: {reason(task)}", f"aitask retry {task.id}")
    if task.status is TaskStatus.PROCESSING:
        return _recovery_held(facts) or _running(task)
    held = _row_locked(facts) or _family_held(facts)
    return held or _cooled(facts) or _delayed(facts) or _workers_held(facts)


def _recovery_held(facts: Facts) -> Explanation | None:
    """A lease is over and nobody ends it, for somebody sits on the reconciler's turn."""
    if (facts.task.lease_left_s or 0.0) > 0 or facts.turn is None or facts.turn.for_s < HELD_S:
        return None
    why = f"worker {facts.task.worker} stopped while it held the task, and recovery is held by {_named(facts.turn)}"
    return Explanation("recovery_held", why, _end_it(facts.turn))


def _row_locked(facts: Facts) -> Explanation | None:
    if facts.row is None or facts.row.for_s < HELD_S:
        return None
    return Explanation("row_locked", f"its row is locked by {_named(facts.row)}", _end_it(facts.row))


def _named(holder: Holder) -> str:
    where = f" on {holder.host}" if holder.host else ""
    name = holder.name or "a program without a name"
    return f"{name}{where}, PostgreSQL process {holder.pid}, {holder.state}, for {duration(holder.for_s)}"


def _end_it(holder: Holder) -> str:
    return f'psql -c "SELECT pg_terminate_backend({holder.pid})"'


def _running(task: TaskView) -> Explanation:
    left_s = task.lease_left_s or 0.0
    if left_s <= 0:
        why = f"worker {task.worker} stopped while it held the task; another takes it up within seconds"
        return Explanation("lease_expired", why, "aitask ps")
    since = duration(task.running_s or 0.0)
    why = f"the call has been running for {since} in worker {task.worker}, lease left {duration(left_s)}"
    return Explanation("running", why, f"aitask cancel {task.id}")


def _family_held(facts: Facts) -> Explanation | None:
    name = facts.task.family
    for pause in facts.pauses:
        if pause.family == name:
            left = f" for {duration(pause.left_s)} more" if pause.left_s is not None else ""
            remedy = "sign in at the endpoint" if pause.kind == ErrorKind.SIGNED_OUT else f"aitask queue resume {name}"
            return Explanation("paused", f"the family {name} is paused{left}: {pause.reason}", remedy)
    if any(name in worker.families for worker in _able(facts)):
        return None
    for down in downs(facts.workers):
        if name in down.families:
            why = f"the worker of {name} on {down.host} stays down: {down.said}"
            return Explanation("down", why, down.part)
    if facts.family is not None and facts.family.missing:
        return Explanation("key_missing", f"no worker can serve {name}: its key is missing", facts.family.missing)
    if facts.task.origin is not None:
        why = f"it was asked under {facts.asked_under}, which has no worker for the family {name}"
        again = f"aitask watch {short_id(facts.task.batch_id)}" if facts.ours else f"aitask retry {facts.task.id}"
        return Explanation("no_worker", why, again)
    return Explanation("no_worker", f"no worker serves the family {name}", f"aitask worker {name}")


def _cooled(facts: Facts) -> Explanation | None:
    task = facts.task
    for cooled in facts.cooldowns:
        if (cooled.family, cooled.model) == (task.family, task.model):
            why = f"the upstream of {task.model} asked to wait; {duration(cooled.left_s)} are left"
            return Explanation(
                "cooling", f"{why}: {cooled.reason}" if cooled.reason else why, f"aitask retry {task.id}"
            )
    return None


def _able(facts: Facts) -> list[WorkerView]:
    """The workers that may call the task: those of its origin, or any where it has none."""
    return [w for w in facts.workers if None in (w.origin, facts.task.origin) or w.origin == facts.task.origin]


def _delayed(facts: Facts) -> Explanation | None:
    task = facts.task
    if task.run_in_s <= 0:
        return None
    again = f"again in {duration(task.run_in_s)}, try {task.failures + 1} of {facts.max_failures}"
    why = f"{kind_in_words(task.error_kind)}, {again}: {reason(task)}"
    return Explanation(task.error_kind or "delayed", why, f"aitask retry {task.id}")


def _workers_held(facts: Facts) -> Explanation:
    name = facts.task.family
    serving = [worker for worker in _able(facts) if name in worker.families]
    states = [worker.state.get(name, {}) for worker in serving]
    if all("breaker" in state for state in states):
        said = states[0]["breaker"]
        why = f"the endpoint of {name} is down ({said['error']}); it is tried again in {duration(said['probe_in_s'])}"
        return Explanation("breaker", why, "aitask doctor")
    if all(worker.in_flight >= worker.slots for worker in serving):
        slots = sum(worker.slots for worker in serving)
        return Explanation("slots_busy", f"all {slots} slots of its workers are busy", f"aitask worker {name}")
    return Explanation("next", "nothing holds it: a worker takes it up next", "aitask ps")
