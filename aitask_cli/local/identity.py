"""Which process it is: a pid is believed only with its start time and its owner, for pids are given out again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from every other that had or will have its pid.

    Attributes:
        started: when it began, as the system says it: compared, never read.
    """

    pid: int
    started: str
    uid: int

    def noted(self) -> dict[str, Any]:
        """What a file says of it."""
        return asdict(self)


def identify(pid: int) -> Process | None:
    """Return the process that has a pid now, or None. One that only waits for its parent counts as gone."""
    if pid <= 0:
        return None
    return _by_proc(pid) if sys.platform == "linux" else _by_ps(pid)


def living(noted: Mapping[str, object]) -> Process | None:
    """Return the process that a file notes, if it lives and is the same and this user's, or None."""
    pid = noted.get("pid")
    found = identify(pid) if isinstance(pid, int) else None
    same = found is not None and found.started == noted.get("started") and found.uid == noted.get("uid")
    return found if same and found is not None and found.uid == os.geteuid() else None


def lives(process: Process) -> bool:
    """Tell whether it is still there."""
    return identify(process.pid) == process


def send(process: Process, sign: signal.Signals) -> bool:
    """Send a signal to this process and to no other. Returns whether it was there."""
    with contextlib.suppress(ProcessLookupError):
        if not hasattr(signal, "pidfd_send_signal"):
            if lives(process):
                os.kill(process.pid, sign)
                return True
            return False
        # What the descriptor names stays the same process; asked once it is held, the answer is about that one.
        held = os.pidfd_open(process.pid)
        try:
            if lives(process):
                signal.pidfd_send_signal(held, sign)
                return True
        finally:
            os.close(held)
    return False


def listener(path: Path) -> tuple[int, int] | None:
    """Return (pid, uid) of who listens on a Unix socket, as the kernel says it, or None where it says nothing."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
            pid, uid, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return None
    return (pid, uid) if pid > 0 else None


def _by_proc(pid: int) -> Process | None:
    try:
        # proc(5): the name may hold anything, so the fields are counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid, fields[19], uid)


def _by_ps(pid: int) -> Process | None:
    asked = ["ps", "-o", "stat=,uid=,lstart=", "-p", str(pid)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    fields = done.stdout.split(None, 2)
    if len(fields) < 3 or fields[0].startswith("Z"):
        return None
    return Process(pid, fields[2].strip(), int(fields[1]))
