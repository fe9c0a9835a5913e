"""What every measure needs: servers of its own, a mock upstream in its own process, workers, and bulk tasks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stand import COMMAND, RunningSimulator, Servers, Stand, make_template, new_stand, wait_for


@dataclass
class Upstream:
    """The simulator as a process of its own."""

    process: subprocess.Popen[bytes]
    url: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/health", timeout=30) as reply:
            found: dict[str, Any] = json.loads(reply.read())
        return found


@contextlib.contextmanager
def upstream(*arguments: str) -> Iterator[Upstream]:
    """Run `aitask simulator` with these arguments."""
    ready = Path(tempfile.mkdtemp(prefix="aitask-b-")) / "ready.json"
    command = [str(COMMAND), "simulator", "--port", "0", "--ready-file", str(ready), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(ready.exists, what="the simulator")
        yield Upstream(process, f"http://127.0.0.1:{json.loads(ready.read_text())['port']}")
    finally:
        process.terminate()
        process.wait(10)


class _Elsewhere(RunningSimulator):
    """Stands in for the test process's simulator: the upstream is a process of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def url(self) -> str:
        return self._url


@contextlib.contextmanager
def stage(url: str, **settings: str) -> Iterator[Stand]:
    """Servers, a database and a namespace, with every family pointed at an upstream."""
    servers = Servers.start(Path(tempfile.mkdtemp(prefix="aitask-b-")))
    try:
        make_template(servers)
        home = Path(tempfile.mkdtemp(prefix="aitask-b-"))
        made = new_stand(servers, _Elsewhere(url), home, AITASK_LOG_LEVEL="error", **settings)
        try:
            yield made
        finally:
            made.close()
    finally:
        servers.stop()


def peak_mb(pid: int) -> float:
    """The most memory a process has had, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def now_mb(pid: int) -> float:
    """The memory a process has now, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def all_done(stand: Stand, number: int, *, timeout_s: float) -> None:
    """Wait until so many tasks have ended."""
    end = time.monotonic() + timeout_s
    while stand.query("SELECT count(*) FROM task WHERE status IN (1, 2)")[0][0] < number:
        if time.monotonic() > end:
            raise TimeoutError(f"{number} tasks were not done within {timeout_s:g} s")
        time.sleep(0.05)


def versions() -> str:
    """What this run was made with."""
    from importlib.metadata import version

    names = ("aitask", "redis", "SQLAlchemy", "psycopg2-binary", "httpx", "httpx-aiohttp", "aiohttp")
    return f"Python {sys.version.split()[0]}, {os.cpu_count()} cores; " + ", ".join(f"{n} {version(n)}" for n in names)
