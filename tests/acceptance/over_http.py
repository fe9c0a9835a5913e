"""A gateway as a process of its own, and what asks it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stand import COMMAND, Stand, wait_for

JSON = {"Content-Type": "application/json"}


@dataclass
class Gateway:
    """A gateway as a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, timeout_s: float = 90
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {**JSON, **(headers or {})})
        reply = connection.getresponse()
        raw = reply.read()
        connection.close()
        return reply.status, json.loads(raw) if raw else None

    def stop(self) -> str:
        """Stop it, and return what it has said."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        return self.log.read_text()


@contextmanager
def running(stand: Stand, *arguments: str, port: int = 0, **env: str) -> Iterator[Gateway]:
    port = port or free_port()
    log = stand.home / f"gateway-{port}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(COMMAND), "gateway", "--port", str(port), *arguments], env={**stand.env, **env}, cwd=stand.home,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    gateway = Gateway(process, port, log)
    try:
        wait_for(lambda: process.poll() is not None or alive(gateway), what="the gateway")
        yield gateway
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(30)


def alive(gateway: Gateway) -> bool:
    try:
        return gateway.ask("GET", "/health")[0] == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def chat(*models: str, **more: Any) -> dict[str, Any]:
    return {"model": ",".join(models), "messages": [{"role": "user", "content": "hello"}], **more}


def events(gateway: Gateway, path: str, last: str | None = None) -> Iterator[tuple[str, str, Any]]:
    """Yield (event, id, data) of an event stream."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=90)
    connection.request("GET", path, headers={"Last-Event-ID": last} if last else {})
    reply = connection.getresponse()
    assert reply.status == 200, reply.status
    found: dict[str, str] = {}
    while line := reply.readline():
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            found[name] = value
        elif "data" in found:
            yield found["event"], found["id"], json.loads(found["data"])
            found = {}
    connection.close()
