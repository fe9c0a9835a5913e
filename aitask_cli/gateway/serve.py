"""Serving: the application on a socket, until it is told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable

import uvicorn

from aitask_cli.gateway import peers
from aitask_cli.gateway.app import make_app
from aitask_cli.gateway.connection import Limits, connection_class
from aitask_cli.gateway.hub import Hub, running
from aitask_cli.gateway.own_token import with_own_token
from aitask_cli.gateway.service import Service
from aitask_cli.gateway.threads import CONNECTIONS, Threads
from aitask_cli.session import Session
from shared import servers
from shared.errors import UsageFault
from shared.settings import Settings
from shared.store.outage import wait_until_ready

_STOP_S = 3
_FILES = 65_536
_READ_BYTES = 64 * 1024


def check_host(host: str, settings: Settings) -> bool:
    """Refuse an address that others can reach, unless tokens say who may call. Returns whether it is local.

    Raises:
        UsageFault: it is one.
    """
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and not settings.gateway_tokens:
        raise UsageFault(
            f"{host} can be reached from elsewhere and nobody would have to show a token",
            remedy="set AITASK_GATEWAY_TOKENS, or listen on 127.0.0.1",
        )
    return local


def serve(session: Session, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        UsageFault: the address can't be listened on.
    """
    local = check_host(host, session.settings)
    settings = with_own_token(session.settings, session.say)
    _warn(settings, session.say, local=local)
    session.make_way()
    _raise_file_limit()
    db = servers.reading(settings, connections=CONNECTIONS, name="aitask gateway")
    # Before it listens: a caller is better refused than left hanging.
    wait_until_ready(db, wait=_slept)
    listening = _listening(host, port)
    threads = Threads()
    streams = servers.streams(settings, timeout_s=servers.SUBMIT_REDIS_TIMEOUT_S)
    tail = servers.live_tail(settings)
    hub = Hub(db, tail, threads, most=settings.gateway_watchers)
    service = Service(
        settings, db, streams, threads, hub, local=session.stack is not None,
        ensure_worker=session.ensure_worker if session.stack else lambda names: [],
    )  # fmt: skip

    @contextlib.asynccontextmanager
    async def living() -> AsyncIterator[None]:
        async with running(hub, after=threads.close):
            yield
        service.bodies.close()
        await tail.close()

    config = uvicorn.Config(
        make_app(service, living), loop="uvloop", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=_STOP_S, lifespan="on", http=connection_class(_limits(settings)), ws="none",
    )  # fmt: skip
    name = f"[{host}]" if ":" in host else host
    session.say(f"the gateway listens on http://{name}:{listening.getsockname()[1]}")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        streams.close()
        db.close()


def _slept(seconds: float) -> bool:
    """Wait; a signal that asks for an end raises out of it."""
    time.sleep(seconds)
    return False


def _limits(settings: Settings) -> Limits:
    return Limits(
        connections=settings.gateway_connections,
        head_s=settings.gateway_head_s,
        body_s=settings.gateway_body_s,
        own_user_only=not settings.gateway_tokens and peers.known_here(),
    )


def _warn(settings: Settings, say: Callable[[str], None], *, local: bool) -> None:
    if not local:
        say("tokens and prompts are not encrypted on the way here: put a proxy with TLS in front, or use an SSH tunnel")
    elif not settings.gateway_tokens and not peers.known_here():
        say("every user of this machine may call; to ask for a token: AITASK_GATEWAY_TOKENS=auto")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: what one can make us read before its head is judged.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _READ_BYTES)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        raise UsageFault(
            f"can't listen on {host}:{port}: {error.strerror or error}", remedy="give another --host or --port"
        ) from None
    return listening


def _raise_file_limit() -> None:
    """Every watcher is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
