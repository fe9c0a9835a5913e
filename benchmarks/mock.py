"""The mock upstream of the load measures: answers every request alike, as cheaply as Python can.

Usage: python -m benchmarks.mock READY_FILE [LATENCY_S [whole]]; a request with `"stream": true` is answered as a
stream, or refused by a mock that gives whole answers only.
The simulator is for behaviour; it would cost more than the clients that are measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

WORDS = 10
QUIET_S = 0.015
_HEAD = {"id": "mock", "object": "chat.completion.chunk", "model": "mock"}


def _event(said: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({**_HEAD, **said}).encode() + b"\n\n"


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _streamed() -> bytes:
    events = [_event(_choice({"role": "assistant", "content": ""}))]
    events += [_event(_choice({"content": f"word{n} "})) for n in range(WORDS)]
    events += [_event(_choice({}, "stop"))]
    events += [_event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": WORDS}})]
    body = b"".join(events) + b"data: [DONE]\n\n"
    return _head("text/event-stream", len(body)) + body


def _plain() -> bytes:
    message = {"role": "assistant", "content": " ".join(f"word{n}" for n in range(WORDS))}
    said = {
        "id": "mock",
        "object": "chat.completion",
        "model": "mock",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": WORDS, "total_tokens": 3 + WORDS},
    }
    body = json.dumps(said).encode()
    return _head("application/json", len(body)) + body


def _refusal() -> bytes:
    body = b'{"error": {"message": "stream is not supported"}}'
    return _head("application/json", len(body), "400 Bad Request") + body


def _head(kind: str, length: int, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


class Counts:
    """What the mock has seen."""

    calls = 0
    open_now = 0
    open_most = 0
    first_at = 0.0
    last_at = 0.0
    # When the first call after a quiet moment came.
    firsts = 0.0


class Connection(asyncio.Protocol):
    """One client's connection: requests with a Content-Length, one after another."""

    STREAMED, PLAIN, REFUSAL = _streamed(), _plain(), _refusal()

    def __init__(self, latency_s: float, whole: bool) -> None:
        self._latency_s = latency_s
        self._stream = self.REFUSAL if whole else self.STREAMED
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; answer what they complete."""
        self._data += data
        while True:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            if head.startswith(b"GET"):
                self._data = rest
                self._stats()
                continue
            start = head.lower().index(b"content-length:") + 15
            length = int(head[start : head.find(b"\r", start) if b"\r" in head[start:] else len(head)])
            if len(rest) < length:
                return
            self._data = rest[length:]
            self._asked(rest[:length])

    def _asked(self, body: bytes) -> None:
        Counts.calls += 1
        now = time.monotonic()
        Counts.first_at = Counts.first_at or now
        if now - Counts.last_at > QUIET_S:
            Counts.firsts = now
        Counts.last_at = now
        Counts.open_now += 1
        Counts.open_most = max(Counts.open_most, Counts.open_now)
        answer = self._stream if b'"stream": true' in body or b'"stream":true' in body else self.PLAIN
        if self._latency_s:
            asyncio.get_running_loop().call_later(self._latency_s, self._answer, answer)
        else:
            self._answer(answer)

    def _answer(self, answer: bytes) -> None:
        Counts.open_now -= 1
        if not self._transport.is_closing():
            self._transport.write(answer)

    def _stats(self) -> None:
        said = {
            name: getattr(Counts, name) for name in ("calls", "open_now", "open_most", "first_at", "last_at", "firsts")
        }
        body = json.dumps(said).encode()
        self._transport.write(_head("application/json", len(body)) + body)


async def serve(ready: Path, latency_s: float, whole: bool) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Connection(latency_s, whole), "127.0.0.1", 0, backlog=8192)
    partial = ready.with_suffix(".part")
    partial.write_text(json.dumps({"port": server.sockets[0].getsockname()[1], "pid": os.getpid()}))
    partial.rename(ready)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0, "whole" in sys.argv[3:]))
