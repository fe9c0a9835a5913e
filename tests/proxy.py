"""A fault proxy: stands between a process and its PostgreSQL or Redis, on TCP, and does what networks do.

Faults are named after what the client meets: `latency`, `reset` (in the middle of a reply), `lost_reply` (the server
has done it, nobody hears), `half_open` (nothing more comes and nothing is said), `one_way` (what is sent never
arrives), `slow_close` (the server's end is passed on late), `refused` (nobody listens).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

FAULTS = ("latency", "reset", "lost_reply", "half_open", "one_way", "slow_close", "refused")
_CHUNK = 65536
_LATENCY_S = 5.0


@dataclass
class Target:
    """Where to: a Unix socket's path, or host and port."""

    path: str | None = None
    host: str = "127.0.0.1"
    port: int = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.path is not None:
            return await asyncio.open_unix_connection(self.path)
        return await asyncio.open_connection(self.host, self.port)


@dataclass(eq=False)
class _Link:
    """One connection through the proxy, with what befalls it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    fault: str | None = None
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Listens on a loopback port of its own, on a thread with a loop of its own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.port = 0
        self.met: Counter[str] = Counter()
        self._links: set[_Link] = set()
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="proxy", daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every connection and the listener."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def strike(self, fault: str, *, share: float = 1.0, seed: int | None = None) -> int:
        """Let a fault befall this share of the present connections. Returns how many it met."""
        assert fault in FAULTS
        return self._call(self._strike(fault, share, random.Random(seed)))

    def heal(self) -> None:
        """End the faults that last: what was held back goes on or is dropped, connections are taken again."""
        self._call(self._heal())

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)

        async def listen() -> None:
            self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()

        self._loop.run_until_complete(listen())
        self._loop.run_forever()

    async def _close(self) -> None:
        self._server.close()
        for link in list(self._links):
            _abort(link.client)
            if link.server is not None:
                _abort(link.server)
            link.released.set()

    async def _strike(self, fault: str, share: float, chance: random.Random) -> int:
        if fault == "refused":
            self._refusing = True
        struck = [link for link in list(self._links) if link.server is not None and chance.random() < share]
        for link in struck:
            link.fault = fault
            if fault == "refused":
                _reset(link.client)
        self.met[fault] += len(struck)
        return len(struck)

    async def _heal(self) -> None:
        self._refusing = False
        for link in list(self._links):
            if link.fault in ("half_open", "one_way", "lost_reply"):
                # A network that comes back does not bring the lost packets: the connection is dead.
                _reset(link.client)
            link.fault = None
            link.released.set()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        if self._refusing:
            _reset(writer)
            return
        self._links.add(link)
        try:
            server_reader, link.server = await self.target.connect()
            up = asyncio.create_task(self._pump(link, reader, link.server, to_server=True))
            down = asyncio.create_task(self._pump(link, server_reader, writer, to_server=False))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if link.fault == "slow_close":
                await asyncio.sleep(_LATENCY_S)
            for task in (up, down):
                task.cancel()
        except OSError:
            _reset(writer)
        finally:
            self._links.discard(link)
            _abort(writer)
            if link.server is not None:
                _abort(link.server)

    async def _pump(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if not await self._passes(link, data, sink, to_server=to_server):
                    return
        # The other side's end is an end for both: neither protocol speaks after half a close.

    async def _passes(self, link: _Link, data: bytes, sink: asyncio.StreamWriter, *, to_server: bool) -> bool:
        """Pass data on, or let the fault have it. Returns False when the connection is over."""
        fault = link.fault
        if fault == "latency":
            await asyncio.sleep(_LATENCY_S / 2)
        elif fault == "one_way" and to_server:
            return True
        elif fault == "half_open" or (fault == "lost_reply" and not to_server):
            await link.released.wait()
            return False
        elif fault == "reset" and not to_server:
            sink.write(data[: len(data) // 2])
            await sink.drain()
            _reset(sink)
            return False
        sink.write(data)
        await sink.drain()
        return True


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, as a machine does that knows nothing of it."""
    found: socket.socket | None = writer.get_extra_info("socket")
    if found is not None and found.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
