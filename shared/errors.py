"""The one exception tree.

    AitaskError                  one line for people, with the remedy
    ├── UsageFault               bad input; nothing was submitted
    │   ├── SettingFault         a bad environment or `.env` value, by name
    │   ├── UnknownModel         no family serves it
    │   └── Conflict             an idempotency key that was used for another request
    ├── NotFound                 no such batch or task
    ├── Unavailable              PostgreSQL, or any server at all, can't be had
    │   ├── DatabaseUnavailable
    │   │   └── MayBeStored      the reply to a submission's commit was lost
    │   └── SchemaMismatch       the tables are missing or of another version
    ├── HintsUnavailable         Redis can't be had; costs latency, never work
    └── UpstreamError            one call to a model failed; carries the facts the retry decision needs

Expected errors are these; everything else is a bug and keeps its traceback.
"""

from __future__ import annotations


class AitaskError(Exception):
    """An expected failure.

    Args:
        message: one line that names the thing.
        remedy: one line that says what to do, or empty.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class UsageFault(AitaskError):
    """Bad input: nothing was submitted."""


class SettingFault(UsageFault):
    """A setting has a bad value; the message names the variable, never its value if that is secret."""


class UnknownModel(UsageFault):
    """No family serves a model of this name."""


class Conflict(UsageFault):
    """An idempotency key was used for another request."""


class NotFound(AitaskError):
    """No such batch, task or conversation."""


class Unavailable(AitaskError):
    """A server that the command can't do without is not to be had."""


class DatabaseUnavailable(Unavailable):
    """PostgreSQL refuses, is gone or does not answer in time.

    Attributes:
        unknown: whether what was asked for may have been done all the same: the reply to the commit was lost.
        waits: whether it may come back by itself; not so where a password, a right or the database is missing.
    """

    def __init__(self, message: str, *, remedy: str = "", unknown: bool = False, waits: bool = True) -> None:
        super().__init__(message, remedy=remedy)
        self.unknown = unknown
        self.waits = waits


class MayBeStored(DatabaseUnavailable):
    """The reply to a submission's commit was lost, and the server did not come back to be asked.

    Attributes:
        batch_id: the batch that exists, or not.
    """

    def __init__(self, batch_id: str, reason: str) -> None:
        super().__init__(
            f"{reason}; batch {batch_id} may be stored",
            remedy=f"look when it is back: aitask show {batch_id}",
            unknown=True,
        )
        self.batch_id = batch_id


class SchemaMismatch(Unavailable):
    """The database has no aitask tables, or those of another version."""


class HintsUnavailable(AitaskError):
    """Redis can't be had: hints and live output wait, tasks don't."""


class UpstreamError(AitaskError):
    """One call to an upstream failed.

    Attributes:
        kind: an `ErrorKind`, or `http_kind(status)`; stored as the task's error kind.
        retryable: whether the same call may succeed later.
        http_status: the upstream's status, or None when there was none.
        retry_after_s: the wait the upstream asked for, in seconds, or None.
        max_tries: the most tries this kind is worth, or None for the general budget.
        limited: whether it is a limit of rate: the model is left alone for a while, at no cost to `failures`.
        until_reset: whether the wait lasts until a daily quota's reset, and is not to be shortened.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        retryable: bool,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        max_tries: int | None = None,
        limited: bool = False,
        until_reset: bool = False,
    ) -> None:
        super().__init__(message)
        self.limited = limited
        self.until_reset = until_reset
        self.kind = kind
        self.retryable = retryable
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.max_tries = max_tries

    @property
    def names_no_wait(self) -> bool:
        """Whether it is a limit of rate that doesn't say for how long."""
        return self.limited and self.retry_after_s is None
