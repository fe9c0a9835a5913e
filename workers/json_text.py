"""JSON to and from an upstream, also what the fast way refuses. Pure."""

from __future__ import annotations

import json
from typing import Any

import orjson

from shared.errors import UpstreamError
from shared.kinds import ErrorKind


def dumped(value: Any) -> bytes:
    """Return JSON. What orjson refuses, numbers beyond 64 bits, the slower way writes."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def parsed(text: str) -> Any:
    """Parse an upstream's JSON. What orjson refuses, NaN and half a surrogate pair, the slower way reads.

    Raises:
        UpstreamError: it is not JSON; worth two tries.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        head = " ".join(text[:80].split())
        raise bad_answer(f"the answer is not JSON: {head!r}", kind=ErrorKind.BAD_JSON) from None


def bad_answer(message: str, *, kind: str = ErrorKind.BAD_ANSWER) -> UpstreamError:
    """An answer that makes no sense: the same call may do better, but not often."""
    return UpstreamError(message, kind=kind, retryable=True, http_status=200, max_tries=2)
