"""What a stranger, a page or a slow client can cost the gateway: an answer, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.over_http import Gateway, chat, running
from tests.stand import Stand, altered, wait_for

ASK = "/v1/chat/completions"
DISPATCH = {"prompt": "hello", "model": "qwen"}


def memory_mib(pid: int, which: str = "VmRSS") -> float:
    """The memory a process has, or (`VmHWM`) the most it ever had, as the system counts it all the time."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) / 1024


def raw(gateway: Gateway, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port), 30)
    with contextlib.suppress(OSError):
        connection.sendall(data)
    return connection


def answer(connection: socket.socket) -> str:
    """What is answered until the other side closes."""
    said = b""
    with contextlib.suppress(OSError), connection:
        while data := connection.recv(65_536):
            said += data
    return said.decode("latin-1")


def test_a_foreign_page_and_a_body_that_is_not_json_store_nothing(gateway: Gateway, stand: Stand) -> None:
    for headers, status in (
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Host": "[::1]evil.com"}, 403),
        ({"Host": "localhost:80@evil.com"}, 403),
    ):
        assert gateway.ask("POST", ASK, DISPATCH, headers=headers)[0] == status, headers
    assert stand.query("SELECT count(*) FROM batch") == [(0,)]
    made = gateway.ask("POST", ASK, DISPATCH)[1]
    assert gateway.ask("POST", f"/v1/batches/{made['batch_id']}/cancel", headers={"Content-Type": ""})[0] == 200


def test_strange_values_are_the_caller_s_fault(gateway: Gateway) -> None:
    for more in ({"stop": "[" * 100_000}, {"seed": 10**4000}, {"temperature": 1e308}, {"stop": ["\ud800"] * 9}):
        assert gateway.ask("POST", ASK, chat("qwen", **more))[0] in (400, 422), list(more)
    names = {"prompt": "x", "model": ",".join(f"m{n}" for n in range(65))}
    status, said = gateway.ask("POST", ASK, names)
    assert (status, "at most 64" in said["error"]["message"]) == (400, True)


def test_readiness_says_no_path_without_a_token_and_is_there_while_only_redis_is_away(stand: Stand) -> None:
    stand.start_worker()
    token = {"AITASK_GATEWAY_TOKENS": "me:0123456789abcdef"}
    with running(stand, REDIS_URL="unix:///nowhere/valkey.sock", **token) as gateway:
        status, said = gateway.ask("GET", "/ready")
        assert (status, said["checks"]["redis"]) == (200, {"ok": False, "found": "is not there"})
        assert "/" not in json.dumps(said)
        known = gateway.ask("GET", "/ready", headers={"Authorization": "Bearer 0123456789abcdef"})[1]
        assert known["checks"]["workers"]["found"] != "is fine"


def test_the_document_says_how_to_show_a_token(gateway: Gateway) -> None:
    found = gateway.ask("GET", "/openapi.json")[1]
    assert found["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert {"token": []} in found["security"]


def test_a_token_of_the_gateway_s_own_is_private_and_kept(stand: Stand) -> None:
    data = str(stand.home / "data")
    tokens = []
    for _ in range(2):
        with running(stand, AITASK_GATEWAY_TOKENS="auto", AITASK_DATA_DIR=data) as gateway:
            file = stand.home / "data" / "gateway" / "token"
            tokens.append(file.read_text().strip())
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert gateway.ask("GET", "/v1/models")[0] == 401
            assert gateway.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {tokens[-1]}"})[0] == 200
            assert str(file) in gateway.stop()
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) > 30


def test_another_address_is_told_that_nothing_is_encrypted(stand: Stand) -> None:
    with running(stand, "--host", "0.0.0.0", AITASK_GATEWAY_TOKENS="me:0123456789abcdef") as gateway:
        assert "TLS" in gateway.stop()


def test_a_token_s_rate_is_kept(stand: Stand) -> None:
    with running(stand, AITASK_GATEWAY_RATE="2") as gateway:
        found = [gateway.ask("GET", "/v1/models")[0] for _ in range(3)]
        assert found == [200, 200, 429]
        assert gateway.ask("GET", "/health")[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says whose a connection is")
def test_another_user_of_this_machine_is_refused_without_tokens(stand: Stand) -> None:
    change = "from aitask_cli.gateway import peers\npeers.served = lambda: frozenset({54321})"
    log = stand.home / "gateway.log"
    port = _free()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*altered(stand.home, change), "gateway", "--port", str(port)], env=stand.env, cwd=stand.home,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        gateway = Gateway(process, port, log)
        wait_for(lambda: _status(gateway), what="the gateway")
        status, said = gateway.ask("POST", ASK, DISPATCH)
        assert (status, said["error"]["type"]) == (403, "permission_error")
        assert stand.query("SELECT count(*) FROM batch") == [(0,)]
    finally:
        process.kill()
        process.wait(30)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can call as somebody else")
def test_a_real_other_user_is_refused(gateway: Gateway) -> None:
    code = f"import http.client as h; c = h.HTTPConnection('127.0.0.1', {gateway.port}); c.request('GET', '/v1/models')"
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-c", f"{code}; print(c.getresponse().status)"], user=65534, extra_groups=[],
        capture_output=True, text=True, check=False, cwd="/", env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == "403", done.stderr


def test_half_a_head_and_half_a_body_are_not_waited_for(stand: Stand) -> None:
    with running(stand, AITASK_GATEWAY_HEAD_S="0.5", AITASK_GATEWAY_BODY_S="0.5") as gateway:
        head = f"POST {ASK} HTTP/1.1\r\nHost: localhost\r\n".encode()
        assert answer(raw(gateway, head)) == ""
        assert answer(raw(gateway, b"")) == ""
        body = head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        assert " 408 " in answer(raw(gateway, body))
        # Nobody reads this one, and it is not waited for either.
        unread = b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        assert " 405 " in answer(raw(gateway, unread))


def _refuses(gateway: Gateway, request: bytes) -> bool:
    with raw(gateway, request) as asked:
        return b" 503 " in asked.recv(1000)


def test_connections_and_watchers_have_a_cap_and_beyond_it_nothing_is_stored(stand: Stand) -> None:
    with running(stand, AITASK_GATEWAY_CONNECTIONS="20", AITASK_GATEWAY_WATCHERS="1") as gateway:
        made = gateway.ask("POST", ASK, {"prompt": "x", "model": "qwen"})[1]
        path = f"GET /v1/batches/{made['batch_id']}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with raw(gateway, path) as watcher:
            assert b" 200 " in watcher.recv(1000)
            # A question that is still let in would wait for its answer: the cap is awaited with another watcher.
            wait_for(lambda: _refuses(gateway, path), what="the cap")
            assert gateway.ask("POST", ASK, chat("qwen"))[0] == 503
        before = stand.query("SELECT count(*) FROM batch")
        held = [raw(gateway, b"GET / HTTP/1.1\r\n") for _ in range(25)]
        assert " 503 " in answer(held[-1])
        for one in held:
            one.close()
        wait_for(lambda: _status(gateway) == 200, what="room")
        assert stand.query("SELECT count(*) FROM batch") == before


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_crowd_of_half_requests_and_unread_bodies_costs_little_memory(stand: Stand) -> None:
    token = {"AITASK_GATEWAY_TOKENS": "me:0123456789abcdef"}
    with running(stand, **token) as gateway:
        before = memory_mib(gateway.process.pid)
        _crowd(gateway)
        most = memory_mib(gateway.process.pid, "VmHWM")
        print(f"memory: {before:.0f} MiB, at most {most:.0f} MiB")
        assert most - before <= 40


def _crowd(gateway: Gateway) -> None:
    """A thousand half requests; beside them 300 bodies that nobody reads, six times, and bodies of too many values."""
    half = [raw(gateway, b"POST /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 8000) for _ in range(1000)]
    body = b"x" * 1_400_000
    for path in (ASK, "/health") * 3:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        bodies = [_sent_at_once(gateway, head + body) for _ in range(300)]
        assert _status(gateway) == 200
        for one in bodies:
            one.close()
    headers = {"Authorization": "Bearer 0123456789abcdef"}
    names = {"prompt": "x", "model": ",".join(f"m{n:04x}"[-5:] for n in range(200_000))}
    for wrong in (names, {"prompt": "x", "model": "qwen", "stop": [1] * 400_000}):
        for _ in range(5):
            assert gateway.ask("POST", ASK, wrong, headers=headers)[0] == 400
    for one in half:
        one.close()


def _sent_at_once(gateway: Gateway, data: bytes) -> socket.socket:
    """Send as much as is taken without waiting."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), 30)
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        while data:
            data = data[connection.send(data) :]
    return connection


def _status(gateway: Gateway) -> int:
    with contextlib.suppress(OSError, ValueError):
        return gateway.ask("GET", "/health")[0]
    return 0


def _free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
