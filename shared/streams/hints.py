"""Stream entries as the rest of the program knows them. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from shared.ids import is_id

FIELD = "task"
# What is enqueued and what is in the stream may differ for this long: a commit and an XADD in between.
WATERMARK_GRACE_S = 5.0
# No hint is older: while this is the watermark, none is taken for gone.
_NEVER = dt.datetime.fromtimestamp(0, dt.timezone.utc)


@dataclass(frozen=True, slots=True)
class Hint:
    """One stream entry. `task_id` is None when the entry names no task."""

    family: str
    entry_id: str
    task_id: str | None
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a family's stream has been delivered, in Redis' time; hints sent before it are gone or delivered."""

    redis_now: dt.datetime
    safe_until: dt.datetime


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """One entry that a consumer has read and nobody has acknowledged."""

    family: str
    entry_id: str
    consumer: str
    idle_s: float
    deliveries: int
    task_id: str | None
    origin: str | None = None


def parse(family: str, entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> Hint:
    """Make a hint of an entry, whatever is in it. A deleted entry has no fields."""
    fields = fields or {}
    value = fields.get(FIELD.encode())
    text = value.decode("ascii", "replace") if value is not None else ""
    return Hint(family, entry_id.decode(), text.lower() if len(fields) == 1 and is_id(text) else None, fields)


def safe_until(redis_now: dt.datetime, first_undelivered: bytes | None) -> dt.datetime:
    """Return the Redis time before which every hint has been delivered, by the id of the first entry that has not been.

    An id ahead of the clock says nothing of when its entry was sent: a clock was set back, a replica with another clock
    took over, or somebody chose the id; and all ids after it are ahead as well. Until those entries are read no hint is
    taken for gone: to go by the clock instead would send a healthy backlog again with every grace that passes.
    """
    if first_undelivered is None:
        return redis_now
    since_s = int(first_undelivered.split(b"-")[0]) / 1000
    if since_s > redis_now.timestamp():
        return _NEVER
    return dt.datetime.fromtimestamp(since_s, dt.timezone.utc)
