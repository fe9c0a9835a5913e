"""Errors to the system log table (ENABLE_DB_LOG): rate-limited and capped, so that a storm cannot fill the disk."""

from __future__ import annotations

import logging
import queue
import threading
import time
import traceback

from shared.errors import AitaskError
from shared.logs import TRACE_OF, fields_of
from shared.store import syslog
from shared.store.engine import Database

# A burst is kept, then this many records a second; what is dropped is counted.
BURST = 100
PER_SECOND = 5.0
_WAITING = 500


class DatabaseLog(logging.Handler):
    """Writes records of level ERROR and above on a thread of its own; it never holds up who logs."""

    def __init__(self, db: Database) -> None:
        super().__init__(logging.ERROR)
        self._db = db
        self._records: queue.Queue[syslog.Entry] = queue.Queue(_WAITING)
        self._tokens = float(BURST)
        self._refilled = time.monotonic()
        self._dropped = 0

    def install(self) -> None:
        """Add this handler to the `aitask` loggers and start its thread."""
        logging.getLogger("aitask").addHandler(self)
        threading.Thread(target=self._run, name="aitask-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        if not self._allowed():
            self._dropped += 1
            return
        fields = {key: str(value)[:500] for key, value in fields_of(record).items()}
        if self._dropped:
            fields["dropped_before"] = str(self._dropped)
        entry = syslog.Entry(record.levelname.lower(), record.name, record.getMessage(), _trace(record), fields)
        try:
            self._records.put_nowait(entry)
        except queue.Full:
            self._dropped += 1
        else:
            self._dropped = 0

    def _allowed(self) -> bool:
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._refilled) * PER_SECOND)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _run(self) -> None:
        while True:
            entries = [self._records.get()]
            while not self._records.empty() and len(entries) < BURST:
                entries.append(self._records.get_nowait())
            try:
                syslog.write(self._db, entries)
            except AitaskError:
                # The log must never be what keeps a worker busy while the database is away.
                self._dropped += len(entries)
                time.sleep(1.0)


def _trace(record: logging.LogRecord) -> str | None:
    error = record.exc_info[1] if record.exc_info else getattr(record, TRACE_OF, None)
    if not isinstance(error, BaseException):
        return None
    return "".join(traceback.format_exception(error))
