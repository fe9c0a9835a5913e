"""Asking an endpoint what an `ask` would meet there. Never follows a redirect with the key, and runs no model.

First its list of models is asked for. An endpoint that has none is sent a request without a question, which every one
refuses: how it refuses tells whether it is there and takes the key.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import httpx

from shared.errors import UsageFault
from shared.families import Family, chat_url, models_url
from shared.proxies import proxy_for
from shared.redaction import Redactor, secrets_of

TIMEOUT_S = 3.0
_LIST_BYTES = 4 << 20
_SAID_CHARS = 120
# What a request without a question is refused with by an endpoint that is there.
_NO_QUESTION = {400, 415, 422, 500}
_KEY = re.compile(r"api[ _-]?key|credential|unauthori[sz]ed|authenticat|invalid[ _]token|access[ _]token", re.I)


@dataclass(frozen=True, slots=True)
class Probe:
    """What an endpoint said. `models` is None when it gave no list; `error` is None when an ask would be answered."""

    models: tuple[str, ...] | None
    error: str | None
    status: int | None = None
    remedy: str = ""


def probe(family: Family) -> Probe:
    """Find out what an ask of a family would meet."""
    try:
        # As the workers call: with the same certificates, by the same proxy, no redirect followed.
        proxy = proxy_for(models_url(family.endpoint), os.environ)
        context = ssl.create_default_context()
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=context, proxy=proxy) as client:
            return _asked(client, family)
    except ssl.SSLError as error:
        return Probe(None, _shown(f"the certificates of SSL_CERT_FILE can't be read: {error}", family))
    except UsageFault as error:
        return Probe(None, _shown(f"the proxy can't be used: {error.message}", family), None, error.remedy)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return _unreachable(error, family)


def _asked(client: httpx.Client, family: Family) -> Probe:
    status, headers, body = _reply(client, family, "GET", models_url(family.endpoint))
    names = _names(body) if status == 200 else None
    if names is not None:
        return Probe(names, None, status)
    wrong = _wrong(family, status, headers, body)
    # A list may be missing, or be kept from those who may ask all the same: asking tells.
    if wrong is not None and (status in (401, 407, 429) or 300 <= status < 400 or _about_key(status, body)):
        return wrong
    status, headers, body = _reply(client, family, "POST", chat_url(family.endpoint))
    if status == 200 and _is_page(headers, body):
        return Probe(
            None, "it answers with a web page, and not as a model", status, f"check {family.prefix}_SERVICE_URL"
        )
    # Some look for the model first, and find none in a request without one.
    there = status in _NO_QUESTION or (status == 404 and "model" in _message(body).lower())
    if status == 200 or (there and not _about_key(status, body) and not _is_page(headers, body)):
        return Probe(None, None, status)
    return _wrong(family, status, headers, body) or Probe(None, None, status)


def _reply(client: httpx.Client, family: Family, method: str, url: str) -> tuple[int, httpx.Headers, bytes]:
    headers = {"User-Agent": "aitask", "Accept-Encoding": "identity"}
    if family.api_key:
        headers["Authorization"] = f"Bearer {family.api_key}"
    with client.stream(method, url, headers=headers, json={} if method == "POST" else None) as reply:
        body = bytearray()
        for chunk in reply.iter_raw():
            body += chunk
            if len(body) > _LIST_BYTES or (method == "POST" and len(body) > 65536):
                break
        return reply.status_code, reply.headers, bytes(body)


def _wrong(family: Family, status: int, headers: httpx.Headers, body: bytes) -> Probe | None:
    """What an ask would fail with, by the reply to a request."""
    said, url = _sentence(headers, body), f"{family.prefix}_SERVICE_URL"
    if 300 <= status < 400:
        target, setting = _target(family, headers.get("location", ""))
        remedy = f'set {url}="{setting}"' if setting else f"check {url}"
        return Probe(None, _shown(f"it redirects to {target} (HTTP {status})", family), status, remedy)
    if status in (401, 403) or _about_key(status, body):
        remedy = f"check {family.prefix}_API_KEY"
        refused = "it refuses the key" if family.api_key else "it wants a key"
        return Probe(None, _shown(f"{refused} (HTTP {status}{said})", family), status, remedy)
    if status in (404, 405, 410):
        where = urlsplit(chat_url(family.endpoint)).path
        return Probe(None, _shown(f"it has no {where} (HTTP {status}{said})", family), status, f"check {url}")
    if status != 200:
        remedy = "wait, or look into its quota" if status == 429 else f"check {url}, and the server there"
        return Probe(None, _shown(f"it answers HTTP {status}{said}", family), status, remedy)
    return None


def _about_key(status: int, body: bytes) -> bool:
    """Whether a refusal is one of the key, whatever its status: Gemini says so with 400."""
    return status in (400, 401, 403, 422) and _KEY.search(body[:4096].decode("utf-8", "replace")) is not None


def _target(family: Family, location: str) -> tuple[str, str]:
    """Where a redirect leads, and what the endpoint's setting would have to be for it. Without what may be secret."""
    try:
        url = httpx.URL(models_url(family.endpoint)).join(location)
    except (httpx.InvalidURL, ValueError):
        return "nowhere", ""
    parts = urlsplit(str(url))
    host = parts.netloc.rpartition("@")[2]
    target = urlunsplit((parts.scheme, host, parts.path, "", ""))
    path = parts.path.rstrip("/")
    # Elsewhere than at the same list (a sign-in page, say), the endpoint's new place can't be told.
    setting = urlunsplit((parts.scheme, host, path.removesuffix("/models"), "", ""))
    return target, setting if path.endswith("/models") else ""


def _sentence(headers: httpx.Headers, body: bytes) -> str:
    text = body[:65536].decode("utf-8", "replace").strip()
    if not text:
        return ""
    if _is_page(headers, body):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.I | re.S)
        return f": an HTML page{f' ({title[1].strip()})' if title else ''}"
    return f": {_message(body) or text}"


def _is_page(headers: httpx.Headers, body: bytes) -> bool:
    return "html" in headers.get("content-type", "") or body.lstrip()[:1] == b"<"


def _message(body: bytes) -> str:
    """The sentence in an error object, as most endpoints word it."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for _ in range(3):
        said = said[0] if isinstance(said, list) and said else said
        if not isinstance(said, dict):
            break
        said = said.get("error") or said.get("message") or said.get("detail")
    return said if isinstance(said, str) else ""


def _shown(said: str, family: Family) -> str:
    """A sentence for the screen: one line, not too long, and never with the key."""
    redact = Redactor((family.api_key, *secrets_of(family.endpoint), *secrets_of(_proxy(family))))
    line = " ".join(redact(said).split())
    return line if len(line) <= 2 * _SAID_CHARS else line[: 2 * _SAID_CHARS - 1] + "…"


def _proxy(family: Family) -> str:
    try:
        return proxy_for(family.endpoint, os.environ) or ""
    except (UsageFault, ValueError):
        return ""


def _unreachable(error: Exception, family: Family) -> Probe:
    said = " ".join(str(error).split()) or type(error).__name__
    remedy = f"check {family.prefix}_SERVICE_URL"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        remedy = "name its authority's certificate in SSL_CERT_FILE"
    return Probe(None, _shown(f"it can't be reached: {said}", family), None, remedy)


def _names(body: bytes) -> tuple[str, ...] | None:
    try:
        return tuple(str(model["id"]) for model in json.loads(body)["data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
