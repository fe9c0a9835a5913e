"""The measures: each prints what it found, in figures."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.gateway import gateway
from benchmarks.neighbours import neighbours
from benchmarks.stage import Upstream, all_done, cpu_s, held_back, mock, now_mb, peak_mb, server_pids, stage, upstream
from benchmarks.strangers import strangers
from shared import servers
from shared.bulk import submit_all
from shared.submission import Request, plan, submit
from tests.stand import RunningSimulator, Stand, wait_for

MODELS = ("qwen", "gemini", "deepseek")


def _bare(url: str, calls: int, at_once: int) -> float:
    target = f"{url}/v1/chat/completions"
    command = [sys.executable, "-m", "benchmarks.bare", target, str(calls), str(at_once)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _load(stand: Stand, prompts: int, models: Sequence[str] = MODELS) -> None:
    """So many prompts, three models each, as W1 and W2 have it."""
    settings = stand.settings
    with stand.db() as db, stand.streams() as streams, ThreadPoolExecutor(4) as pool:
        plans = [plan(Request(prompt=f"prompt {n}", models=models), settings) for n in range(prompts)]
        list(pool.map(lambda checked: submit(db, streams, checked), plans))


def _span_s(stand: Stand, model: str = "%") -> float:
    asked = "SELECT extract(epoch FROM max(finished_at) - min(first_claimed_at))::float FROM task WHERE model LIKE %s"
    found = stand.query(asked, model)
    return float(found[0][0])


def held(tasks: int = 3000) -> None:
    """3,000 calls of 2 s at once in one worker process, next to a bare loop."""
    with mock(2.0) as up, stage(up.url) as stand:
        bare = _bare(up.url, tasks, tasks)
        _load(stand, tasks // 3)
        worker = stand.start_worker("-c", str(tasks + 200))
        all_done(stand, tasks, timeout_s=120)
        span = _span_s(stand)
        print(f"held: {tasks} calls of 2 s, one worker: first claim to last result {span:.2f} s, "
              f"{span / bare:.2f} of the bare loop's {bare:.2f} s; "
              f"calls {up.stats()['calls'] - tasks}, at once {up.stats()['open_most']}; "
              f"peak memory {peak_mb(worker.pid):.0f} MiB")  # fmt: skip


def rate(tasks: int = 6000) -> None:
    """Calls that answer at once, two worker processes, next to a bare loop of the same client."""
    with mock() as up, stage(up.url) as stand:
        bare = tasks / _bare(up.url, tasks, 128)
        workers = [stand.start_worker("-c", "128") for _ in range(2)]
        with held_back(stand):
            _load(stand, tasks // 3)
            pids = server_pids(stand.servers) | {"mock": up.process.pid}
            pids |= {f"worker {number}": worker.pid for number, worker in enumerate(workers, 1)}
            before = {name: cpu_s(pid) for name, pid in pids.items()}
        all_done(stand, tasks, timeout_s=120)
        ours = tasks / _span_s(stand)
        used = {name: 1000 * (cpu_s(pid) - before[name]) / tasks for name, pid in pids.items()}
        print(f"rate: {ours:.0f} tasks/s with two workers, {ours / bare:.2f} of the bare loop's {bare:.0f}/s; "
              "processor ms per task: " + ", ".join(f"{name} {ms:.2f}" for name, ms in used.items()))  # fmt: skip


def dispatch(asks: int = 200) -> None:
    """Idle system: from the submission's start to the upstream's having the request."""
    with mock() as up, stage(up.url) as stand:
        stand.start_worker()
        ms = _dispatch_ms(stand, up, asks)
        print(f"dispatch: submit to upstream, {asks} single asks: p50 {statistics.median(ms):.1f} ms, "
              f"p99 {ms[int(len(ms) * 0.99)]:.1f} ms")  # fmt: skip


def _dispatch_ms(stand: Stand, up: Upstream, asks: int) -> list[float]:
    """Milliseconds from each of some asks to its call, in order of length; the first few are left out."""
    waits = []
    with stand.db() as db, stand.streams() as streams:
        checked = plan(Request(prompt="hello", models=["qwen"]), stand.settings)
        for _ in range(asks + 5):
            began = time.monotonic()
            submit(db, streams, checked)
            time.sleep(0.05)
            wait_for(lambda began=began: up.stats()["last_at"] > began, what="the call")
            waits.append(up.stats()["last_at"] - began)
    return sorted(wait * 1000 for wait in waits[5:])


def outage(tasks: int = 1000, down_s: float = 60.0) -> None:
    """The endpoint is down for a minute with 1,000 tasks waiting."""
    up = RunningSimulator()
    up.simulator.down = True
    with stage(up.url) as stand:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: stand.submit(f"p{n}", "qwen"), range(tasks)))
        stand.start_worker("qwen")
        time.sleep(down_s)
        while_down = up.calls
        up.simulator.down = False
        began = time.monotonic()
        all_done(stand, tasks, timeout_s=400)
        failed = stand.query("SELECT count(*) FROM task WHERE status = 2")[0][0]
        print(f"outage: {while_down} calls while down for {down_s:g} s (slots 64 + 30 = 94 allowed), FAILED {failed}, "
              f"all {tasks} ended {time.monotonic() - began:.0f} s after it was back")  # fmt: skip
    up.stop()


def watchers(number: int = 50, tasks: int = 600) -> None:
    """Throughput with and without 50 watchers on one batch, interleaved."""
    with upstream("--latency", "0.2", "--tps", "100", "--tokens", "60") as up, stage(up.url) as stand:
        found: dict[bool, list[float]] = {False: [], True: []}
        worker = stand.start_worker("qwen", "-c", "64")
        same = 0
        for turn in range(6):
            watched = bool(turn % 2)
            stand.query("TRUNCATE batch, conversation CASCADE")
            with held_back(stand):
                watched_id = stand.submit("watched", "qwen+tokens=800").batch_id  # for as long as the load lasts
                _load(stand, tasks, ["qwen"])
                replayed: list[str] = []
                watching = (stand, watched_id, replayed)
                threads = [threading.Thread(target=_watch, args=watching) for _ in range(number * watched)]
                for thread in threads:
                    thread.start()
            all_done(stand, tasks + 1, timeout_s=120)
            found[watched].append(tasks / _span_s(stand, "qwen2.5"))
            for thread in threads:
                thread.join()
            final = stand.batch(watched_id).tasks[0].response_text
            same += sum(text == final for text in replayed)
        plain, seen = (statistics.median(found[watched]) for watched in (False, True))
        print(f"watchers: {plain:.0f} tasks/s without, {seen:.0f} with {number} watchers on a batch: "
              f"{100 * (1 - seen / plain):.1f} % less; {same} of {3 * number} replays equal the final text; "
              f"worker {worker.pid and now_mb(worker.pid):.0f} MiB")  # fmt: skip


def _watch(stand: Stand, batch_id: str, replayed: list[str]) -> None:
    """Watch a batch to its end, and note the text that came by live."""
    from aitask_cli.watching import follow

    said: dict[tuple[str, int], list[str]] = {}
    with stand.db() as db:
        live = servers.live_reader(stand.settings)
        read = live.read

        def noting(*args: Any, **more: Any) -> Any:
            pieces = read(*args, **more)
            for piece in pieces or []:
                if not piece.reasoning:
                    said.setdefault((piece.task_id, piece.attempt), []).append(piece.text)
            return pieces

        live.read = noting  # type: ignore[method-assign]
        for _ in follow(db, live, batch_id, wait_s=None, step_s=0.5, notice=lambda said: None):
            pass
        live.close()
    replayed += ["".join(parts) for parts in said.values()]


def huge(tasks: int = 8) -> None:
    """Memory growth for bodies of 100 MB."""
    with upstream() as up, stage(up.url) as stand:
        worker = stand.start_worker()
        stand.finished(stand.submit("warm", "qwen").batch_id)
        before = peak_mb(worker.pid)
        made = [stand.submit(f"p{n}", "qwen+huge").batch_id for n in range(tasks)]
        kinds = {stand.finished(batch_id).tasks[0].error_kind for batch_id in made}
        print(f"huge: {tasks} bodies of 100 MB at once: {kinds}, memory grew by {peak_mb(worker.pid) - before:.0f} MiB")


def kill(tasks: int = 3000) -> None:
    """kill -9 of one of two workers in mid-load, restarted after 1 s."""
    with mock(2.0) as up, stage(up.url) as stand:
        _load(stand, tasks // 3)
        workers = [stand.start_worker("-c", "500") for _ in range(2)]
        wait_for(lambda: up.stats()["calls"] > tasks // 3, what="mid-load")
        in_flight = stand.query("SELECT count(*) FROM task WHERE status = 3")[0][0]
        os.kill(workers[0].pid, signal.SIGKILL)
        killed = time.monotonic()
        time.sleep(1)
        stand.start_worker("-c", "500")
        all_done(stand, tasks, timeout_s=120)
        took = time.monotonic() - killed
        answered = stand.query("SELECT count(*) FROM task WHERE status = 1")[0][0]
        lease_s = stand.settings.lease_s
        print(f"kill: lost {tasks - answered}, doubled {up.stats()['calls'] - tasks} "
              f"(in flight at the kill, both workers: {in_flight}), "
              f"done {took:.1f} s after it (lease {lease_s:g} s)")  # fmt: skip


def bulk(prompts: int = 10_000) -> None:
    """Bulk submission, next to nothing but the rows and nothing but the hints."""
    with stage("http://127.0.0.1:9") as stand, stand.db() as db, stand.streams() as streams:
        plans = [plan(Request(prompt=f"prompt {n}", models=MODELS), stand.settings) for n in range(prompts)]
        began = time.monotonic()
        tasks = sum(some.tasks for some in submit_all(db, streams, plans))
        ours = tasks / (time.monotonic() - began)
        began = time.monotonic()
        for start in range(0, tasks, 1500):
            streams.send(("bare", str(number)) for number in range(start, start + 1500))
        hints = tasks / (time.monotonic() - began)
        stand.query("CREATE TABLE bare (id uuid PRIMARY KEY, batch_id uuid, model text, family text, at timestamptz)")
        began = time.monotonic()
        for _ in range(0, tasks, 1500):
            stand.query(
                "INSERT INTO bare SELECT gen_random_uuid(), gen_random_uuid(), 'qwen', 'qwen', now()"
                " FROM generate_series(1, 1500)"
            )
        rows = tasks / (time.monotonic() - began)
        print(f"bulk: {ours:.0f} tasks/s; hints alone, pipelined: {hints:.0f}/s; bare rows alone: {rows:.0f}/s")


def growth() -> None:
    """Idle dispatch, submission and the rate with ever more waiting tasks and finished rows."""
    with mock() as up, stage(up.url) as stand:
        for waiting, finished in ((1000, 0), (10_000, 0), (100_000, 0), (10_000, 1_000_000)):
            _grown(stand, up, waiting, finished)


def _grown(stand: Stand, up: Upstream, waiting: int, finished: int) -> None:
    stand.query("TRUNCATE batch, conversation CASCADE")
    with stand.streams() as streams:
        streams.client.flushall()
    _fill(stand, finished)
    worker = stand.start_worker("-c", "128")
    idle = statistics.median(_dispatch_ms(stand, up, 60))
    postgres = server_pids(stand.servers)["postgres"]
    with held_back(stand), stand.db() as db, stand.streams() as streams:
        checked = plan(Request(prompt="x", models=MODELS), stand.settings)
        for _ in submit_all(db, streams, [checked] * (waiting // 3)):
            pass
        stand.query("ANALYZE")
        own, server = time.process_time(), cpu_s(postgres)
        for _ in range(300):
            submit(db, streams, checked)
        own, server = time.process_time() - own, cpu_s(postgres) - server
        pids = {**server_pids(stand.servers), "worker": worker.pid}
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        calls = up.stats()["calls"]
    wait_for(lambda: up.stats()["calls"] - calls >= 1800, what="1,800 calls")
    done = up.stats()["calls"] - calls
    used = {name: 1000 * (cpu_s(pid) - before[name]) / done for name, pid in pids.items()}
    worker.kill()
    print(f"growth: {waiting:,} waiting, {finished:,} finished: processor ms per task "
          + ", ".join(f"{name} {ms:.2f}" for name, ms in used.items())
          + f", together {sum(used.values()):.2f}; per submission of three: client {own / 0.3:.2f}, "
          f"postgres {server / 0.3:.2f}; idle dispatch before, p50 {idle:.1f} ms", flush=True)  # fmt: skip


def memory(calls: int = 3000, waiting: int = 30_000) -> None:
    """What one held call costs the worker, and one waiting task the servers."""
    with mock(8.0) as up, stage(up.url) as stand:
        worker = stand.start_worker("-c", str(calls + 200))
        before = now_mb(worker.pid)
        with held_back(stand):
            _load(stand, calls // 3)
        wait_for(lambda: up.stats()["open_now"] == calls, what="the calls")
        held_kb = 1024 * (now_mb(worker.pid) - before) / calls
    with stage("http://127.0.0.1:9") as stand, stand.db() as db, stand.streams() as streams:
        plans = [plan(Request(prompt="x", models=MODELS), stand.settings) for _ in range(waiting // 3)]
        empty = streams.client.info("memory")["used_memory"], stand.query(_DATABASE_BYTES)[0][0]
        for _ in submit_all(db, streams, plans):
            pass
        full = streams.client.info("memory")["used_memory"], stand.query(_DATABASE_BYTES)[0][0]
        valkey, postgres = ((after - before) / waiting for before, after in zip(empty, full, strict=True))
    print(f"memory: a held call {held_kb:.1f} KiB of the worker ({before:.0f} MiB without any); "
          f"a waiting task {valkey:.0f} bytes of Valkey and {postgres:.0f} of the database on disk, "
          "its third of a batch and a conversation included; for watchers see the measure gateway")  # fmt: skip


_DATABASE_BYTES = "SELECT pg_database_size(current_database())"


def _fill(stand: Stand, finished: int) -> None:
    if not finished:
        return
    one = "00000000-0000-4000-8000-000000000001"
    stand.query("INSERT INTO conversation (id, title) VALUES (%s, 'history')", one)
    stand.query("INSERT INTO batch (id, conversation_id, prompt) VALUES (%s, %s, 'history')", one, one)
    stand.query(
        "INSERT INTO task (id, batch_id, position, model, family, status, attempt, response_text, finished_at)"
        " SELECT gen_random_uuid(), %s, 0, 'qwen', 'qwen', 1, 1, repeat('answer ', 20), now()"
        " FROM generate_series(1, %s)",
        one,
        finished,
    )


MEASURES = {
    "held": held,
    "rate": rate,
    "dispatch": dispatch,
    "watchers": watchers,
    "huge": huge,
    "kill": kill,
    "outage": outage,
    "gateway": gateway,
    "strangers": strangers,
    "neighbours": neighbours,
    "bulk": bulk,
    "growth": growth,
    "memory": memory,
}
