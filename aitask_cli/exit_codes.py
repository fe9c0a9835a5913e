"""Exit codes, the same for every command (README, "Exit codes")."""

from __future__ import annotations

from enum import IntEnum

from shared.domain import BatchStatus, BatchView
from shared.errors import AitaskError, Unavailable, UsageFault


class Exit(IntEnum):
    """What a command's end says."""

    OK = 0
    ERROR = 1
    USAGE = 2
    PARTIAL = 3
    NO_ANSWER = 5
    RUNNING = 8
    UNAVAILABLE = 69
    WAIT_EXPIRED = 124
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


def for_error(error: AitaskError) -> Exit:
    """The code for an expected error."""
    if isinstance(error, UsageFault):
        return Exit.USAGE
    return Exit.UNAVAILABLE if isinstance(error, Unavailable) else Exit.ERROR


def for_batch(batch: BatchView, *, strict: bool) -> Exit:
    """The code for a batch as it stands; a strict one is not whole when a model saw only part of its question."""
    code = for_status(batch.status)
    return Exit.PARTIAL if strict and code is Exit.OK and any(task.cut_question for task in batch.tasks) else code


def for_status(status: BatchStatus) -> Exit:
    """The code for a batch by its status alone."""
    return {
        BatchStatus.COMPLETED: Exit.OK,
        BatchStatus.PARTIAL: Exit.PARTIAL,
        BatchStatus.FAILED: Exit.NO_ANSWER,
        BatchStatus.PROCESSING: Exit.RUNNING,
    }[status]
