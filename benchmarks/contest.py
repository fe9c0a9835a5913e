"""W1 to W5 for aitask and for the peers that are installed, interleaved: `python -m benchmarks contest [ROUNDS]`."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.chart import draw
from benchmarks.stage import Upstream, mock, stage
from shared.store.engine import Database
from shared.submission import Request, plan, submit
from tests.stand import COMMAND, Stand, wait_for

TASKS = 3000
SLOTS = 128
# What submits for aitask; a peer's asyncio client has 16 submissions in flight over 4 connections.
THREADS = 8
PEERS = {"taskiq": "taskiq", "streaq": "streaq", "arq": "arq", "saq": "saq", "dramatiq": "dramatiq", "celery": "celery"}
# Threads hold one call each: what waits for two seconds at a time would take minutes.
THREADED = ("dramatiq", "celery")


class Aitask:
    """The queue that this is about."""

    name = "aitask"

    def __init__(self, stand: Stand, up: Upstream) -> None:
        self.stand = stand
        self._slots = SLOTS
        self._workers: list[subprocess.Popen[bytes]] = []

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
        db = Database(self.stand.settings.database_dsn, connections=THREADS)
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
        from benchmarks.peers.job import TABLE

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
        for number in range(asks):
            client.stdin.write("\n")
            client.stdin.flush()
            waits.append(_reached(up, float(client.stdout.readline()), number))
        client.wait(30)
        return waits

    def stop(self) -> None:
        for worker in self._workers:
            _end(worker)


def _end(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(30)


def _reached(up: Upstream, began: float, number: int) -> float:
    """Seconds from a submission's start until the upstream has the first of its three requests."""
    wanted = 3 * (number + 1)
    wait_for(lambda: up.stats()["calls"] >= wanted, what="the calls")
    time.sleep(0.02)
    return float(up.stats()["firsts"]) - began


@dataclass
class Found:
    """What was measured, by measure and queue, a value for each round."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def note(self, measure: str, name: str, value: float) -> None:
        self.values.setdefault(measure, {}).setdefault(name, []).append(value)

    def print(self) -> None:
        for measure, queues in self.values.items():
            print(f"\n{measure}")
            for name, values in queues.items():
                spread = f"{min(values):.4g} to {max(values):.4g}" if len(values) > 1 else ""
                print(f"  {name:<10} {statistics.median(values):>9.4g}   {spread}")
        for said in self.missing:
            print(f"not run: {said}")
        sys.stdout.flush()


@contextlib.contextmanager
def _on_stage(name: str, latency_s: float) -> Iterator[tuple[Aitask | Peer, Upstream]]:
    with mock(latency_s) as up, stage(up.url) as stand:
        made = Aitask(stand, up) if name == "aitask" else Peer(name, stand, up)
        try:
            yield made, up
        finally:
            made.stop()


def _finish(queue: Aitask | Peer, up: Upstream, timeout_s: float) -> float:
    """Seconds from the first call to the last result row; NaN when tasks are left."""
    end = time.monotonic() + timeout_s
    while queue.unfinished():
        if time.monotonic() > end:
            return float("nan")
        time.sleep(0.1)
    return time.monotonic() - float(up.stats()["first_at"])


def _w1(name: str, found: Found) -> None:
    with _on_stage(name, 0.0) as (queue, up):
        queue.load(TASKS // 3)
        for _ in range(2):
            queue.start_worker(SLOTS)
        found.note("W1 tasks/s, upstream 0 ms, 2 worker processes", name, TASKS / _finish(queue, up, 90))


def _w2(name: str, found: Found) -> None:
    with _on_stage(name, 2.0) as (queue, up):
        queue.load(TASKS // 3)
        for _ in range(2):
            queue.start_worker(TASKS // 2 + 200)
        found.note("W2 makespan s, 3,000 tasks of 2 s, 2 worker processes", name, _finish(queue, up, 90))


def _w3(name: str, found: Found) -> None:
    with _on_stage(name, 0.0) as (queue, up):
        queue.start_worker(SLOTS)
        queue.ready()
        waits = sorted(1000 * wait for wait in queue.idle(up, 60)[5:])
        found.note("W3 idle dispatch ms, p50", name, statistics.median(waits))
        found.note("W3 idle dispatch ms, p95", name, waits[int(len(waits) * 0.95)])


def _w4(name: str, found: Found) -> None:
    with _on_stage(name, 0.0) as (queue, _):
        found.note("W4 batches of three submitted per second, one client process", name, queue.rate(4))


def _w5(name: str, found: Found) -> None:
    with _on_stage(name, 2.0) as (queue, up):
        queue.load(TASKS // 3)
        workers = [queue.start_worker(500) for _ in range(2)]
        wait_for(lambda: up.stats()["calls"] > TASKS // 3, what="mid-load")
        if isinstance(queue, Peer):
            _end(workers[0])
        else:
            workers[0].kill()
        killed = time.monotonic()
        time.sleep(1.0)
        queue.start_worker(500)
        while queue.unfinished() and time.monotonic() < killed + 60:
            time.sleep(0.2)
        took, left = time.monotonic() - killed, queue.unfinished()
        found.note("W5 not done 60 s after kill -9 of one of two workers", name, left)
        found.note("W5 calls doubled", name, max(0, up.stats()["calls"] - (TASKS - left)))
        found.note("W5 done s after the kill", name, took)


def _limit(found: Found) -> None:
    for latency_s, measure in ((0.0, "W1 tasks/s"), (2.0, "W2 makespan s")):
        with mock(latency_s) as up:
            command = [sys.executable, "-m", "benchmarks.bare", f"{up.url}/v1/chat/completions", str(TASKS)]
            at_once = str(SLOTS if not latency_s else TASKS)
            took = float(subprocess.run([*command, at_once], capture_output=True, text=True, check=True).stdout)
            whole = next(name for name in found.values if name.startswith(measure))
            found.note(whole, "bare loop", took if latency_s else TASKS / took)


def contest(rounds: int = 3, only: str = "") -> None:
    """Run every measure for every queue, round by round, and print medians with their spread."""
    found = Found()
    names = ["aitask", *_installed(found)]
    measures: list[Callable[[str, Found], None]] = [_w1, _w2, _w3, _w4]
    for turn in range(rounds):
        for measure in [*measures, *([_w5] if turn == 0 else [])]:
            if only and measure.__name__[1:] not in only:
                continue
            for name in names:
                if name in THREADED and measure is not _w1:
                    continue
                try:
                    measure(name, found)
                except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
                    found.missing.append(f"{measure.__name__[1:].upper()} for {name}: {str(error)[:120]}")
        if not only:
            _limit(found)
        print(f"round {turn + 1} of {rounds}", flush=True)
    found.print()
    if not only:
        draw(found.values, Path("docs/contest.svg"))


def _installed(found: Found) -> list[str]:
    names = []
    for name, package in PEERS.items():
        try:
            print(f"{name} {version(package)}", end=" ")
            names.append(name)
        except PackageNotFoundError:
            found.missing.append(f"{name}: not installed (pip install -e '.[bench]')")
    print()
    return names
