"""A pooler in transaction mode: ours, true to the protocol, for every run; PgBouncer itself where it is installed.

Ours refuses start-up options with PgBouncer's words and hands each transaction another server connection, in turn.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.stand import Servers, wait_for

_PROTOCOL = 196608
_SSL, _GSS = 80877103, 80877104


class Pooler:
    """A transaction-mode pooler on loopback, in front of a server's Unix socket."""

    def __init__(
        self, servers: Servers, database: str, *, size: int = 3, ignores_options: bool = False, session: bool = False
    ) -> None:
        self._path = str(servers.postgres.sockets / ".s.PGSQL.5432")
        self._database = database
        self._ignores_options = ignores_options
        self._session = session
        self._idle: queue.Queue[_Backend] = queue.Queue()
        self._backends = [_Backend(self._path, database) for _ in range(size)]
        for backend in self._backends:
            self._idle.put(backend)
        self.transactions = 0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{self._database}"

    def close(self) -> None:
        self._listening.close()
        for backend in self._backends:
            backend.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.closing(client), contextlib.suppress(OSError, EOFError):
            if not self._started(client):
                return
            if self._session:
                self._whole_session(client)
            else:
                while self._transaction(client):
                    self.transactions += 1

    def _started(self, client: socket.socket) -> bool:
        while True:
            (length,) = struct.unpack("!I", _read(client, 4))
            body = _read(client, length - 4)
            if struct.unpack("!I", body[:4])[0] not in (_SSL, _GSS):
                break
            client.sendall(b"N")
        if b"options\0" in body and not self._ignores_options:
            said = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"
            client.sendall(b"E" + struct.pack("!I", len(said) + 4) + said)
            return False
        client.sendall(self._backends[0].greeting)
        return True

    def _whole_session(self, client: socket.socket) -> None:
        """Session mode: a client that has once said something keeps its server connection until it goes."""
        message = _message(client)
        backend = self._idle.get()
        try:
            while message[:1] != b"X":
                backend.socket.sendall(message)
                backend.answer_to(client)
                message = _message(client)
        finally:
            with contextlib.suppress(OSError):
                backend.again()
            self._idle.put(backend)

    def _transaction(self, client: socket.socket) -> bool:
        """Pass one transaction on to the server connection that has been idle longest."""
        message = _message(client)
        if message[:1] == b"X":
            return False
        backend = self._idle.get()
        try:
            while True:
                backend.socket.sendall(message)
                if backend.answer_to(client) == b"I":
                    return True
                message = _message(client)
                if message[:1] == b"X":
                    backend.again()
                    return False
        except (OSError, EOFError):
            with contextlib.suppress(OSError):
                backend.again()
            raise
        finally:
            self._idle.put(backend)


class _Backend:
    """One connection to the server, and what the server said of itself when it was made."""

    def __init__(self, path: str, database: str) -> None:
        self._path, self._database = path, database
        self.again()

    def again(self) -> None:
        """Make it anew: what was under way on it is rolled back."""
        if hasattr(self, "socket"):
            self.socket.close()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(self._path)
        said = f"user\0postgres\0database\0{self._database}\0client_encoding\0UTF8\0\0".encode()
        self.socket.sendall(struct.pack("!II", len(said) + 8, _PROTOCOL) + said)
        self.greeting = b""
        while True:
            message = _message(self.socket)
            self.greeting += message
            if message[:1] == b"Z":
                return

    def answer_to(self, client: socket.socket) -> bytes:
        """Pass the server's answer on. Returns the state of the transaction after it; COPY is fed meanwhile."""
        while True:
            message = _message(self.socket)
            client.sendall(message)
            if message[:1] == b"Z":
                return message[5:6]
            if message[:1] == b"G":
                fed = b""
                while fed[:1] not in (b"c", b"f"):
                    fed = _message(client)
                    self.socket.sendall(fed)

    def close(self) -> None:
        self.socket.close()


def _message(source: socket.socket) -> bytes:
    head = _read(source, 5)
    return head + _read(source, struct.unpack("!I", head[1:])[0] - 4)


def _read(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = source.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def pgbouncer() -> str | None:
    """Where PgBouncer is, or None."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def running_pgbouncer(
    servers: Servers, database: str, directory: Path, *, mode: str = "transaction", size: int = 3, more: str = ""
) -> Iterator[str]:
    """Run PgBouncer in front of the servers' PostgreSQL. Yields the URL to go by."""
    binary = pgbouncer()
    assert binary is not None
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    directory.mkdir(exist_ok=True)
    users = directory / "users.txt"
    users.write_text('"postgres" ""\n')
    config = directory / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{database} = host={servers.postgres.sockets} port=5432 dbname={database} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {users}\npool_mode = {mode}\ndefault_pool_size = {size}\nmax_client_conn = 200\n"
        f"server_round_robin = 1\nquery_wait_timeout = 20\n{more}\n"
    )
    account = servers.postgres.account
    if account is not None:
        for path in (directory, *directory.parents):
            if path != Path("/") and path.owner() == pwd.getpwuid(os.geteuid()).pw_name and path != Path("/tmp"):
                path.chmod(path.stat().st_mode | 0o055)
    process = subprocess.Popen(
        [binary, str(config)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        user=account[0] if account else None, group=account[1] if account else None,
        extra_groups=[] if account else None,
    )  # fmt: skip
    try:
        wait_for(lambda: _listens(port), what="PgBouncer")
        yield f"postgresql://postgres@127.0.0.1:{port}/{database}"
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
