"""What stands before every request: body limit, token, and a log line that names neither prompt nor token."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Collection, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aitask_cli.gateway.admission import Headers, Refusal, has_body, local_host, of_a_foreign_page, of_another_type

log = logging.getLogger("aitask.access")

# Whether we live is no secret; the document says only what the README says.
_OPEN = ("/health", "/ready", "/openapi.json")
# Bodies of all requests together that are held at once; one of the longest fits whatever that is.
_BODIES_BYTES = 24 << 20


class Guard:
    """An ASGI application around another.

    Args:
        tokens: (name, token) pairs; with none, everybody on this machine may call, under a local host name only, so
            that no web page can reach us by a name of its own.
        most_bytes: the longest body taken.
        body_s: how long a body may take to come.
        per_minute: requests that each token may make in a minute; 0: any number.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: Sequence[tuple[str, str]],
        most_bytes: int,
        origins: Collection[str] = (),
        body_s: float = 30.0,
        per_minute: int = 0,
    ) -> None:
        self._app = app
        self._tokens = [(name, token.encode()) for name, token in tokens]
        self._most = most_bytes
        self._origins = frozenset(origins)
        self._body_s = body_s
        self._rate = Rate(per_minute)
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        who: str | None = None
        body = bytearray()
        try:
            headers = dict(scope["headers"])
            who = self._who(headers)
            scope.setdefault("state", {})["aitask_who"] = who
            open_path = scope["path"] in _OPEN
            refusal = self._refusal(headers, who, open_path=open_path)
            if refusal is None and not open_path and has_body(headers):
                refusal = await self._read(headers, receive, body)
            if refusal is not None:
                await _refuse(sent, *refusal)
                return
            await self._app(scope, self._replayed(body, receive), sent)
        finally:
            self._forget(body)
            took_ms = 1000 * (time.monotonic() - began)
            log.info("%s %s %d %.0f ms %s", scope["method"], scope["path"][:200], status, took_ms, who or "-")

    def _who(self, headers: Headers) -> str | None:
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        found = None
        # Every token is compared, each in constant time: how long it takes tells nothing.
        for name, token in self._tokens:
            if hmac.compare_digest(given.strip(), token) and kind.lower() == b"bearer":
                found = name
        return found

    def _refusal(self, headers: Headers, who: str | None, *, open_path: bool) -> Refusal | None:
        foreign = of_a_foreign_page(headers, self._origins)
        if foreign is not None or open_path:
            return foreign
        if self._tokens and who is None:
            return 401, "the token is missing or wrong: send Authorization: Bearer TOKEN"
        if not self._tokens and not local_host(headers.get(b"host", b"")):
            return 403, "without tokens only local host names are served: set AITASK_GATEWAY_TOKENS"
        if not self._rate.take(who or "", time.monotonic()):
            return 429, "too many requests: AITASK_GATEWAY_RATE says how many a minute"
        return of_another_type(headers)

    async def _read(self, headers: Headers, receive: Receive, body: bytearray) -> Refusal | None:
        """Read the body before anything parses it."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most:
            return 413, f"the body is longer than {self._most:,} bytes"
        try:
            return await asyncio.wait_for(self._read_all(receive, body), self._body_s)
        except asyncio.TimeoutError:
            return 408, f"the body took longer than {self._body_s:g} s"

    async def _read_all(self, receive: Receive, body: bytearray) -> Refusal | None:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return 400, "the body broke off"
            piece = message.get("body", b"")
            body += piece
            self._held_bytes += len(piece)
            if len(body) > self._most:
                return 413, f"the body is longer than {self._most:,} bytes"
            if self._held_bytes > max(_BODIES_BYTES, 2 * self._most):
                return 503, "too many bodies at once: try again"
            if not message.get("more_body"):
                return None

    def _forget(self, body: bytearray) -> None:
        self._held_bytes -= len(body)
        body.clear()

    def _replayed(self, body: bytearray, receive: Receive) -> Receive:
        given = False

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                whole = bytes(body)
                self._forget(body)
                return {"type": "http.request", "body": whole, "more_body": False}
            return await receive()

        return replay


class Rate:
    """So many requests a minute for each name, a minute's worth of them at once."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, name: str, now_s: float) -> bool:
        """Take one, if one is left at this time."""
        if self._per_minute == 0:
            return True
        left, at = self._left.get(name, (float(self._per_minute), now_s))
        left = min(float(self._per_minute), left + (now_s - at) * self._per_minute / 60)
        self._left[name] = (left - 1 if left >= 1 else left, now_s)
        return left >= 1


def refusing(status: int, message: str) -> ASGIApp:
    """Make an application that only refuses, and reads no body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _refuse(send, status, message)

    return app


async def _refuse(send: Send, status: int, message: str) -> None:
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "server_error"}
    error = {"message": message, "type": kinds.get(status, "invalid_request_error"), "param": None, "code": None}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in (429, 503):
        headers.append((b"retry-after", b"1"))
    if status == 408:
        headers.append((b"connection", b"close"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
