"""Answers as real upstreams have been seen to send them, byte for byte: what vendors do beside the documentation.

Each is a fault of the simulator, `MODEL+NAME`. The texts are ours; `docs/upstreams.md` says where a shape comes from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

WHOLE = "Hello world"


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is sent for so many seconds."""

    seconds: float


Part = bytes | Pause


@dataclass(frozen=True, slots=True)
class Shape:
    """One answer: what `aitask simulator --help` says of it, and what is sent, the head included.

    `plain` is sent instead where the request asks for no stream; `hold_s` keeps the connection open at the end.
    """

    meaning: str
    parts: tuple[Part, ...]
    plain: tuple[Part, ...] | None = None
    hold_s: float = 0.0


def head(status: int | str = 200, content_type: str | None = "text/event-stream", **headers: str) -> bytes:
    """A response's head; the body ends with the connection."""
    lines = [f"HTTP/1.1 {status} X", "Connection: close"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def event(said: Any, name: str | None = None) -> bytes:
    """One server-sent event."""
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chunk(content: str | None = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """One piece of a streamed answer."""
    said = {**({"content": content} if content is not None else {}), **delta}
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def whole(content: Any = WHOLE, finish: str | None = "stop", *, usage: Any = None, **message: Any) -> dict[str, Any]:
    """A whole answer."""
    said = {"role": "assistant", "content": content, **message}
    found: dict[str, Any] = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
    }
    return {**found, "usage": usage} if usage is not None else found


DONE = event("[DONE]")
HELLO = event(chunk("Hello ")) + event(chunk("world"))
STOP = event(chunk(finish="stop"))
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def streamed(meaning: str, *parts: bytes | Pause | dict[str, Any], **more: Any) -> Shape:
    """An answer sent as a stream, under its right label."""
    return Shape(meaning, (head(), *(event(part) if isinstance(part, dict) else part for part in parts)), **more)


def body(
    meaning: str, said: Any, status: int = 200, content_type: str | None = "application/json", **headers: str
) -> Shape:
    """An answer, or an error, sent whole."""
    data = said if isinstance(said, bytes) else json.dumps(said, ensure_ascii=False).encode()
    return Shape(meaning, (head(status, content_type, **headers), data))


async def send(shape: Shape, write: Callable[[bytes], None], sleep: Callable[[float], Any], *, stream: bool) -> None:
    """Send a shape's parts; the connection's end is the caller's."""
    parts: Sequence[Part] = shape.parts if stream or shape.plain is None else shape.plain
    for part in parts:
        if isinstance(part, Pause):
            await sleep(part.seconds)
        else:
            write(part)
            await sleep(0)
    if shape.hold_s:
        await sleep(shape.hold_s)
