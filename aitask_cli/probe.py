"""Asking an endpoint whether it is there and which models it has. Never follows a redirect with the key."""

from __future__ import annotations

import json
from dataclasses import dataclass

import httpx

from shared.families import Family, models_url

TIMEOUT_S = 3.0
_LIST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Probe:
    """What an endpoint said. `models` is None when it gave no list; `error` is None when it answered."""

    models: tuple[str, ...] | None
    error: str | None
    status: int | None = None


def probe(family: Family) -> Probe:
    """Ask for the model list of a family's endpoint."""
    headers = {"User-Agent": "aitask"}
    if family.api_key:
        headers["Authorization"] = f"Bearer {family.api_key}"
    try:
        # As the workers call: without a proxy of the environment, and no redirect followed with the key.
        with (
            httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client,
            client.stream("GET", models_url(family.endpoint), headers=headers) as reply,
        ):
            return _said(reply)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Probe(None, f"it can't be reached: {' '.join(str(error).split())[:120] or type(error).__name__}")


def _said(reply: httpx.Response) -> Probe:
    if reply.status_code in (401, 403):
        return Probe(None, f"it refuses the key (HTTP {reply.status_code})", reply.status_code)
    if reply.status_code != 200:
        # An endpoint without a list is just that.
        return Probe(None, None, reply.status_code)
    body = bytearray()
    for chunk in reply.iter_bytes():
        body += chunk
        if len(body) > _LIST_BYTES:
            return Probe(None, None, reply.status_code)
    return Probe(_names(bytes(body)), None, reply.status_code)


def _names(body: bytes) -> tuple[str, ...] | None:
    try:
        return tuple(str(model["id"]) for model in json.loads(body)["data"])
    except (ValueError, KeyError, TypeError):
        return None
