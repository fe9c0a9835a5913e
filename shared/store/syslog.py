"""The system log table: errors with their traces, for operators far from the worker's stderr."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.store.engine import Database, Sql, utc
from shared.text import storable

# The newest are kept; with the bounds below the table stays under about 100 MB.
KEEP_ROWS = 10_000
MESSAGE_CHARS = 2_000
TRACE_CHARS = 8_000

_WRITE = Sql("""
INSERT INTO system_log (level, logger, message, trace, fields)
SELECT * FROM unnest(CAST(:levels AS text[]), CAST(:loggers AS text[]), CAST(:messages AS text[]),
                     CAST(:traces AS text[]), CAST(:fields AS jsonb[]))
""")
_TRIM = Sql("""
DELETE FROM system_log WHERE id <= (SELECT id FROM system_log ORDER BY id DESC OFFSET :keep LIMIT 1)
""")
_RECENT = Sql("SELECT at, level, logger, message, trace, fields FROM system_log ORDER BY id DESC LIMIT :most")


@dataclass(frozen=True, slots=True)
class Entry:
    """One record on its way to the table."""

    level: str
    logger: str
    message: str
    trace: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record of the table."""

    at: dt.datetime
    level: str
    logger: str
    message: str
    trace: str | None
    fields: dict[str, str]


def write(db: Database, entries: Sequence[Entry]) -> None:
    """Add records, shortened to their bounds, and drop the oldest beyond the cap."""
    values = {
        "levels": [entry.level for entry in entries],
        "loggers": [entry.logger for entry in entries],
        "messages": [storable(entry.message[:MESSAGE_CHARS]) for entry in entries],
        # The end of a trace names the error.
        "traces": [storable(entry.trace[-TRACE_CHARS:]) if entry.trace else None for entry in entries],
        "fields": [json.dumps({key: storable(value) for key, value in entry.fields.items()}) for entry in entries],
    }
    with db.transaction() as connection:
        connection.execute(_WRITE, values)
        connection.execute(_TRIM, {"keep": KEEP_ROWS})


def recent(db: Database, most: int) -> list[LogLine]:
    """Return the newest records, oldest of them first."""
    return [LogLine(**{**row, "at": utc(row["at"])}) for row in reversed(db.rows(_RECENT, most=most))]
