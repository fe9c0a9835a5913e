"""Servers that hang, fill up, lose what they hold or tell the wrong time, and workers that are told to stop."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.domain import TaskStatus
from tests.acceptance.accounting import account, witness
from tests.stand import COMMAND, RunningSimulator, Servers, Stand, altered, new_stand, wait_for


@pytest.fixture
def own_stand(own_servers: Callable[[], Servers], upstream: RunningSimulator, tmp_path: Path) -> Iterator[Stand]:
    made = new_stand(own_servers(), upstream, tmp_path / "home", AITASK_LEASE_S="2")
    witness(made)
    yield made
    made.close()


def valkey_pid(servers: Servers) -> int:
    found = re.search(rb"process_id:(\d+)", servers.valkey._say(b"INFO server\r\n"))
    assert found is not None
    return int(found[1])


def cut_off_from_redis(stand: Stand, *, seconds: float, tasks: int) -> None:
    """Redis neither answers nor refuses; the calls under way and those that wait go on all the same."""
    worker = stand.start_worker("-c", str(tasks * 2))
    running = [stand.submit(f"p{n}", f"qwen+latency={seconds * 0.7}").task_ids[0] for n in range(tasks)]
    wait_for(lambda: stand.upstream.simulator.open_now == tasks, what="calls in flight")
    pid = valkey_pid(stand.servers)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        later = stand.submit("meanwhile", "gemini")
        assert not later.hinted
        stand.finished(later.batch_id)
        wait_for(
            lambda: stand.query("SELECT count(*) FROM task WHERE status = 1") == [(tasks + 1,)],
            timeout_s=seconds + 60, what="every answer while Redis hangs",
        )  # fmt: skip
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    finally:
        os.kill(pid, signal.SIGCONT)
    account(stand, {*running, *later.task_ids})
    assert stand.upstream.calls == tasks + 1
    assert worker.poll() is None


def test_a_worker_cut_off_from_redis_in_mid_call_repeats_no_call(own_stand: Stand) -> None:
    cut_off_from_redis(own_stand, seconds=6, tasks=10)


@pytest.mark.soak
def test_a_worker_cut_off_from_redis_for_a_minute(own_stand: Stand) -> None:
    cut_off_from_redis(own_stand, seconds=60, tasks=50)


def leases_long(stand: Stand, *, tasks: int, lease_s: int) -> None:
    ids = {stand.submit(f"p{n}", f"qwen+latency={5 * lease_s}").task_ids[0] for n in range(tasks)}
    for _ in range(2):
        stand.start_worker("qwen", "-c", str(tasks), AITASK_LEASE_S=str(lease_s))
    account(stand, ids)
    assert stand.upstream.calls == tasks


@pytest.mark.soak
def test_five_hundred_calls_of_five_leases_length_are_made_once(own_stand: Stand) -> None:
    leases_long(own_stand, tasks=500, lease_s=4)


SHIFTED = """
import time
real = time.time
time.time = lambda: real() + {seconds}
"""


@pytest.mark.parametrize("seconds", [600, pytest.param(-600, marks=pytest.mark.soak)])
def test_a_wrong_clock_ends_no_lease_early(own_stand: Stand, tmp_path: Path, seconds: int) -> None:
    wrong = altered(tmp_path, SHIFTED.format(seconds=seconds))
    lease = {"AITASK_LEASE_S": "8"}
    own_stand.start_worker("qwen", command=wrong, **lease)
    own_stand.start_worker("qwen", **lease)
    found = [own_stand.aitask("ask", f"p{n}", "-m", "qwen+latency=4", "-d", command=wrong) for n in range(3)]
    assert [result.code for result in found] == [0, 0, 0]
    account(own_stand, set())
    assert own_stand.upstream.calls == 3
    assert own_stand.query("SELECT max(attempt), max(rescues) FROM task") == [(1, 0)]


AHEAD = """
import datetime as dt
from shared.streams import Streams, Watermark
real = Streams.watermark
def watermark(self, family):
    found = real(self, family)
    shift = dt.timedelta(seconds={seconds})
    return found and Watermark(found.redis_now + shift, found.safe_until + shift)
Streams.watermark = watermark
"""


@pytest.mark.parametrize("seconds", [600, pytest.param(-600, marks=pytest.mark.soak)])
def test_a_redis_clock_apart_from_the_database_s_sends_no_backlog_again(
    own_stand: Stand, tmp_path: Path, seconds: int
) -> None:
    """A healthy backlog waits for longer than the watermark's grace, and each hint stays the only one."""
    ids = {own_stand.submit(f"p{n}", "qwen+latency=1").task_ids[0] for n in range(10)}
    own_stand.start_worker(
        "qwen", "-c", "1", AITASK_LEASE_S="8", command=altered(tmp_path, AHEAD.format(seconds=seconds))
    )
    name = f"{own_stand.namespace}:tasks:qwen"
    wait_for(lambda: own_stand.upstream.calls >= 9, what="the backlog's end")
    with own_stand.streams() as streams:
        assert streams.client.xinfo_stream(name)["entries-added"] == 10
    account(own_stand, ids)
    assert own_stand.upstream.calls == 10


def limit_file_size(pids: list[int], size: int) -> None:
    """Bound how large a file these processes may make. Only their own user may: a child becomes that user for it."""
    owner = os.stat(f"/proc/{pids[0]}")
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() != owner.st_uid:
                os.setgid(owner.st_gid)
                os.setuid(owner.st_uid)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def postgres_pids(servers: Servers) -> list[int]:
    parent = servers.postgres._pid()
    assert parent is not None
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def test_a_full_disk_refuses_submissions_whole_and_loses_no_result(own_stand: Stand) -> None:
    limit = 24 << 20
    # A table nearly as large as a file may get, of rows that fill their pages.
    made = own_stand.submit("filler", "qwen")
    own_stand.query("ALTER TABLE task ALTER response_text SET STORAGE PLAIN")
    own_stand.query("UPDATE task SET status = 1, response_text = repeat('x', 1850)")
    for _ in range(14):
        own_stand.query(
            "INSERT INTO task (id, batch_id, position, model, family, status, response_text)"
            " SELECT gen_random_uuid(), batch_id, 0, model, family, 1, response_text FROM task"
            " WHERE (SELECT count(*) FROM task) < 11500"
        )
    own_stand.query("TRUNCATE history")
    worker = own_stand.start_worker("qwen", AITASK_LEASE_S="8")
    running = [own_stand.submit(f"p{n}", "qwen+latency=4+tokens=900") for n in range(5)]
    wait_for(lambda: own_stand.upstream.simulator.open_now == 5, what="calls in flight")
    try:
        limit_file_size(postgres_pids(own_stand.servers), limit)
        # What room is left in the last pages is taken too.
        for length in (500, 0):
            wait_for(lambda length=length: not fits(own_stand, made.batch_id, length), what="a full table")
        before = own_stand.query("SELECT count(*) FROM batch")
        refused = own_stand.aitask("ask", "hello", "-m", "qwen", "-d")
        assert refused.code == 69, refused.err
        assert "nothing was submitted" in refused.err or "PostgreSQL" in refused.err
        assert own_stand.query("SELECT count(*) FROM batch") == before
        wait_for(lambda: "results wait" in own_stand.logs(), what="results that wait")
        assert own_stand.query("SELECT count(*) FROM task WHERE status = 3") == [(5,)]
    finally:
        limit_file_size(postgres_pids(own_stand.servers), resource.RLIM_INFINITY)
    account(own_stand, {made.task_ids[0] for made in running})
    assert own_stand.upstream.calls == 5
    assert worker.poll() is None


def fits(stand: Stand, batch_id: str, length: int) -> bool:
    import psycopg2

    try:
        stand.query(
            "INSERT INTO task (id, batch_id, position, model, family, status, response_text)"
            " SELECT gen_random_uuid(), %s, 0, 'm', 'qwen', 1, repeat('y', %s) FROM generate_series(1, 20)",
            batch_id,
            length,
        )
    except psycopg2.Error as error:
        print(f"full: {error.pgcode} {error}")
        return False
    return True


def redis_down_around_a_submit(stand: Stand, *, down_s: float) -> None:
    stand.start_worker()
    stand.servers.kill_valkey()
    began = time.monotonic()
    detached = stand.aitask("ask", "hello", "-m", "qwen,gemini", "-d")
    took = time.monotonic() - began
    waiting = subprocess.Popen(
        [str(COMMAND), "ask", "hello again", "-m", "qwen"], env=stand.env, cwd=stand.home,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, err = waiting.communicate(timeout=90)
    time.sleep(max(0.0, down_s - (time.monotonic() - began)))
    stand.servers.valkey.start()
    plain = time.monotonic()
    stand.aitask("--version")
    print(f"ask -d took {took:.2f} s without Redis; aitask --version {time.monotonic() - plain:.2f} s")
    assert (detached.code, waiting.returncode) == (0, 0), err
    assert "Redis is not available" in detached.err
    assert "imulated" in out
    batch = stand.finished(detached.out.strip())
    assert {task.status for task in batch.tasks} == {TaskStatus.SUCCESS}
    account(stand, set())
    assert stand.upstream.calls == 3


def test_redis_away_around_a_submit_costs_a_warning_and_nothing_else(own_stand: Stand) -> None:
    redis_down_around_a_submit(own_stand, down_s=0)


@pytest.mark.soak
def test_redis_away_for_a_minute_around_a_submit(own_stand: Stand) -> None:
    redis_down_around_a_submit(own_stand, down_s=60)


def postgresql_stopped(stand: Stand, downs_s: list[float]) -> None:
    worker = stand.start_worker("-c", "20", AITASK_LEASE_S="8")
    ids = []
    for turn, down_s in enumerate(downs_s):
        ids += [stand.submit(f"p{turn}.{n}", "qwen+latency=3") for n in range(10)]
        wait_for(lambda: stand.upstream.simulator.open_now > 0, what="calls in flight")
        stand.servers.stop_postgres_at_once()
        time.sleep(down_s)
        stand.servers.postgres.start()
    account(stand, {made.task_ids[0] for made in ids})
    assert worker.poll() is None
    assert stand.upstream.calls == 10 * len(downs_s)


def test_postgresql_stopped_while_calls_run_ends_no_worker_and_repeats_no_call(own_stand: Stand) -> None:
    postgresql_stopped(own_stand, [1.5, 1.5])


@pytest.mark.soak
def test_postgresql_stopped_five_times_and_once_for_two_minutes(own_stand: Stand) -> None:
    postgresql_stopped(own_stand, [1.5, 5, 120, 1.5, 10])


def flushed(stand: Stand, *, waiting: int, running: int) -> float:
    """Return how long it took until a call began that had not begun before FLUSHALL, in seconds."""
    for start in range(0, waiting + running, 60):
        models = [f"qwen+latency=2+n{n}" for n in range(start, min(start + 60, waiting + running))]
        stand.submit("flushed", *models)
    stand.start_worker("qwen", "-c", str(running))
    wait_for(lambda: stand.upstream.simulator.open_now >= running * 0.8, what="calls in flight")
    with stand.streams() as streams:
        streams.client.flushall()
    began, calls = time.monotonic(), stand.upstream.calls
    # Those under way end within 2 s; what begins after that was waiting.
    wait_for(lambda: stand.upstream.calls > calls + running // 10, what="moving again")
    took = time.monotonic() - began
    account(stand, set(), timeout_s=300)
    assert stand.upstream.calls == waiting + running
    return took


def test_flushall_with_many_waiting_and_some_running_repeats_no_call(stand: Stand) -> None:
    witness(stand)
    took = flushed(stand, waiting=180, running=60)
    print(f"moving again {took:.1f} s after FLUSHALL")
    assert took < 30


@pytest.mark.soak
def test_flushall_with_two_thousand_waiting(stand: Stand) -> None:
    witness(stand)
    took = flushed(stand, waiting=2000, running=100)
    print(f"moving again {took:.1f} s after FLUSHALL")
    assert took < 30


def test_sigterm_with_long_calls_hands_them_on_at_once(stand: Stand) -> None:
    witness(stand)
    for number in range(20):
        stand.submit(f"p{number}", "qwen+latency=60")
    first = stand.start_worker("qwen", "-c", "40")
    wait_for(lambda: stand.upstream.simulator.open_now == 20, what="calls in flight")
    second = stand.start_worker("qwen", "-c", "40")
    began = time.monotonic()
    first.terminate()
    assert first.wait(30) == 0
    exit_s = time.monotonic() - began
    wait_for(
        lambda: stand.query("SELECT count(*) FROM task WHERE status = 3 AND attempt = 2") == [(20,)],
        what="the take-over",
    )
    print(f"exit after {exit_s:.1f} s, all taken up {time.monotonic() - began - exit_s:.1f} s later")
    assert exit_s < 5 * 3
    assert stand.query("SELECT sum(failures), sum(rescues) FROM task") == [(0, 0)]
    assert second.poll() is None
