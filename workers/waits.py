"""How long an upstream asks us to wait: in headers or in the error itself, in every form there is. Pure."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from workers.said import Said

# Google's daily quotas end at midnight Pacific time (https://ai.google.dev/gemini-api/docs/rate-limits).
PACIFIC = dt.timezone(dt.timedelta(hours=-8))
_PART = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|d|days?|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?)\.?(?![a-z])", re.I
)
_UNITS = {"ms": 0.001, "mi": 0.001, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_SENTENCE = re.compile(
    r"(?:try|retry|again|wait|reset\w*|available|resume)\b[^.;\d]{0,40}?\b(?:in|after|for|at least|within)?\s*[:=]?\s*"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|milliseconds?|d|days?|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?)(?![a-z])[\s,]*(?:and\s+)?)+)",
    re.I,
)  # fmt: skip
_FIELDS = ("retryDelay", "retry_after", "retryAfter", "retry_after_seconds", "retry_after_s", "retry_in")
_RESET = re.compile(r"(?:x-|anthropic-)?ratelimit-(?:(.*)-)?reset(?:-(.*))?$")
# A number beyond this is a point in time, not a wait.
_EPOCH_S = 1e9
_MOST_S = 2 * 86400.0


def named_wait(headers: Mapping[str, str], said: Said | None, now: dt.datetime) -> float | None:
    """Return the wait an upstream names, in seconds, or None.

    `Retry-After` (RFC 9110, 10.2.3) and OpenAI's `retry-after-ms` come first, then the error's own fields and its
    sentence, then the resets of limits of rate: those say when all is free again, which is later.
    """
    found = retry_after_s(headers, now)
    if found is None and said is not None:
        found = _in_body(said, now)
    return found if found is not None else reset_s(headers, now)


def retry_after_s(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """Return what `Retry-After` or `retry-after-ms` names, in seconds; 0 for what is past.

    A date is measured from the answer's own `Date`, so that a clock that is wrong here or there does not matter.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after")
    return None if value is None else span_s(value, _sent(headers, now))


def reset_s(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """Return in how many seconds the limits that are used up are free again, by `x-ratelimit-reset-*` and the like."""
    at = _sent(headers, now)
    spent: list[float] = []
    unknown: list[float] = []
    for name, value in headers.items():
        match = _RESET.match(name.lower())
        wait_s = span_s(value, at) if match else None
        if match is None or wait_s is None:
            continue
        what = match[2] or match[1]
        lowered = name.lower()
        left = _number(
            headers.get(lowered.replace("-reset", "-remaining")) or headers.get(f"x-ratelimit-remaining-{what}")
        )
        (unknown if left is None else spent if left <= 0 else []).append(wait_s)
    return max(spent) if spent else min(unknown) if unknown else None


def span_s(value: Any, now: dt.datetime) -> float | None:
    """Return a span in seconds: 12, "12", "5s", "1m2.5s", "350ms", a date, seconds or milliseconds since 1970."""
    if isinstance(value, dict):
        seconds, nanos = _number(value.get("seconds", 0)), _number(value.get("nanos", 0))
        return None if seconds is None else _bounded(seconds + (nanos or 0.0) / 1e9)
    number = _number(value)
    if number is not None:
        if number > _EPOCH_S:
            number = (number / 1000 if number > 100 * _EPOCH_S else number) - now.timestamp()
        return _bounded(number)
    if not isinstance(value, str):
        return None
    text = value.strip()
    parts = _PART.findall(text)
    if parts and not _PART.sub("", text).strip(" ,and"):
        return _bounded(_summed(parts))
    then = _date(text)
    return None if then is None else _bounded((then - now).total_seconds())


def in_sentence(text: str) -> float | None:
    """Return the wait that a sentence names: "Please try again in 1m2.5s", "retry in 45.6s"; seconds."""
    match = _SENTENCE.search(text)
    return None if match is None else _bounded(_summed(_PART.findall(match[1])))


def until_midnight_s(now: dt.datetime) -> float:
    """Seconds until Google's day ends."""
    here = now.astimezone(PACIFIC)
    return (dt.datetime.combine(here.date() + dt.timedelta(days=1), dt.time(), PACIFIC) - here).total_seconds()


def _in_body(said: Said, now: dt.datetime) -> float | None:
    for part in said.parts:
        for name in _FIELDS:
            if name in part and (found := span_s(part[name], now)) is not None:
                return found
        milliseconds = _number(part.get("retry_after_ms"))
        if milliseconds is not None:
            return _bounded(milliseconds / 1000)
        # OpenRouter hands on its provider's headers.
        headers = part.get("headers")
        if isinstance(headers, dict):
            lowered = {str(name).lower(): str(value) for name, value in headers.items()}
            if (found := named_wait(lowered, None, now)) is not None:
                return found
    return in_sentence(said.message)


def _summed(parts: list[tuple[str, str]]) -> float:
    return sum(float(number) * _unit(unit.lower()) for number, unit in parts)


def _unit(unit: str) -> float:
    if unit.startswith("ms") or unit.startswith("milli"):
        return 0.001
    return _UNITS[unit[0]]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), _MOST_S)


def _sent(headers: Mapping[str, str], now: dt.datetime) -> dt.datetime:
    sent = headers.get("date")
    return (_date(sent) if sent else None) or now


def _date(value: str) -> dt.datetime | None:
    for parse in (parsedate_to_datetime, _iso):
        try:
            found = parse(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=dt.timezone.utc)
    return None


def _iso(value: str) -> dt.datetime:
    # Python 3.10 reads no Z.
    return dt.datetime.fromisoformat(value[:-1] + "+00:00" if value[-1:] in "Zz" else value)
