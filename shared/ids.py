"""Identifiers: unguessable, and for tasks ordered by time so that their index grows at one end."""

from __future__ import annotations

import os
import re
import time
import uuid

from shared.errors import UsageFault

_PREFIX = re.compile(r"[0-9a-f]{1,32}")


def new_id() -> str:
    """A random id (UUID version 4), for what people name by a short prefix."""
    return str(uuid.uuid4())


def new_ordered_id() -> str:
    """An id whose first 48 bits are the time in ms (UUID version 7, RFC 9562), the other 74 random."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def is_id(text: str) -> bool:
    """Tell whether the text is a whole id."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def prefix_range(prefix: str) -> tuple[str, str]:
    """Return the least and the greatest id that start with this prefix.

    Raises:
        UsageFault: the text can't be the start of an id.
    """
    digits = prefix.lower().replace("-", "")
    if not _PREFIX.fullmatch(digits):
        raise UsageFault(f"{prefix[:60]!r} is not a batch", remedy="give an id, the start of one, or `last`")
    return str(uuid.UUID(digits.ljust(32, "0"))), str(uuid.UUID(digits.ljust(32, "f")))
