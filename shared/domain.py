"""The frozen objects that travel between the store, the workers and the views."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from shared.columns import Result
from shared.request_hash import EarlierHash


class TaskStatus(IntEnum):
    """A task's status, stored and served as these integers."""

    PENDING = 0
    SUCCESS = 1
    FAILED = 2
    PROCESSING = 3

    @property
    def terminal(self) -> bool:
        return self in (TaskStatus.SUCCESS, TaskStatus.FAILED)


# Lanes: a person waits for the tasks of one; those of the other can wait.
ASK, BULK = "ask", "bulk"


class BatchStatus(str, Enum):
    """A batch's status, derived from its tasks and never stored."""

    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"


def batch_status(statuses: list[TaskStatus]) -> BatchStatus:
    """Derive a batch's status from its tasks' statuses."""
    if not all(status.terminal for status in statuses):
        return BatchStatus.PROCESSING
    answered = sum(status is TaskStatus.SUCCESS for status in statuses)
    if answered == len(statuses):
        return BatchStatus.COMPLETED
    return BatchStatus.PARTIAL if answered else BatchStatus.FAILED


@dataclass(frozen=True, slots=True)
class NewTask:
    """One model's share of a batch that is about to be submitted."""

    id: str
    model: str
    family: str
    context: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch that is about to be submitted."""

    id: str
    prompt: str
    tasks: tuple[NewTask, ...]
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    conversation_id: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    earlier_hashes: tuple[EarlierHash, ...] = ()
    lane: str = ASK
    origin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView(Result):
    """One task as people and programs see it, with its result's columns. Times are aware, durations in seconds.

    `name` is what the model is called in its batch: `family/model` where the bare name would mean two.
    """

    id: str
    batch_id: str
    position: int
    model: str
    family: str
    name: str
    status: TaskStatus
    attempt: int
    failures: int
    rescues: int
    created_at: dt.datetime
    run_in_s: float
    lease_left_s: float | None
    worker: str | None
    running_s: float | None
    finished_at: dt.datetime | None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class TaskState:
    """How one task stands, without its texts."""

    id: str
    position: int
    name: str
    status: TaskStatus
    attempt: int


@dataclass(frozen=True, slots=True)
class BatchView:
    """One batch with its tasks in the order asked."""

    id: str
    conversation_id: str
    prompt: str
    system: str | None
    options: dict[str, Any]
    created_at: dt.datetime
    tasks: tuple[TaskView, ...]

    @property
    def status(self) -> BatchStatus:
        return batch_status([task.status for task in self.tasks])


@dataclass(frozen=True, slots=True)
class BatchPage:
    """Some of a conversation's batches, oldest of them first.

    Attributes:
        before: the batch that the page of older ones ends before, or None: there are none.
    """

    batches: tuple[BatchView, ...]
    before: str | None


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One batch in a listing: its head, and how many tasks stand where."""

    id: str
    prompt_head: str
    created_at: dt.datetime
    models: tuple[str, ...]
    statuses: tuple[TaskStatus, ...]

    @property
    def status(self) -> BatchStatus:
        return batch_status(list(self.statuses))


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task that this worker holds: what the call needs, and the fence (`id`, `attempt`).

    `claimed_for_s` counts from the task's first claim, in seconds.
    """

    id: str
    batch_id: str
    conversation_id: str
    model: str
    family: str
    attempt: int
    failures: int
    rescues: int
    bad_answers: int
    prompt: str
    system: str | None
    options: dict[str, Any]
    context: tuple[dict[str, str], ...]
    lane: str = ASK
    claimed_for_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Result):
    """What became of one attempt, on its way to the recorder.

    `status` is SUCCESS, FAILED, or PENDING for a retry or a hand-back; `run_in_s` counts from the database's now.
    `counts_failure` says whether the attempt costs one of the task's `failures`; `cool_s` for how long every worker
    leaves the task's model alone, in seconds.
    """

    id: str
    attempt: int
    status: TaskStatus
    outcome: str
    run_in_s: float = 0.0
    counts_failure: bool = False
    counts_bad_answer: bool = False
    cool_s: float = 0.0

    @property
    def text_bytes(self) -> int:
        """A cheap upper estimate of the row's size, to bound one statement."""
        return 4 * (len(self.response_text or "") + len(self.reasoning_text or "") + len(self.error_msg or ""))


class HintFate(Enum):
    """What the database says of a hint whose task could not be claimed."""

    DONE = "done"
    # Not due, or not any more: another hint comes when it is.
    PUT_OFF = "put_off"
    LOCKED = "locked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker as it last reported itself."""

    id: str
    host: str
    pid: int
    families: tuple[str, ...]
    slots: int
    in_flight: int
    started_at: dt.datetime
    heartbeat_age_s: float
    version: str
    state: dict[str, Any]
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One ended attempt of a task."""

    number: int
    worker: str | None
    started_at: dt.datetime | None
    ended_at: dt.datetime
    outcome: str
    error_kind: str | None
    error_msg: str | None
    http_status: int | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a family is held, and for how much longer (None: until resumed)."""

    family: str
    reason: str
    kind: str
    left_s: float | None


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A model that every worker leaves alone, why, and for how much longer, in seconds."""

    family: str
    model: str
    reason: str | None
    left_s: float
