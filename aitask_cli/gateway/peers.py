"""Whose process is at the other end of a loopback connection. Linux tells it; elsewhere nobody does."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

_TABLES = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}


def known_here() -> bool:
    """Whether this system tells whose a connection is."""
    return _TABLES[socket.AF_INET].exists()


def may_call(client: tuple[str, int] | None, server: tuple[str, int | None] | None) -> bool:
    """Whether a connection's other end is this user's, or root's. One that has gone by now is nobody's."""
    if client is None or server is None or server[1] is None:
        return False
    return owner(client, (server[0], server[1])) in served()


def served() -> frozenset[int]:
    """The user ids that are served."""
    return frozenset({0, os.geteuid()})


def owner(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Return the user id whose socket is `client`, connected to `server`, or None when there is none any more."""
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    wanted = [_entry(family, *client), _entry(family, *server)]
    try:
        rows = _TABLES[family].read_text().splitlines()[1:]
    except OSError:
        return None
    for row in rows:
        # sl local remote state queues timer retransmits uid timeout inode (proc(5)).
        fields = row.split()
        # A socket that its process has closed has no inode, and shows root for an owner.
        if fields[1:3] == wanted and fields[9] != "0":
            return int(fields[7])
    return None


def _entry(family: socket.AddressFamily, host: str, port: int) -> str:
    packed = socket.inet_pton(family, host)
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words) + f":{port:04X}"
