"""Asking an endpoint whether it is there and which models it has. Never follows a redirect with the key."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from shared.families import Family, models_url

TIMEOUT_S = 3.0
_LIST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Probe:
    """What an endpoint said. `models` is None when it gave no list; `error` is None when it answered."""

    models: tuple[str, ...] | None
    error: str | None
    status: int | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def probe(family: Family) -> Probe:
    """Ask for the model list of a family's endpoint."""
    headers = {"Authorization": f"Bearer {family.api_key}"} if family.api_key else {}
    request = urllib.request.Request(models_url(family.endpoint), headers={"User-Agent": "aitask", **headers})
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=TIMEOUT_S) as reply:
            return Probe(_names(reply.read(_LIST_BYTES)), None, reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        # A key that is refused is an error; an endpoint without a list is just that.
        refused = error.code in (401, 403)
        return Probe(None, f"it refuses the key (HTTP {error.code})" if refused else None, error.code)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Probe(None, f"it can't be reached: {' '.join(str(reason).split())[:120]}")


def _names(body: bytes) -> tuple[str, ...] | None:
    try:
        return tuple(str(model["id"]) for model in json.loads(body)["data"])
    except (ValueError, KeyError, TypeError):
        return None
