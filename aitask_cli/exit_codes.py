"""Exit codes, the same for every command (README, "Exit codes")."""

from __future__ import annotations

from enum import IntEnum

from shared.domain import BatchStatus
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


def for_status(status: BatchStatus) -> Exit:
    """The code for a batch as it stands."""
    return {
        BatchStatus.COMPLETED: Exit.OK,
        BatchStatus.PARTIAL: Exit.PARTIAL,
        BatchStatus.FAILED: Exit.NO_ANSWER,
        BatchStatus.PROCESSING: Exit.RUNNING,
    }[status]
