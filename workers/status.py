"""What an HTTP status means for a task, and how long an upstream asks us to wait. Pure."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from shared.errors import UpstreamError

_PERMANENT = {400, 401, 403, 404, 405, 410, 413, 414, 415, 422, 501}
_TRANSIENT = {408, 409, 425, 429}
_CONTEXT = (
    "context length",
    "context_length",
    "maximum context",
    "too many tokens",
    "context window",
    "prompt is too long",
)
_POLICY = ("content policy", "content_policy", "content filter", "content_filter", "safety", "moderation")
_HEAD = 500


def from_status(status: int, message: str, *, retry_after_s: float | None = None) -> UpstreamError:
    """Return the error for a status other than 200."""
    lowered = message.lower()
    readable = " ".join(message[:_HEAD].split())
    kind, retryable = f"http_{status}", status in _TRANSIENT or (status >= 500 and status not in _PERMANENT)
    if status in (400, 413, 422) and any(sign in lowered for sign in _CONTEXT):
        kind, retryable = "context_too_long", False
    elif status in (400, 403, 422) and any(sign in lowered for sign in _POLICY):
        kind, retryable = "content_policy", False
    elif 300 <= status < 400:
        # The key must not follow to another host, and a redirected POST loses its body.
        kind, readable = "redirect", f"the endpoint redirects: {readable}"
    said = f"HTTP {status}" + (f": {readable}" if readable else "")
    return UpstreamError(said, kind=kind, retryable=retryable, http_status=status, retry_after_s=retry_after_s)


def error_message(body: bytes, content_type: str) -> str:
    """Return the sentence in an error's body: the API's message, or the start of what there is."""
    text = body[:65536].decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, list) and said:
        said = said[0]
    if isinstance(said, dict):
        error = said.get("error", said)
        found = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        if isinstance(found, str):
            return found
    if "html" in content_type or text.lstrip()[:1] == "<":
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.I | re.S)
        return f"an HTML page ({' '.join(title[1].split())[:100] if title else 'without a title'})"
    return text.strip()


def retry_after_s(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """Return the wait an upstream asks for, in seconds, or None.

    `Retry-After` is a number of seconds or a date (RFC 9110, 10.2.3); `retry-after-ms` is OpenAI's. A date is measured
    from the answer's own `Date`, so that a clock that is wrong here or there does not matter.
    """
    value: Any = headers.get("retry-after-ms")
    if value is not None:
        try:
            return max(0.0, float(value) / 1000)
        except ValueError:
            pass
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return _until(value, headers.get("date"), now)
    return max(0.0, seconds) if seconds == seconds else None


def _until(value: str, sent: str | None, now: dt.datetime) -> float | None:
    then = _date(value)
    if then is None:
        return None
    return max(0.0, (then - ((_date(sent) if sent else None) or now)).total_seconds())


def _date(value: str) -> dt.datetime | None:
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.timezone.utc)
