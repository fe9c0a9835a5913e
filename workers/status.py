"""What an upstream's error means for a task: from its status, its codes and, where it has none, its words. Pure."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from shared.errors import UpstreamError
from shared.kinds import ErrorKind, http_kind
from workers.codes import Means, means
from workers.said import Said, error_in, said_of
from workers.waits import named_wait, until_midnight_s

_TRANSIENT = {408, 409, 425, 429, 499}
_PERMANENT = {501, 505}
# Statuses whose named wait is kept; a wait beside another error is only a guess.
_ASKS_TO_WAIT = {429, 503, 529}
_KINDS = {
    Means.CONTEXT: ErrorKind.CONTEXT_TOO_LONG,
    Means.POLICY: ErrorKind.CONTENT_POLICY,
    Means.QUOTA: ErrorKind.QUOTA_EXHAUSTED,
    Means.TOO_LARGE: ErrorKind.TOO_LARGE,
    Means.MODEL: ErrorKind.UNKNOWN_MODEL,
}
_CHARS = 500


def from_body(
    status: int, body: bytes, content_type: str, headers: Mapping[str, str], now: dt.datetime
) -> UpstreamError:
    """Return the error for a status other than success, with what its body and its headers say.

    Args:
        headers: by lower-case or case-insensitive name.
    """
    said = _said(body, content_type)
    return from_said(said, status, wait_s=named_wait(headers, said, now), now=now)


def error_object(value: Any, now: dt.datetime | None = None) -> UpstreamError | None:
    """Return the error that a JSON value inside an answer is, or None: it is none."""
    said = error_in(value)
    if said is None:
        return None
    at = now or dt.datetime.now(dt.timezone.utc)
    return from_said(said, None, wait_s=named_wait({}, said, at), now=at)


def from_said(
    said: Said, status: int | None, *, wait_s: float | None = None, now: dt.datetime | None = None
) -> UpstreamError:
    """Judge an error.

    Args:
        status: the HTTP status; None for an error inside a success, where the number that it names holds.
        wait_s: the wait that headers or body name.
    """
    number = status if status is not None else said.number
    sense = means(said, number)
    words = _words(said, status, number)
    if 300 <= (number or 0) < 400:
        return UpstreamError(words, kind=ErrorKind.REDIRECT, retryable=False, http_status=number)
    if sense in _KINDS:
        return UpstreamError(words, kind=_KINDS[sense], retryable=False, http_status=number or 200)
    if sense in (Means.RATE, Means.DAILY):
        return _limited(words, number, sense, wait_s, now)
    if number is None:
        return _without_number(words, sense)
    asked = wait_s if number in _ASKS_TO_WAIT else None
    retryable = number in _TRANSIENT or (number >= 500 and number not in _PERMANENT)
    return UpstreamError(words, kind=http_kind(number), retryable=retryable, http_status=number, retry_after_s=asked)


def _limited(
    words: str, number: int | None, sense: Means, wait_s: float | None, now: dt.datetime | None
) -> UpstreamError:
    daily = sense is Means.DAILY
    if daily and (wait_s is None or wait_s < 900):
        # A daily quota's `retryDelay` is that of the minute's; Groq's sentence is right, and is longer.
        wait_s = max(wait_s or 0.0, until_midnight_s(now) if now else 0.0) or None
    kind = http_kind(number) if number else ErrorKind.RATE_LIMITED
    # One inside a 200 that names neither number nor wait is a failure like others: nobody keeps a queue by it.
    limited = number is not None or wait_s is not None
    return UpstreamError(
        words,
        kind=kind,
        retryable=True,
        http_status=number or 200,
        retry_after_s=wait_s,
        limited=limited,
        until_reset=daily,
    )


def _without_number(words: str, sense: Means | None) -> UpstreamError:
    """An error that is judged by its type; one that has none is worth a second try."""
    if sense is Means.BUSY:
        return UpstreamError(words, kind=ErrorKind.ERROR_OBJECT, retryable=True, http_status=200)
    if sense is Means.PERMANENT:
        return UpstreamError(words, kind=ErrorKind.ERROR_OBJECT, retryable=False, http_status=200)
    return UpstreamError(words, kind=ErrorKind.ERROR_OBJECT, retryable=True, http_status=200, max_tries=2)


def _words(said: Said, status: int | None, number: int | None) -> str:
    readable = " ".join(said.message[:_CHARS].split())
    if status is not None:
        if 300 <= status < 400:
            # The key must not follow to another host, and a redirected POST loses its body.
            readable = f"the endpoint redirects: {readable}"
        return f"HTTP {status}" + (f": {readable}" if readable else "")
    inside = f"error {number}" if number else "an error"
    return f"{inside} inside the answer: {readable}"


def _said(body: bytes, content_type: str) -> Said:
    text = body[:65536].decode("utf-8-sig", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, (dict, list)):
        found = error_in(value) or said_of(value)
        if found.message != "an error without a message":
            return found
        return Said(text.strip(), found.codes, found.number, found.parts)
    if "html" in content_type or text.lstrip()[:1] == "<":
        title = " ".join(_title(text).split())[:100]
        return Said(f"an HTML page ({title or 'without a title'})")
    return Said(value.strip() if isinstance(value, str) else text.strip())


def _title(page: str) -> str:
    """A page's title, looked for once: a pattern would begin anew at each of a thousand `<title>`."""
    lowered = page.lower() if page.isascii() else page
    begin = lowered.find(">", lowered.find("<title")) + 1 if "<title" in lowered else 0
    end = lowered.find("</title", begin)
    return page[begin:end] if begin and end > begin else ""


def error_message(body: bytes, content_type: str) -> str:
    """Return the sentence in an error's body: the API's message, or the start of what there is."""
    return _said(body, content_type).message
