"""Starting a program that outlives the command: a session of its own, nothing inherited, its words in a log."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from shared.errors import Unavailable

_POLL_S = 0.02
# What -P does, for Pythons before 3.11: the first place to import from is not the current directory.
WITHOUT_HERE = "import sys; sys.path[:] = filter(None, sys.path); from aitask_cli.main import main; main()"


def this_program(*arguments: str) -> list[str]:
    """The command line of another `aitask`, which imports nothing from the directory it is started in."""
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-m", "aitask_cli", *arguments]
    return [sys.executable, "-c", WITHOUT_HERE, *arguments]


def start_detached(
    argv: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    env: dict[str, str] | None = None,
    account: tuple[int, int] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program that no closing terminal, signal or pipe of ours can reach.

    Args:
        account: (uid, gid) to run as, when we are root.
    """
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env=env,
            start_new_session=True,
            pass_fds=pass_fds,
            user=account[0] if account else None,
            group=account[1] if account else None,
            extra_groups=[] if account else None,
        )


def wait_until(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Wait for a condition of another process. Returns whether it came about in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True


def exists(pid: int) -> bool:
    """Tell whether a process is there and not a zombie that only waits for its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def telling_line(said: str) -> str:
    """The line of what a program said that tells why it ended: the first that is fatal, or else the last."""
    lines = [line.strip() for line in said.split("\n") if line.strip()]
    fatal = [line for line in lines if re.search(r"\b(FATAL|PANIC)\b", line)]
    # What comes after the first is mostly its consequence.
    return fatal[0] if fatal else (lines or ["it said nothing"])[-1]


def last_words(log: Path, *, since: int = 0) -> str:
    """Why a program ended, as its log says it from this byte on."""
    try:
        return telling_line(log.read_bytes()[since:][-16_000:].decode("utf-8", "replace"))
    except OSError:
        return "it said nothing"


def start_and_wait(
    start: Callable[[], subprocess.Popen[bytes]], alive: Callable[[], bool], *, name: str, log: Path, timeout_s: float
) -> None:
    """Start a program and wait until it serves.

    Raises:
        Unavailable: it ended or did not serve in time; its last line is quoted.
    """
    since = log.stat().st_size if log.exists() else 0
    process = start()
    ended = wait_until(lambda: alive() or process.poll() is not None, timeout_s=timeout_s)
    if not ended or not alive():
        if process.poll() is None:
            process.kill()
            process.wait()
        raise Unavailable(f"{name} did not start: {last_words(log, since=since)}", remedy=f"see {log}")
