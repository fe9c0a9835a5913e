"""What stands before every request: body limit, token, and a log line that names neither prompt nor token."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("aitask.access")

# Whether we live is no secret; the document says only what the README says.
_OPEN = ("/health", "/ready", "/openapi.json")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Guard:
    """An ASGI application around another.

    Args:
        tokens: (name, token) pairs; with none, everybody on this machine may call, under a local host name only, so
            that no web page can reach us by a name of its own.
        most_bytes: the longest body taken.
    """

    def __init__(self, app: ASGIApp, *, tokens: Sequence[tuple[str, str]], most_bytes: int) -> None:
        self._app = app
        self._tokens = [(name, token.encode()) for name, token in tokens]
        self._most = most_bytes

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
        try:
            headers = dict(scope["headers"])
            who = self._who(headers)
            refusal = self._refusal(scope["path"], headers, who)
            body = b""
            if refusal is None:
                read = await self._body(headers, receive)
                if read is None:
                    refusal = (413, f"the body is longer than {self._most:,} bytes")
                else:
                    body = read
            if refusal is not None:
                await _refuse(sent, *refusal)
                return
            await self._app(scope, _replayed(body, receive), sent)
        finally:
            took_ms = 1000 * (time.monotonic() - began)
            log.info("%s %s %d %.0f ms %s", scope["method"], scope["path"][:200], status, took_ms, who or "-")

    def _who(self, headers: dict[bytes, bytes]) -> str | None:
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        found = None
        # Every token is compared, each in constant time: how long it takes tells nothing.
        for name, token in self._tokens:
            if hmac.compare_digest(given.strip(), token) and kind.lower() == b"bearer":
                found = name
        return found

    def _refusal(self, path: str, headers: dict[bytes, bytes], who: str | None) -> tuple[int, str] | None:
        if path in _OPEN:
            return None
        if self._tokens:
            if who is None:
                return 401, "the token is missing or wrong: send Authorization: Bearer TOKEN"
            return None
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        if name not in _LOCAL_NAMES:
            return 403, "without tokens only local host names are served: set AITASK_GATEWAY_TOKENS"
        return None

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """Read the body before anything parses it. None: it is too long."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return bytes(body)
            body += message.get("body", b"")
            if len(body) > self._most:
                return None
            if not message.get("more_body"):
                return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


async def _refuse(send: Send, status: int, message: str) -> None:
    kinds = {401: "authentication_error", 403: "permission_error"}
    error = {"message": message, "type": kinds.get(status, "invalid_request_error"), "param": None, "code": None}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
