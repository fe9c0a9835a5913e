"""Structured logs on stderr: a sentence for people plus fields for machines."""

from __future__ import annotations

import json
import logging
import sys
import time

from shared.text import printable

# A field that carries an error whose trace is worth keeping in the system log, though not on stderr.
TRACE_OF = "trace_of"
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what was passed as `extra` with a record."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and key != TRACE_OF}


class TextFormatter(logging.Formatter):
    """One line: time, level, sentence, then fields as key=value. Control codes are taken out."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in fields_of(record).items())
        when = self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ")
        line = f"{when} {record.levelname.lower():7} {record.getMessage()}"
        line = " ".join(printable(f"{line}  {fields}" if fields else line).splitlines())
        return f"{line}\n{printable(self.formatException(record.exc_info))}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, the fields, and the trace if there is one."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(level: str, *, as_json: bool = False) -> None:
    """Send the `aitask` loggers to stderr at this level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logger = logging.getLogger("aitask")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
