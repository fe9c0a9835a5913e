"""W1 to W5 for aitask and for the peers that are installed, interleaved: `python -m benchmarks contest [ROUNDS]`."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psycopg2

from benchmarks.chart import draw
from benchmarks.contenders import SLOTS, THREADS, Aitask, Peer, end
from benchmarks.peers.job import TABLE
from benchmarks.stage import Upstream, mock, stage
from tests.stand import COMMAND, Stand, wait_for

TASKS = 3000
# Of calls that are answered at once: enough that a worker's start is a small part.
SHORT_TASKS = 6000
PEERS = {"taskiq": "taskiq", "streaq": "streaq", "arq": "arq", "saq": "saq", "dramatiq": "dramatiq", "celery": "celery"}
# Threads hold one call each: what waits for two seconds at a time would take minutes.
THREADED = ("dramatiq", "celery")
STARTS = 7


@dataclass
class Found:
    """What was measured, by measure and queue, a value for each round."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def note(self, measure: str, name: str, value: float) -> None:
        self.values.setdefault(measure, {}).setdefault(name, []).append(value)

    def named(self, measure: str) -> str:
        """The first row of a measure, by the measure's short name."""
        return next(name for name in self.values if name.lower().startswith(measure))

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
def _on_stage(name: str, latency_s: float, *, whole: bool = False) -> Iterator[tuple[Aitask | Peer, Upstream]]:
    with mock(latency_s, whole=whole) as up, stage(up.url) as stand:
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
    # aitask streams where it can; the peers ask for a whole answer. It is measured both ways.
    for whole in (False, True) if name == "aitask" else (False,):
        with _on_stage(name, 0.0, whole=whole) as (queue, up):
            queue.load(SHORT_TASKS // 3)
            for _ in range(2):
                queue.start_worker(SLOTS)
            called = "aitask, whole" if whole else name
            rate = SHORT_TASKS / _finish(queue, up, 90)
            found.note("W1 tasks/s, upstream 0 ms, 2 worker processes", called, rate)


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
        waits = sorted(1000 * wait for wait in queue.idle(up, 105)[5:])
        found.note("W3 idle dispatch ms, p50", name, statistics.median(waits))
        for percent in (95, 99):
            found.note(f"W3 idle dispatch ms, p{percent}", name, waits[int(len(waits) * percent / 100)])


def _w4(name: str, found: Found) -> None:
    with _on_stage(name, 0.0) as (queue, _):
        found.note("W4 batches of three submitted per second, one client process", name, queue.rate(4))


def _w5(name: str, found: Found) -> None:
    with _on_stage(name, 2.0) as (queue, up):
        queue.load(TASKS // 3)
        workers = [queue.start_worker(500) for _ in range(2)]
        wait_for(lambda: up.stats()["calls"] > TASKS // 3, what="mid-load")
        killed = time.monotonic()
        if isinstance(queue, Peer):
            end(workers[0])
        else:
            workers[0].kill()
        time.sleep(1.0)
        queue.start_worker(500)
        while queue.unfinished() and time.monotonic() < killed + 60:
            time.sleep(0.2)
        took, left = time.monotonic() - killed, queue.unfinished()
        found.note("W5 not done 60 s after kill -9 of one of two workers", name, left)
        found.note("W5 calls doubled", name, max(0, up.stats()["calls"] - (TASKS - left)))
        found.note("W5 done s after the kill", name, took)


def _start(name: str, found: Found) -> None:
    found.note("start of `--help`, s", name, _took([str(COMMAND.with_name(name)), "--help"]))
    if name == "aitask":
        with _on_stage(name, 0.0) as (queue, _):
            queue.load(1)
            # Nothing works on the batch: exit code 8 says that it is not ended.
            found.note("start of `show last`, s", name, _took([str(COMMAND), "show", "last"], queue.stand, code=8))


def _took(command: list[str], stand: Stand | None = None, *, code: int = 0) -> float:
    """Median seconds of a command, from its start to its end."""
    took = []
    for _ in range(STARTS):
        began = time.monotonic()
        ended = subprocess.run(command, env=stand.env if stand else None, capture_output=True, text=True)
        took.append(time.monotonic() - began)
        if ended.returncode != code:
            raise ValueError(f"{command[-1]} ended with {ended.returncode}: {ended.stderr[-100:]}")
    return statistics.median(took)


def _limit(found: Found, measures: set[str]) -> None:
    """What the same machine does at most, without a queue: the right-hand column."""
    for number, latency_s in (("w1", 0.0), ("w2", 2.0)):
        if number not in measures:
            continue
        with mock(latency_s) as up:
            calls, at_once = (SHORT_TASKS, SLOTS) if number == "w1" else (TASKS, TASKS)
            command = [
                sys.executable,
                "-m",
                "benchmarks.bare",
                f"{up.url}/v1/chat/completions",
                str(calls),
                str(at_once),
            ]
            took = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            found.note(found.named(number), "bare loop", took if number == "w2" else calls / took)
    if "w4" in measures:
        with stage("http://127.0.0.1:9") as stand:
            stand.query(TABLE)
            found.note(found.named("w4"), "bare rows", _bare_commits(stand, 4))
    if "start" in measures:
        honcho = [str(COMMAND.with_name("honcho")), "--help"]
        found.note(found.named("start"), "honcho", _took(honcho))
        for module in ("click", "sqlalchemy"):
            found.note(found.named("start"), f"{module} alone", _took([sys.executable, "-c", f"import {module}"]))


def _bare_commits(stand: Stand, seconds: int) -> float:
    """Commits of three rows a second by as many threads as submit for aitask, each with a connection."""
    said = (
        "INSERT INTO peer_task (id, batch_id, model, prompt)"
        " SELECT gen_random_uuid(), gen_random_uuid(), 'qwen', 'hello' FROM generate_series(1, 3)"
    )
    stop = time.monotonic() + seconds

    def some(_: int) -> int:
        connection = psycopg2.connect(host=str(stand.servers.postgres.sockets), user="postgres", dbname=stand.database)
        connection.autocommit = True
        made = 0
        with contextlib.closing(connection), connection.cursor() as cursor:
            while time.monotonic() < stop:
                cursor.execute(said)
                made += 1
        return made

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(some, range(THREADS))) / seconds


MEASURES: dict[str, Callable[[str, Found], None]] = {
    "w1": _w1, "w2": _w2, "w3": _w3, "w4": _w4, "w5": _w5, "start": _start,
}  # fmt: skip


def contest(rounds: int = 3, only: str = "") -> None:
    """Run every measure for every queue, round by round, and print medians with their spread."""
    found = Found()
    names = ["aitask", *_installed(found)]
    chosen = {name for name in MEASURES if not only or name in only}
    found.missing += [f"W2 to W5 for {name}: a thread holds one call" for name in names if name in THREADED]
    for turn in range(rounds):
        for measure in MEASURES:
            # A peer that has lost tasks is waited for a minute: once is enough to know.
            queues = names if measure != "w5" or turn == 0 else names[:1]
            for name in queues if measure in chosen else ():
                if name not in THREADED or measure in ("w1", "start"):
                    _tried(measure, name, found)
        _limit(found, chosen)
        print(f"round {turn + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
    found.print()
    if not only:
        draw(found.values, Path("docs/contest.svg"))


def _tried(measure: str, name: str, found: Found) -> None:
    try:
        MEASURES[measure](name, found)
    except (AssertionError, ImportError, OSError, ValueError, subprocess.SubprocessError) as error:
        found.missing.append(f"{measure.upper()} for {name}: {str(error)[:120]}")


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
