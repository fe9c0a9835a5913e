"""A connection: so many at once, so long for a head and a body, and only from whom we serve."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from aitask_cli.gateway.guard import refusing
from aitask_cli.gateway.peers import may_call

# The guard answers a body that is too slow; this is for bodies that nobody reads.
_AFTER_GUARD_S = 2.0
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 91\r\n\r\n"
    b'{"error":{"message":"too many connections","type":"server_error","param":null,"code":null}}'
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may cost.

    Attributes:
        own_user_only: refuse connections of other users of this machine.
    """

    connections: int
    head_s: float
    body_s: float
    own_user_only: bool


def connection_class(limits: Limits) -> type[asyncio.Protocol]:
    """Make the class that uvicorn makes its connections of."""
    stranger = refusing(403, "without tokens only this user is served: set AITASK_GATEWAY_TOKENS")

    class Connection(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _awaited: tuple[str, int] | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.write(_FULL)
                transport.close()
                return
            if limits.own_user_only and not may_call(self.client, self.server):
                self.app = stranger
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            if self.conn.their_state is h11.SEND_BODY:
                # What came of a body that nobody reads.
                self.cycle.body = bytearray()
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)
            # They point at each other and at us: what they hold would lie about until the collector comes by.
            self.cycle = None  # type: ignore[assignment]
            self.conn = h11.Connection(h11.SERVER)

        def _watch(self) -> None:
            awaited = _awaited(self.conn, self.cycle)
            if awaited == self._awaited:
                return
            self._stop()
            self._awaited = awaited
            if awaited is not None:
                within_s = limits.head_s if awaited[0] == "head" else limits.body_s + _AFTER_GUARD_S
                self._timer = self.loop.call_later(within_s, self.transport.close)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None

    return Connection


def _awaited(conn: h11.Connection, cycle: object) -> tuple[str, int] | None:
    """What a connection owes us: the rest of a head or of a body, or nothing. Between requests keep-alive counts."""
    if conn.their_state is h11.SEND_BODY:
        return "body", id(cycle)
    if conn.their_state is h11.IDLE and (cycle is None or conn.trailing_data[0]):
        return "head", id(cycle)
    return None
