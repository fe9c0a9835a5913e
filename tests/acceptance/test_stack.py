"""The stack starts and stays: killed parts come back, one that has nothing to do stays, servers may be late."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aitask_cli.local.process import exists
from shared.domain import TaskStatus
from tests.acceptance.accounting import account, witness
from tests.stand import COMMAND, RunningSimulator, Servers, Stand, altered, new_stand, wait_for

PROCFILE = Path(__file__).parents[2] / "Procfile"
FAMILIES = ("gemini", "qwen", "deepseek")


class Started:
    """A command under way, its words in a file."""

    def __init__(self, stand: Stand, *command: str, **env: str) -> None:
        self.log = stand.home / f"started-{time.monotonic_ns()}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, env={**stand.env, "AITASK_GATEWAY_PORT": "0", **env}, cwd=stand.home,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, words: str, *, times: int = 1) -> str:
        wait_for(
            lambda: self.said.count(words) >= times or self.process.poll() is not None, what=f"{words!r} in {self.said}"
        )
        assert self.said.count(words) >= times, self.said
        return self.said

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)


@contextlib.contextmanager
def started(stand: Stand, *command: str, **env: str) -> Iterator[Started]:
    made = Started(stand, *command, **env)
    try:
        yield made
    finally:
        made.end()


def honcho(stand: Stand, **env: str) -> contextlib.AbstractContextManager[Started]:
    return started(stand, str(COMMAND.with_name("honcho")), "-f", str(PROCFILE), "start", **env)


def parts(pid: int) -> dict[str, int]:
    """The processes below one that run aitask, without those that supervise: pid by command line."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        line = " ".join(Path(f"/proc/{child}/cmdline").read_text().split("\0")).strip()
        if "--lifeline" in line:
            found[line.split(" -m aitask_cli ")[-1].split(" --log-format")[0]] = int(child)
        with contextlib.suppress(OSError):
            found |= parts(int(child))
    return found


@pytest.fixture
def own_stand(own_servers: Callable[[], Servers], upstream: RunningSimulator, tmp_path: Path) -> Iterator[Stand]:
    made = new_stand(own_servers(), upstream, tmp_path / "home", AITASK_LEASE_S="2")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("unset", "ready"),
    [
        (("GEMINI_SERVICE_URL", "DEEPSEEK_SERVICE_URL"), ["qwen"]),
        (("GEMINI_SERVICE_URL",), ["qwen", "deepseek"]),
        ((), ["qwen", "deepseek", "gemini"]),
    ],
)
def test_the_stack_starts_and_stays_with_whatever_keys_there_are(
    stand: Stand, unset: tuple[str, ...], ready: list[str]
) -> None:
    with honcho(stand, **dict.fromkeys(unset, "")) as stack:
        stack.says("the gateway listens")
        stack.says("is ready", times=len(ready))
        if unset:
            stack.says("stays idle", times=1 + len(unset))
        made = stand.submit("hello", *ready)
        batch = stand.finished(made.batch_id)
        assert {task.status for task in batch.tasks} == {TaskStatus.SUCCESS}
        assert stack.process.poll() is None
        assert stack.end() in (0, 143, -15)


def test_families_that_settings_add_are_served_by_the_procfile_too(stand: Stand) -> None:
    stand.more = {"AITASK_FAMILIES": "openai", "OPENAI_SERVICE_URL": stand.upstream.url, "OPENAI_MODELS": "gpt-*"}
    with honcho(stand) as stack:
        stack.says("is ready", times=4)
        made = stand.submit("hello", "gpt-5")
        assert stand.finished(made.batch_id).tasks[0].status is TaskStatus.SUCCESS


def test_every_part_that_is_killed_is_back_and_postgresql_may_restart(own_stand: Stand) -> None:
    witness(own_stand)
    with honcho(own_stand) as stack:
        stack.says("the gateway listens")
        stack.says("is ready", times=3)
        before = wait_for(lambda: found if len(found := parts(stack.process.pid)) == 5 else None, what="five parts")
        made = own_stand.submit("in flight", *(f"{family}+latency=4" for family in FAMILIES))
        wait_for(lambda: own_stand.upstream.simulator.open_now == 3, what="calls in flight")
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        killed = set(before.values())

        def back() -> bool:
            now = set(parts(stack.process.pid).values())
            return len(now) == 5 and not now & killed

        wait_for(back, what="five parts again")
        own_stand.servers.stop_postgres_at_once()
        own_stand.servers.postgres.start()
        batch = own_stand.finished(made.batch_id)
        assert {task.status for task in batch.tasks} == {TaskStatus.SUCCESS}
        stack.says("the gateway listens", times=2)
        account(own_stand, set(made.task_ids))
        assert stack.process.poll() is None


def test_a_supervisor_that_is_killed_leaves_no_worker_behind(stand: Stand) -> None:
    with started(stand, str(COMMAND), "worker", "qwen", "--restart") as supervisor:
        supervisor.says("is ready")
        [pid] = parts(supervisor.process.pid).values()
        supervisor.process.kill()
        supervisor.process.wait(10)
        wait_for(lambda: not exists(pid), what="the worker's end")


def test_workers_and_gateway_wait_for_a_postgresql_that_is_away(own_stand: Stand) -> None:
    own_stand.servers.stop_postgres_at_once()
    try:
        with started(own_stand, str(COMMAND), "worker", "qwen") as stopped:
            stopped.says("waiting for PostgreSQL")
            assert stopped.end() == 0
        with (
            started(own_stand, str(COMMAND), "worker", "qwen") as worker,
            started(own_stand, str(COMMAND), "gateway") as gateway,
        ):
            worker.says("waiting for PostgreSQL")
            gateway.says("waiting for PostgreSQL")
            own_stand.servers.postgres.start()
            worker.says("is ready")
            gateway.says("the gateway listens")
    finally:
        own_stand.servers.postgres.start()


@pytest.mark.parametrize("part", [("worker", "qwen"), ("worker", "qwen", "--restart"), ("gateway",)])
def test_a_database_that_is_missing_or_empty_ends_a_part_with_the_remedy(stand: Stand, part: tuple[str, ...]) -> None:
    missing = stand.aitask(*part, DATABASE_URL=stand.servers.dsn("nope"), timeout_s=30, AITASK_GATEWAY_PORT="0")
    assert missing.code == 69
    assert '"nope" does not exist' in missing.err
    assert "createdb" in missing.err
    empty = stand.aitask(*part, DATABASE_URL=stand.servers.dsn("postgres"), timeout_s=30, AITASK_GATEWAY_PORT="0")
    assert empty.code == 69
    assert "aitask db init" in empty.err


SHORT_LIVED = """
import os, time
from workers.worker import Worker
async def run(self):
    raise RuntimeError("born to die")
Worker.run = run
from aitask_cli import processes
processes._FIRST_AGAIN_S = processes._MOST_AGAIN_S = 0.01
start = processes.subprocess.Popen
def again(command, **more):
    return start([command[0], __file__, *command[command.index("worker") :]], **more)
processes.subprocess.Popen = again
"""


def test_a_part_that_ends_again_and_again_stays_down_and_everybody_says_so(stand: Stand, tmp_path: Path) -> None:
    made = stand.submit("hello", "qwen")
    command = altered(tmp_path, SHORT_LIVED)
    with started(stand, *command, "worker", "qwen", "--restart") as supervisor:
        supervisor.says("it stays down")
        assert supervisor.said.count("born to die") >= 5
        assert "Traceback" in supervisor.said
        assert supervisor.process.poll() is None
        wait_for(lambda: stand.query("SELECT 1 FROM worker WHERE state ? 'down'"), what="the row")
        for verb in (("ps",), ("explain", made.task_ids[0]), ("doctor",)):
            assert "stays down" in stand.aitask(*verb).out, verb
        assert supervisor.end() == 0
    assert stand.query("SELECT 1 FROM worker WHERE state ? 'down'") == []


FAILING_PART = """
import time
from shared.errors import AitaskError
from workers.{module} import {part}
real = {part}.{method}
def failing(self, *args):
    if self._{held}:
        time.sleep(0.5)
        raise RuntimeError("a bug in {part}")
    return real(self, *args)
{part}.{method} = failing
"""


@pytest.mark.parametrize(
    ("module", "part", "method", "held"),
    [("heartbeat", "Heartbeat", "beat", "holdings"), ("heartbeat", "LookOut", "renew", "holdings")],
)
def test_a_part_that_ends_hands_back_what_is_claimed_with_its_traceback(
    stand: Stand, tmp_path: Path, module: str, part: str, method: str, held: str
) -> None:
    """Seen: a heartbeat that had died while its worker went on, until good tasks were `poison`."""
    stand.more = {"AITASK_LEASE_S": "3"}
    command = altered(tmp_path, FAILING_PART.format(module=module, part=part, method=method, held=held))
    made = stand.submit("hello", "qwen+latency=60")
    worker = stand.start_worker("qwen", command=command)
    assert worker.wait(30) == 1
    said = stand.logs()
    assert f"a bug in {part}" in said
    assert "Traceback" in said
    assert stand.query("SELECT status, attempt, rescues, failures FROM task") == [(0, 1, 0, 0)]
    assert made.task_ids


WAITING_RESULT = """
import time
from shared.errors import DatabaseUnavailable
from shared.store import work
from workers.heartbeat import LookOut
real, asked = work.record, []
def record(db, results):
    asked.append(time.monotonic())
    if asked[-1] - asked[0] < 3:
        raise DatabaseUnavailable("away for 3 s")
    return real(db, results)
def renew(self):
    if asked:
        raise RuntimeError("a bug in LookOut")
work.record, LookOut.renew = record, renew
"""


def test_results_that_wait_are_recorded_before_a_broken_worker_ends(stand: Stand, tmp_path: Path) -> None:
    """A part breaks while PostgreSQL takes nothing for longer than a plain stop would wait."""
    stand.more = {"AITASK_LEASE_S": "6"}
    worker = stand.start_worker("qwen", command=altered(tmp_path, WAITING_RESULT))
    stand.submit("hello", "qwen")
    assert worker.wait(60) == 1
    assert "a bug in LookOut" in stand.logs()
    assert stand.query("SELECT status, attempt, rescues FROM task") == [(1, 1, 0)]


@pytest.fixture
def heard_sighup() -> Iterator[None]:
    """A suite that runs under nohup hands an ignored SIGHUP on to all it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_sighup_drains_as_sigterm_does(stand: Stand, heard_sighup: None) -> None:
    worker = stand.start_worker("qwen")
    stand.submit("hello", "qwen+latency=60")
    wait_for(lambda: stand.upstream.calls == 1, what="the call")
    worker.send_signal(signal.SIGHUP)
    assert worker.wait(30) == 0
    assert stand.query("SELECT status, rescues, failures FROM task") == [(0, 0, 0)]


IN_MID_TICK = """
import os, signal
from shared.store import recovery
def expire(self):
    os.kill(os.getpid(), signal.SIGSTOP)
recovery.Tick.expire_leases = expire
"""


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_machine_lost_in_mid_tick_stops_recovery_only_for_a_moment(own_stand: Stand, tmp_path: Path) -> None:
    """Its transaction stays open with the reconciler's turn in it; nobody resets the connection."""
    own_stand.more["AITASK_LEASE_S"] = "6"
    lost = own_stand.start_worker("qwen", command=altered(tmp_path, IN_MID_TICK), ready=False)
    wait_for(lambda: stopped(lost.pid), what="the worker stopped in mid-tick")
    made = own_stand.submit("hello", "qwen")
    own_stand.query(
        "UPDATE task SET status = 3, attempt = 1, worker = 'dead', started_at = now(),"
        " lease_until = now() - interval '1 s'"
    )
    own_stand.start_worker("qwen")
    batch = own_stand.finished(made.batch_id, timeout_s=30)
    assert (batch.tasks[0].status, batch.tasks[0].rescues) == (TaskStatus.SUCCESS, 1)
