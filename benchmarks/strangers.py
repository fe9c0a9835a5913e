"""What strangers cost those who are served: the delay of `/health` beside them, next to an idle gateway's."""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.gateway import running_gateway
from benchmarks.stage import now_mb, peak_mb, stage

_TOKEN = "0123456789abcdef"
_ASK = "/v1/chat/completions"
_MIB = 1 << 20
_PROBES_S = 6.0


def strangers() -> None:
    """`/health` beside half requests, unread bodies, 200,000 names and 8 MB of all kinds; and the gateway's memory."""
    # At first as a gateway is by default, where a body has 1.5 MB at most.
    for attacks, more in ((_DEFAULT, {}), (_LARGE, {"AITASK_MAX_PROMPT_BYTES": str(9 * _MIB)})):
        settings = {"AITASK_GATEWAY_TOKENS": f"me:{_TOKEN}", **more}
        with stage("http://127.0.0.1:9", **settings) as stand, running_gateway(stand) as running:
            port = urlsplit(running.url).port or 0
            before = now_mb(running.pid)
            idle = _delays_ms(port)
            print(
                f"strangers: idle: median {_middle(idle):.1f} ms, longest {idle[-1]:.0f}; {before:.0f} MiB", flush=True
            )
            for name, attack in attacks.items():
                _forget_peak(running.pid)
                with _beside(attack, port):
                    found = _delays_ms(port)
                _tell(name, found, idle, peak_mb(running.pid) - before)


def _forget_peak(pid: int) -> None:
    """Have the system count a process's most memory anew (proc(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _tell(name: str, found: list[float], idle: list[float], grown_mb: float) -> None:
    middle = _middle(found)
    print(f"strangers: /health beside {name}: median {middle:.1f} ms, {middle / _middle(idle):.1f} of idle; "
          f"longest {found[-1]:.0f} ms, {found[-1] / idle[-1]:.1f} of idle ({len(found)} asked); "
          f"at most {grown_mb:.0f} MiB more", flush=True)  # fmt: skip


def _middle(sorted_ms: list[float]) -> float:
    return sorted_ms[len(sorted_ms) // 2]


def _delays_ms(port: int) -> list[float]:
    """Ask again and again over one connection; returns the delays, shortest first."""
    connection, found = http.client.HTTPConnection("127.0.0.1", port, timeout=120), []
    end = time.monotonic() + _PROBES_S
    while time.monotonic() < end:
        began = time.monotonic()
        connection.request("GET", "/health")
        connection.getresponse().read()
        found.append(1000 * (time.monotonic() - began))
        time.sleep(0.002)
    connection.close()
    return sorted(found)


@contextlib.contextmanager
def _beside(attack: Callable[[int], None], port: int) -> Iterator[None]:
    """Run an attack in a process of its own, once it has begun."""
    process = multiprocessing.get_context("fork").Process(target=attack, args=(port,), daemon=True)
    process.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        process.kill()
        process.join()


def _half_requests(port: int) -> None:
    while True:
        held = [_raw(port, b"POST /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 8000) for _ in range(1000)]
        time.sleep(1)
        for one in held:
            one.close()


def _unread_bodies(port: int) -> None:
    head = f"POST {_ASK} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1400000\r\n\r\n".encode()
    while True:
        held = [_raw(port, head + b"x" * 1_300_000) for _ in range(300)]
        for one in held:
            one.close()
        time.sleep(0.1)


def _posting(body: bytes) -> Callable[[int], None]:
    """Two that send a body over and over."""

    def post(port: int) -> None:
        headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": "application/json"}
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("POST", _ASK, body, headers)
                connection.getresponse().read()
            connection.close()

    def attack(port: int) -> None:
        other = threading.Thread(target=post, args=(port,), daemon=True)
        other.start()
        post(port)

    return attack


def _raw(port: int, data: bytes) -> socket.socket:
    """Send what is taken at once."""
    connection = socket.create_connection(("127.0.0.1", port), 30)
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        while data:
            data = data[connection.send(data) :]
    return connection


def _many(unit: str, size: int) -> bytes:
    return f'{{"model":"qwen","prompt":"x","stop":[{(unit * (size // len(unit))).rstrip(",")}]}}'.encode()


def _prose(size: int) -> bytes:
    # Nobody's model: it is read and checked, and not stored.
    return json.dumps({"model": "nobody", "prompt": 'so, "it" goes\n' * (size // 16)}).encode()


_NAMES = json.dumps({"prompt": "x", "model": "m1234," * 200_000}).encode()
_DEFAULT: dict[str, Callable[[int], None]] = {
    "1,000 half requests": _half_requests,
    "300 bodies without a token": _unread_bodies,
    "200,000 names": _posting(_NAMES),
    "1.2 MB of small values": _posting(_many("1,", 1_200_000)),
}
_LARGE: dict[str, Callable[[int], None]] = {
    "8 MB of numbers": _posting(_many("1,", 8 * _MIB)),
    "8 MB of lists": _posting(_many("[],", 8 * _MIB)),
    "8 MB of prose": _posting(_prose(8 * _MIB)),
}
