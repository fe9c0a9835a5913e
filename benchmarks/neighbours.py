"""What one upstream costs the others: another family's calls beside 8 MB of one event, next to the same calls alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable

from shared.domain import Claimed
from shared.errors import UpstreamError
from shared.settings import settings_from
from workers.families.generic import Behaviour
from workers.transport import Transport
from workers.upstream import UpstreamClient

_MIB = 1 << 20
_CALLS = 200
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_CHUNK = {
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "delta": {"content": "word"}, "finish_reason": None}],
}
_GOOD = b"data: " + json.dumps(_CHUNK).encode() + b"\n\ndata: [DONE]\n\n"
# What the nasty one sends, in pieces of 64 KB.
_NASTY = {"one event": b"x", "CRs": b"\r", "white space": b" ", "'<'": b"<"}


def neighbours() -> None:
    """Calls of one family in one worker's client while another family's upstream sends 8 MB of all kinds."""
    asyncio.run(_neighbours())


async def _neighbours() -> None:
    alone = await _delays_ms(None)
    print(f"neighbours: alone: median {_middle(alone):.1f} ms, longest {alone[-1]:.0f}", flush=True)
    for name, filler in _NASTY.items():
        beside = await _delays_ms(filler)
        print(f"neighbours: beside 8 MB of {name}: median {_middle(beside):.1f} ms, "
              f"{_middle(beside) / _middle(alone):.1f} of alone; longest {beside[-1]:.0f} ms", flush=True)  # fmt: skip


def _middle(sorted_ms: list[float]) -> float:
    return sorted_ms[len(sorted_ms) // 2]


async def _delays_ms(filler: bytes | None) -> list[float]:
    """How long calls of the good family take, sorted, in milliseconds."""
    async with await _served(_good) as good, await _served(_nasty(filler or b"")) as nasty:
        ports = [server.sockets[0].getsockname()[1] for server in (good, nasty)]
        settings = settings_from({
            "AITASK_FAMILIES": "good,nasty",
            "GOOD_SERVICE_URL": f"http://127.0.0.1:{ports[0]}", "NASTY_SERVICE_URL": f"http://127.0.0.1:{ports[1]}",
        })  # fmt: skip
        families = {name: settings.family(name) for name in ("good", "nasty")}
        made = {name: Behaviour(family, settings) for name, family in families.items() if family is not None}
        client = UpstreamClient(Transport(64), max_answer_bytes=9 * _MIB)
        beside = asyncio.create_task(_keep_asking(client, made["nasty"])) if filler else None
        found = []
        for _ in range(_CALLS):
            began = time.perf_counter()
            await client.complete(_task("good"), made["good"], lambda piece: None)
            found.append(1000 * (time.perf_counter() - began))
        if beside is not None:
            beside.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beside
        await client.close()
    return sorted(found)


async def _keep_asking(client: UpstreamClient, behaviour: Behaviour) -> None:
    while True:
        with contextlib.suppress(UpstreamError):
            await client.complete(_task("nasty"), behaviour, lambda piece: None)


def _task(family: str) -> Claimed:
    return Claimed(
        id="t", batch_id="b", conversation_id="c", model=family, family=family, attempt=1, failures=0, rescues=0,
        bad_answers=0, prompt="hello", system=None, options={}, context=(),
    )  # fmt: skip


async def _served(serve: Callable[..., object]) -> asyncio.Server:
    return await asyncio.start_server(serve, "127.0.0.1", 0)  # type: ignore[arg-type]


async def _asked(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length or b"0"))


async def _good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _asked(reader)
    writer.write(_HEAD + _GOOD)
    await writer.drain()
    writer.close()


def _nasty(filler: bytes) -> Callable[..., object]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await _asked(reader)
            writer.write(_HEAD + b"data: ")
            for _ in range(8 * _MIB // 65536):
                writer.write(filler * 65536)
                await writer.drain()
            writer.close()

    return serve
