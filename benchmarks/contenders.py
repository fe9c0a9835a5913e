"""The contenders of the contest: aitask and its peers, each told the same things in its own words."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

from benchmarks.peers.job import TABLE
from benchmarks.stage import Upstream
from shared import servers
from shared.store.engine import Database
from shared.submission import Request, plan, submit
from tests.stand import COMMAND, Stand, wait_for

SLOTS = 128
# What submits for aitask; a peer's asyncio client has 16 submissions in flight over 4 connections.
THREADS = 8


class Aitask:
    """The queue that this is about."""

    name = "aitask"

    def __init__(self, stand: Stand, up: Upstream) -> None:
        self.stand = stand

    def load(self, prompts: int) -> None:
        settings = self.stand.settings
        checked = [
            plan(Request(prompt=f"prompt {n}", models=("qwen", "gemini", "deepseek")), settings) for n in range(prompts)
        ]
        with self.stand.db() as db, self.stand.streams() as streams, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: submit(db, streams, one), checked))

    def start_worker(self, slots: int) -> subprocess.Popen[bytes]:
        return self.stand.start_worker("-c", str(slots), ready=False)

    def ready(self) -> None:
        wait_for(lambda: self.stand.query("SELECT count(*) FROM worker")[0][0] >= 1, what="a worker")

    def unfinished(self) -> int:
        return int(self.stand.query("SELECT count(*) FROM task WHERE status IN (0, 3)")[0][0])

    def rate(self, seconds: int) -> float:
        checked = plan(Request(prompt="hello", models=("qwen", "gemini", "deepseek")), self.stand.settings)
        end, made = time.monotonic() + seconds, []
        with self._db() as db, self.stand.streams() as streams, ThreadPoolExecutor(THREADS) as pool:

            def some(_: int) -> None:
                while time.monotonic() < end:
                    submit(db, streams, checked)
                    made.append(1)

            list(pool.map(some, range(THREADS)))
        return len(made) / seconds

    @contextlib.contextmanager
    def _db(self) -> Iterator[Database]:
        db = servers.reading(self.stand.settings, connections=THREADS)
        try:
            yield db
        finally:
            db.close()

    def idle(self, up: Upstream, asks: int) -> list[float]:
        checked = plan(Request(prompt="hello", models=("qwen", "gemini", "deepseek")), self.stand.settings)
        waits = []
        with self.stand.db() as db, self.stand.streams() as streams:
            for number in range(asks):
                began = time.monotonic()
                submit(db, streams, checked)
                waits.append(_reached(up, began, number))
        return waits

    def stop(self) -> None:
        return None


class Peer:
    """Another queue, with its own command for a worker."""

    def __init__(self, name: str, stand: Stand, up: Upstream) -> None:
        self.name = name
        self.stand = stand
        self._workers: list[subprocess.Popen[bytes]] = []
        self._env = {
            **stand.env,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PEER_URL": up.url,
            "PEER_DIRECTORY": str(stand.servers.postgres.sockets),
            "PEER_DATABASE": stand.database,
            "PEER_REDIS": stand.servers.valkey.url,
            "PEER_SLOTS": str(SLOTS),
        }
        stand.query(TABLE)
        with stand.streams() as streams:
            streams.client.flushall()

    def _client(self, what: str, amount: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.peers.client", self.name, what, str(amount)]

    def load(self, prompts: int) -> None:
        subprocess.run(self._client("load", prompts), env=self._env, check=True)

    def start_worker(self, slots: int) -> subprocess.Popen[bytes]:
        command = import_module(f"benchmarks.peers.{self.name}_").COMMAND
        command = [part if part != str(SLOTS) or self.name != "taskiq" else str(slots) for part in command]
        log = (self.stand.home / f"{self.name}.log").open("ab")
        worker = subprocess.Popen(
            [str(COMMAND.with_name(command[0])), *command[1:]], env={**self._env, "PEER_SLOTS": str(slots)},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        self._workers.append(worker)
        return worker

    def ready(self) -> None:
        time.sleep(4.0)  # what tells that a peer's worker is ready differs for each

    def unfinished(self) -> int:
        return int(self.stand.query("SELECT count(*) FROM peer_task WHERE status = 0")[0][0])

    def rate(self, seconds: int) -> float:
        done = subprocess.run(self._client("rate", seconds), env=self._env, check=True, capture_output=True, text=True)
        return float(done.stdout)

    def idle(self, up: Upstream, asks: int) -> list[float]:
        client = subprocess.Popen(
            self._client("idle", asks), env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert client.stdin is not None
        assert client.stdout is not None
        waits = []
        try:
            for number in range(asks):
                client.stdin.write("\n")
                client.stdin.flush()
                waits.append(_reached(up, float(client.stdout.readline()), number))
            client.wait(30)
        finally:
            client.kill()
        return waits

    def stop(self) -> None:
        for worker in self._workers:
            end(worker)


def end(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(30)


def _reached(up: Upstream, began: float, number: int) -> float:
    """Seconds from a submission's start until the upstream has the first of its three requests."""
    wanted = 3 * (number + 1)
    wait_for(lambda: up.stats()["calls"] >= wanted, what="the calls")
    time.sleep(0.02)
    return float(up.stats()["firsts"]) - began
