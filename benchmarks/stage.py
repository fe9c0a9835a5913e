"""What every measure needs: servers of its own, a mock upstream in its own process, workers, and bulk tasks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
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
    """Run `aitask simulator` with these arguments: the upstream for measures of behaviour."""
    with _serving(lambda ready: [str(COMMAND), "simulator", "--port", "0", "--ready-file", ready, *arguments]) as made:
        yield made


@contextlib.contextmanager
def mock(latency_s: float = 0.0, *, whole: bool = False) -> Iterator[Upstream]:
    """Run the mock upstream: for measures of load. `whole`: it refuses to stream."""
    told = [str(latency_s), *(["whole"] if whole else [])]
    with _serving(lambda ready: [sys.executable, "-m", "benchmarks.mock", ready, *told]) as made:
        yield made


@contextlib.contextmanager
def _serving(command_for: Callable[[str], list[str]]) -> Iterator[Upstream]:
    ready = Path(tempfile.mkdtemp(prefix="aitask-b-")) / "ready.json"
    command = command_for(str(ready))
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


@contextlib.contextmanager
def held_back(stand: Stand) -> Iterator[None]:
    """Pause every family while the block submits, so that workers and submissions are not measured together."""
    stand.query(
        "INSERT INTO family_pause (family, kind, reason) SELECT family.name, 'operator', 'load'"
        " FROM unnest(ARRAY['gemini', 'qwen', 'deepseek']) AS family (name)"
    )
    time.sleep(2.0)
    yield
    stand.query("DELETE FROM family_pause")


def cpu_s(*pids: int) -> float:
    """Processor seconds that these processes and their children have used: what other guests of the machine
    take away does not count."""
    used = 0.0
    for pid in pids:
        # A child that has just ended is on its parent's account.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            used += _cpu_s(pid)
    return used


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + cpu_s(*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def server_pids(servers: Servers) -> dict[str, int]:
    """The servers' processes, PostgreSQL's being the parent of its others."""
    valkey = re.search(rb"process_id:(\d+)", servers.valkey._say(b"INFO server\r\n"))
    postgres = servers.postgres._pid()
    assert valkey is not None
    assert postgres is not None
    return {"postgres": postgres, "valkey": int(valkey[1])}


def all_done(stand: Stand, number: int, *, timeout_s: float) -> None:
    """Wait until so many tasks have ended."""
    end = time.monotonic() + timeout_s
    # Only the small indexes of unfinished rows are looked at: the question must not cost what is measured.
    while stand.query("SELECT 1 FROM task WHERE status = 0 UNION ALL SELECT 1 FROM task WHERE status = 3 LIMIT 1"):
        if time.monotonic() > end:
            raise TimeoutError(f"{number} tasks were not done within {timeout_s:g} s")
        time.sleep(0.1)
    done = stand.query("SELECT count(*) FROM task WHERE status IN (1, 2)")[0][0]
    if done != number:
        raise ValueError(f"{done} tasks are done, {number} were expected")


def versions() -> str:
    """What this run was made with."""
    from importlib.metadata import version

    names = ("aitask", "redis", "SQLAlchemy", "psycopg2-binary", "aiohttp", "uvloop", "orjson")
    return f"Python {sys.version.split()[0]}, {os.cpu_count()} cores; " + ", ".join(f"{n} {version(n)}" for n in names)
