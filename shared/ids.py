"""Identifiers: unguessable, and for tasks ordered by time so that their index grows at one end."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid

from shared.errors import UsageFault

_lock = threading.Lock()
_last = 0
_PREFIX = re.compile(r"[0-9a-f]{1,32}")
_WHOLE = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def new_id() -> str:
    """A random id (UUID version 4), for what people name by a short prefix."""
    return str(uuid.uuid4())


def new_ordered_id() -> str:
    """An id of 48 bits of time in ms and 12 that count on within it (UUID version 7, RFC 9562); the other 62 random.

    Those of one process are in the order they were made.
    """
    global _last
    with _lock:
        _last = moment = max((time.time_ns() // 1_000_000) << 12, _last + 1)
    value = (moment >> 12) << 80 | 0x7 << 76 | (moment & 0xFFF) << 64 | 0x2 << 62
    digits = f"{value | int.from_bytes(os.urandom(8), 'big') >> 2:032x}"
    # uuid.UUID checks what needs no check here, at four times the cost; a bulk submission makes ten thousands.
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_id(text: str) -> bool:
    """Tell whether the text is a whole id."""
    return _WHOLE.fullmatch(text) is not None


def prefix_range(prefix: str) -> tuple[str, str]:
    """Return the least and the greatest id that start with this prefix.

    Raises:
        UsageFault: the text can't be the start of an id.
    """
    digits = prefix.lower().replace("-", "")
    if not _PREFIX.fullmatch(digits):
        raise UsageFault(f"{prefix[:60]!r} is not a batch", remedy="give an id, the start of one, or `last`")
    return str(uuid.UUID(digits.ljust(32, "0"))), str(uuid.UUID(digits.ljust(32, "f")))
