"""What the text of a setting may be: functions from it to its value, which raise ValueError with the reason."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

from shared import redis_url as redis_urls
from shared.postgres_url import parse_postgres_url

Parse = Any


def text(value: str) -> str:
    """Any text."""
    return value


def path(value: str) -> str:
    """A file, by its whole path: a relative one would be another one in another directory."""
    found = os.path.expanduser(value)
    if not os.path.isabs(found):
        raise ValueError("must be a whole path, such as /home/me/models.json")
    return found


def key(value: str) -> str:
    """An API key."""
    # It becomes a header, which takes only these.
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("has a character that no key has")
    return value


def flag(value: str) -> bool:
    """True or false."""
    lowered = value.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("must be true or false")


def whole(low: int, high: int) -> Parse:
    """A whole number within bounds."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError("must be a whole number") from None
        if not low <= number <= high:
            raise ValueError(f"must be from {low} to {high}")
        return number

    return parse


def seconds(low: float, high: float) -> Parse:
    """A number of seconds within bounds."""

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise ValueError("must be a number of seconds") from None
        if not low <= number <= high:
            raise ValueError(f"must be from {low:g} to {high:g} seconds")
        return number

    return parse


def url(*schemes: str) -> Parse:
    """A URL of one of these schemes."""

    def parse(value: str) -> str:
        try:
            parts = urlsplit(value)
            parts.port  # noqa: B018  (reading it is what checks it)
        except ValueError:
            raise ValueError("is not a URL") from None
        if parts.scheme not in schemes or not (parts.netloc or parts.path.startswith("/")):
            raise ValueError(f"must be a URL that starts with {' or '.join(s + '://' for s in schemes)}")
        if schemes[0] == "http" and not parts.hostname:
            raise ValueError("must be a URL with a host")
        return value

    return parse


def postgres_url(value: str) -> str:
    """A URL of PostgreSQL, of one host or several."""
    parse_postgres_url(value)
    return value


def redis_url(value: str) -> str:
    """A URL of Redis or Valkey: one server, or Sentinels."""
    if redis_urls.parse(value).kind is redis_urls.Kind.CLUSTER:
        raise ValueError(
            "names a Cluster, which is not supported: use a single server or redis+sentinel://HOST:26379/NAME"
        )
    return value


def names(value: str) -> tuple[str, ...]:
    """Names, comma-separated."""
    return tuple(part.strip().lower() for part in value.split(",") if part.strip())


def phrases(value: str) -> tuple[str, ...]:
    """Phrases, separated by |."""
    return tuple(part.strip() for part in value.split("|") if part.strip())


def choice(*allowed: str) -> Parse:
    """One of these words."""

    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value.lower()

    return parse


def namespace(value: str) -> str:
    """Letters, digits, dots, dashes, underscores."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        raise ValueError("must be 1 to 64 letters, digits, dots, dashes or underscores")
    return value


def tokens(value: str) -> tuple[tuple[str, str], ...]:
    """NAME:TOKEN pairs, comma-separated; `auto` is a name without a token, which the gateway makes."""
    if value.strip().lower() == "auto":
        return (("auto", ""),)
    found = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        name, sign, token = part.partition(":")
        if not sign or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) or not re.fullmatch(r"[!-~]{16,256}", token):
            raise ValueError("must be NAME:TOKEN, comma-separated, each token of 16 characters or more without spaces")
        found.append((name, token))
    return tuple(found)


def origins(value: str) -> tuple[str, ...]:
    """Web origins, comma-separated."""
    found = tuple(part.strip() for part in value.split(",") if part.strip())
    if not all(re.fullmatch(r"https?://[^/\s]+", origin) for origin in found):
        raise ValueError("must be origins such as https://example.org, comma-separated, without a path")
    return found
