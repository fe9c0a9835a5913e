"""Who may ask, judged by a request's head alone. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping

Headers = Mapping[bytes, bytes]
Refusal = tuple[int, str]

_NAME = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::\d{1,5})?")
_JSON = re.compile(rb"application/(?:[a-z0-9.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)


def local_host(host: bytes) -> bool:
    """Whether a Host header names this machine, and nothing else besides a port."""
    match = _NAME.fullmatch(host.decode("latin-1").lower())
    if match is None:
        return False
    if match[1] == "localhost":
        return True
    try:
        return ipaddress.ip_address(match[1].strip("[]")).is_loopback
    except ValueError:
        return False


def of_a_foreign_page(headers: Headers, allowed: Collection[str]) -> Refusal | None:
    """Refuse what a browser sends for a page of somewhere else, unless its origin is allowed.

    Browsers set these headers and pages can't (https://www.w3.org/TR/fetch-metadata/).
    """
    origin = headers.get(b"origin")
    if origin is not None:
        said = origin.decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if said not in allowed and (not host or said.lower().partition("://")[2] != host):
            return 403, "pages of this origin may not call: add it to AITASK_GATEWAY_ORIGINS"
    elif headers.get(b"sec-fetch-site") == b"cross-site":
        return 403, "pages of another site may not call: see AITASK_GATEWAY_ORIGINS"
    return None


def has_body(headers: Headers) -> bool:
    """Whether the head announces a body."""
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0 ") != b""


def of_another_type(headers: Headers) -> Refusal | None:
    """Refuse a body that does not say that it is JSON: a page can send any other without being asked first."""
    if has_body(headers) and _JSON.fullmatch(headers.get(b"content-type", b"").strip()) is None:
        return 415, "the body must be JSON: send Content-Type: application/json"
    return None
