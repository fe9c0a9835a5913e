"""The fault suite: real processes, real servers, real kills, and an accounting of every task."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alembic.command
import pytest

from shared.domain import TaskStatus
from shared.store import fleet, schema
from tests.acceptance.accounting import Chaos, account, violations, witness
from tests.inside import command
from tests.mutants import environment
from tests.stand import RunningSimulator, Servers, Stand, altered, new_stand, wait_for
from tests.wire import Wire

SEED = int(os.environ.get("AITASK_TEST_SEED", "20261123"))
SHORT = {"AITASK_LEASE_S": "2"}


@pytest.fixture
def own_stand(own_servers: Callable[[], Servers], upstream: RunningSimulator, tmp_path: Path) -> Stand:
    stand = new_stand(own_servers(), upstream, tmp_path / "home", **SHORT)
    witness(stand)
    return stand


def chaos(stand: Stand, seed: int, *, tasks: int, seconds: float, **more: Any) -> None:
    happening = Chaos(stand, seed, tasks=tasks, seconds=seconds, **more)
    try:
        happening.run()
        happening.restart()
        account(stand, happening.submitted, operations=happening.operations, seen=happening.seen, timeout_s=300)
        distinct = len(stand.upstream.simulator.calls)
        repeats = stand.upstream.calls - stand.query("SELECT count(*) FROM task")[0][0]
        print(f"tasks {len(happening.submitted)}, calls {stand.upstream.calls} of {distinct}, repeats {repeats}")
        assert repeats <= happening.allowed_repeats
    finally:
        happening.close()


def test_mixed_chaos_loses_nothing_and_doubles_only_what_was_in_flight(own_stand: Stand) -> None:
    chaos(own_stand, SEED, tasks=300, seconds=20, wired=True)


RELEASE_BEFORE, ITS_REVISION = "f2caa1f", "0002"


def release_before(directory: Path) -> tuple[str, ...]:
    """The command of the release before, from the history."""
    tree = directory / "before"
    tree.mkdir()
    archive = subprocess.run(
        ["git", "-C", str(Path(__file__).parents[2]), "archive", RELEASE_BEFORE], capture_output=True, check=False
    )
    if archive.returncode:
        pytest.fail(f"the release before is taken from git's history, and {RELEASE_BEFORE} is not in it here")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    return (str(environment(directory / "before-venv", tree).with_name("aitask")),)


def before_the_migrations(stand: Stand) -> None:
    """Make the stand's database anew as the release before knows it: it takes no other revision when it starts."""
    stand.servers.admin(f"DROP DATABASE {stand.database} WITH (FORCE)")
    stand.servers.admin(f"CREATE DATABASE {stand.database} TEMPLATE template0 ENCODING 'UTF8'")
    with stand.db() as db, schema.alembic_connection(db) as connection:
        alembic.command.upgrade(schema._alembic(connection), ITS_REVISION)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_mixed_chaos_of_both_releases_at_length(own_stand: Stand, tmp_path: Path, seed: int) -> None:
    """A worker of the release before is there when the migrations come, and works on beside ours."""
    command_before = release_before(tmp_path)
    before_the_migrations(own_stand)
    with Wire(own_stand) as wire:
        old = own_stand.start_worker("-c", "16", command=command_before, **wire.variables)
        with own_stand.db() as db:
            schema.upgrade(db)
        witness(own_stand)
        made = own_stand.submit("through the migrations", "qwen")
        own_stand.finished(made.batch_id)
        inside = command(tmp_path, seed=seed, probability=0.02)
        chaos(own_stand, seed, tasks=4000, seconds=90, wired=True, inside=inside, old=old)


UNFENCED = """
from shared.store import work
for form in ("prepare", "plain"):
    fenced = getattr(work._RECORD, form)
    unfenced = fenced.replace("AND t.attempt = r.attempt", "").replace("t.status + 0 = 3", "true")
    assert unfenced.count("attempt = r.attempt") == 0
    setattr(work._RECORD, form, unfenced)
"""


def freeze_and_wake(stand: Stand, command: tuple[str, ...] | None) -> None:
    """One worker sleeps through its lease in mid-call and then delivers."""
    more = {"command": command} if command else {}
    frozen = stand.start_worker("qwen", **more)
    made = stand.submit("hello", "qwen+latency=1")
    wait_for(lambda: stand.upstream.calls == 1, what="the call")
    frozen.send_signal(signal.SIGSTOP)
    stand.start_worker("qwen", **more)
    stand.finished(made.batch_id)
    frozen.send_signal(signal.SIGCONT)
    # It beats and delivers what it has before it can take anything new.
    later = stand.submit("later", "qwen")
    stand.finished(later.batch_id)
    frozen.terminate()
    frozen.wait(30)


def test_a_stale_result_is_refused_by_the_fence(own_stand: Stand) -> None:
    try:
        freeze_and_wake(own_stand, None)
        assert violations(own_stand) == []
    finally:
        own_stand.close()


def test_the_suite_notices_when_the_fence_is_gone(own_stand: Stand, tmp_path: Path) -> None:
    try:
        freeze_and_wake(own_stand, altered(tmp_path, UNFENCED))
        assert violations(own_stand) != []
    finally:
        own_stand.close()


def test_a_killed_worker_s_calls_are_claimed_again_within_the_lease(stand: Stand) -> None:
    witness(stand)
    ids = [stand.submit(f"p{n}", "qwen+latency=6") for n in range(25)]
    first = stand.start_worker("qwen", **SHORT)
    wait_for(lambda: stand.upstream.simulator.open_now == 25, what="25 calls in flight")
    stand.start_worker("qwen", **SHORT)
    first.kill()
    killed = time.monotonic()
    wait_for(lambda: stand.upstream.calls >= 50, what="the calls claimed again")
    took = time.monotonic() - killed
    print(f"claimed again after {took:.1f} s")
    account(stand, {made.task_ids[0] for made in ids})
    # The lease and two seconds, and as much again three times for a machine that stalls.
    assert took < (2 + 2) * 4


KILLER = """
import os
from workers.families import generic
plain = generic.Behaviour.payload
def payload(self, task):
    if "die" in task.prompt:
        os._exit(9)
    return plain(self, task)
generic.Behaviour.payload = payload
"""


def poisoned(stand: Stand, tmp_path: Path, *, others: int) -> None:
    witness(stand)
    command = altered(tmp_path, KILLER)
    # All in one claim: none of the others may be taken for the killer.
    ids = [stand.submit(f"p{n}", "qwen+latency=0.2").batch_id for n in range(others)]
    poison = stand.submit("die", "qwen").batch_id
    env = {"AITASK_LEASE_S": "3"}
    workers = [stand.start_worker("qwen", "-c", "64", ready=False, command=command, **env)]

    def ended() -> bool:
        if workers[-1].poll() is not None:
            workers.append(stand.start_worker("qwen", "-c", "64", ready=False, command=command, **env))
        return stand.query("SELECT count(*) FROM task WHERE status IN (0, 3)") == [(0,)]

    wait_for(ended, timeout_s=150, what="the end of every task")
    [task] = stand.batch(poison).tasks
    assert (task.status, task.error_kind, task.rescues) == (TaskStatus.FAILED, "poison", 3)
    assert {stand.batch(b).tasks[0].status for b in ids} == {TaskStatus.SUCCESS}
    assert sum(worker.poll() == 9 for worker in workers) == 3
    assert violations(stand) == []


def test_a_task_that_kills_its_worker_ends_as_poison_and_harms_no_other(stand: Stand, tmp_path: Path) -> None:
    poisoned(stand, tmp_path, others=15)


@pytest.mark.soak
def test_a_task_that_kills_its_worker_harms_none_of_sixty_three(stand: Stand, tmp_path: Path) -> None:
    poisoned(stand, tmp_path, others=63)


def test_unread_entries_trimmed_by_another_program_are_sent_again(stand: Stand) -> None:
    with stand.db() as db:
        fleet.pause(db, "qwen", kind="operator", reason="test", for_s=None)
    witness(stand)
    ids = [stand.submit(f"p{n}", "qwen").task_ids[0] for n in range(20)]
    stand.start_worker()
    with stand.streams() as streams:
        streams.client.xtrim(f"{stand.namespace}:tasks:qwen", maxlen=0, approximate=False)
    began = time.monotonic()
    with stand.db() as db:
        fleet.resume(db, "qwen")
    wait_for(lambda: stand.upstream.calls > 0, what="moving again")
    print(f"moving again after {time.monotonic() - began:.1f} s")
    account(stand, set(ids))


@pytest.mark.parametrize(("setting", "value"), [("maxmemory", "1"), ("min-replicas-to-write", "3")])
def test_a_redis_that_takes_no_writes_costs_only_time(own_stand: Stand, setting: str, value: str) -> None:
    try:
        own_stand.start_worker()
        with own_stand.streams() as streams:
            streams.client.config_set(setting, value)
        found = own_stand.aitask("ask", "hello", "-m", "qwen")
        assert found.code == 0, found.err
        assert "Redis is not available" in found.err
    finally:
        own_stand.close()


def fuzzed(stand: Stand, *, bad: int, good: int) -> None:
    witness(stand)
    with stand.streams() as streams:
        pipe = streams.client.pipeline(transaction=False)
        for number in range(bad):
            fields = [{"task": os.urandom(16)}, {"x": str(number)}, {"task": "1", "y": "2"}][number % 3]
            pipe.xadd(f"{stand.namespace}:tasks:qwen", fields)
        pipe.execute()
        ids: set[str] = set()
        for start in range(0, good, 50):
            ids |= {*stand.submit("good", *(f"qwen+n{n}" for n in range(start, start + 50))).task_ids}
        worker = stand.start_worker()
        account(stand, ids)
        wait_for(lambda: len(streams.dead_letters()) == bad, what="every dead letter")
    assert worker.poll() is None
    assert stand.upstream.calls == good


def test_fuzzed_entries_among_good_ones_end_as_dead_letters(stand: Stand) -> None:
    fuzzed(stand, bad=1000, good=50)


@pytest.mark.soak
def test_ten_thousand_fuzzed_entries_among_a_thousand_good_ones(stand: Stand) -> None:
    fuzzed(stand, bad=10_000, good=1000)
