"""Workers as processes: answers, retries, crashes, the stop."""

from __future__ import annotations

import signal
import time

import pytest

from shared.domain import TaskStatus
from shared.store import fleet
from tests.stand import Stand, wait_for
from workers.worker import DRAIN_S, GOODBYE_S, INTAKE_S, RECORD_S

SHORT = {"AITASK_LEASE_S": "1.5"}


def nothing_left_in_redis(stand: Stand, *families: str) -> bool:
    with stand.streams() as streams:
        for family in families:
            name = f"{stand.namespace}:tasks:{family}"
            groups = streams.client.xinfo_groups(name) if streams.client.exists(name) else []
            if streams.client.xlen(name) or any(group["pending"] for group in groups):
                return False
    return True


def test_a_batch_for_three_families_is_answered_and_its_hints_are_gone(stand: Stand) -> None:
    stand.start_worker()
    made = stand.submit("hello", "gemini", "qwen", "deepseek+think")
    batch = stand.finished(made.batch_id)
    assert [task.status for task in batch.tasks] == [TaskStatus.SUCCESS] * 3
    assert all("Simulated answer" in task.response_text for task in batch.tasks)
    assert batch.tasks[2].reasoning_text
    assert stand.upstream.calls == 3
    wait_for(lambda: nothing_left_in_redis(stand, "gemini", "qwen", "deepseek"), what="empty streams")


def test_a_worker_serves_only_the_families_named(stand: Stand) -> None:
    stand.start_worker("qwen")
    made = stand.submit("hello", "gemini", "qwen")
    wait_for(lambda: stand.batch(made.batch_id).tasks[1].status is TaskStatus.SUCCESS)
    assert stand.batch(made.batch_id).tasks[0].status is TaskStatus.PENDING


def test_an_unknown_family_is_a_usage_error(stand: Stand) -> None:
    found = stand.aitask("worker", "claude")
    assert found.code == 2
    assert "claude" in found.err


def test_a_transient_error_is_retried_and_every_attempt_listed(stand: Stand) -> None:
    stand.start_worker()
    made = stand.submit("hello", "qwen+500x1")
    batch = stand.finished(made.batch_id)
    assert (batch.tasks[0].status, batch.tasks[0].failures, batch.tasks[0].attempt) == (TaskStatus.SUCCESS, 1, 2)
    rows = stand.query(
        "SELECT number, outcome, error_kind, http_status, worker IS NOT NULL FROM attempt ORDER BY number"
    )
    assert rows == [(1, "retry", "http_500", 500, True), (2, "answered", None, 200, True)]


def test_no_call_is_made_before_retry_after(stand: Stand) -> None:
    stand.start_worker()
    made = stand.submit("hello", "qwen+429x1+retry-after=2")
    batch = stand.finished(made.batch_id)
    first, second = (seen["at"] for seen in stand.upstream.simulator.seen)
    assert second - first >= 2
    assert (batch.tasks[0].failures, batch.tasks[0].status) == (0, TaskStatus.SUCCESS)


def test_a_permanent_error_fails_at_once_with_its_reason(stand: Stand) -> None:
    stand.start_worker()
    made = stand.submit("hello", "qwen+400", "gemini+refusal")
    batch = stand.finished(made.batch_id)
    assert [(task.status, task.error_kind) for task in batch.tasks] == [
        (TaskStatus.FAILED, "http_400"), (TaskStatus.FAILED, "refused"),
    ]  # fmt: skip
    assert "bad request" in batch.tasks[0].error_msg


def test_a_killed_worker_s_task_is_answered_by_another_and_recorded_once(stand: Stand) -> None:
    first = stand.start_worker(**SHORT)
    made = stand.submit("hello", "qwen+latency=3")
    wait_for(lambda: stand.upstream.calls == 1, what="the call")
    first.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    stand.start_worker(**SHORT)
    wait_for(lambda: stand.upstream.calls == 2, what="the second call")
    print(f"called again {time.monotonic() - killed_at:.1f} s after the kill")
    batch = stand.finished(made.batch_id)
    assert (batch.tasks[0].status, batch.tasks[0].rescues, batch.tasks[0].failures) == (TaskStatus.SUCCESS, 1, 0)
    rows = stand.query("SELECT outcome FROM attempt ORDER BY number")
    assert rows == [("lease_expired",), ("answered",)]
    wait_for(lambda: nothing_left_in_redis(stand, "qwen"), what="empty streams")


def test_a_frozen_worker_that_wakes_records_nothing_stale(stand: Stand) -> None:
    frozen = stand.start_worker(**SHORT)
    made = stand.submit("hello", "qwen+latency=1")
    wait_for(lambda: stand.upstream.calls == 1, what="the call")
    frozen.send_signal(signal.SIGSTOP)
    stand.start_worker(**SHORT)
    batch = stand.finished(made.batch_id)
    answered_by = batch.tasks[0].worker
    frozen.send_signal(signal.SIGCONT)
    wait_for(lambda: "was not recorded" in stand.logs() or "lost" in stand.logs(), what="the refusal")
    again = stand.batch(made.batch_id)
    assert (again.tasks[0].worker, again.tasks[0].attempt) == (answered_by, 2)
    assert again.tasks[0].finished_at == batch.tasks[0].finished_at


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_hands_its_tasks_back_and_exits_0_in_time(stand: Stand, sign: signal.Signals) -> None:
    worker = stand.start_worker()
    made = stand.submit("hello", "qwen+latency=60", "gemini+latency=60")
    wait_for(lambda: stand.upstream.calls == 2, what="the calls")
    asked_at = time.monotonic()
    worker.send_signal(sign)
    assert worker.wait(30) == 0
    # Its own bounds add up to less than 4 s; a machine that stalls may stretch them.
    assert DRAIN_S + INTAKE_S + RECORD_S + GOODBYE_S < 4
    assert time.monotonic() - asked_at < 9
    batch = stand.batch(made.batch_id)
    assert {(t.status, t.failures, t.rescues) for t in batch.tasks} == {(TaskStatus.PENDING, 0, 0)}
    stand.start_worker()
    wait_for(lambda: stand.upstream.calls == 4, timeout_s=20, what="the calls taken up elsewhere")
    with stand.db() as db:
        assert len(fleet.workers(db)) == 1


def test_a_task_longer_than_its_lease_is_called_once(stand: Stand) -> None:
    stand.start_worker(**SHORT)
    stand.start_worker(**SHORT)
    made = stand.submit("hello", "qwen+latency=5")
    batch = stand.finished(made.batch_id)
    assert batch.tasks[0].attempt == 1
    assert stand.upstream.calls == 1


def test_flushall_loses_nothing(stand: Stand) -> None:
    ids = [stand.submit(f"p{n}", "qwen").batch_id for n in range(20)]
    with stand.streams() as streams:
        streams.client.flushall()
    stand.start_worker()
    for batch_id in ids:
        assert stand.finished(batch_id).tasks[0].status is TaskStatus.SUCCESS
    assert stand.upstream.calls == 20


def test_slots_bound_the_calls_at_once(stand: Stand) -> None:
    stand.start_worker("qwen", "-c", "3")
    made = [stand.submit(f"p{n}", "qwen+latency=0.2").batch_id for n in range(9)]
    for batch_id in made:
        stand.finished(batch_id)
    assert stand.upstream.simulator.open_most == 3


def test_a_paused_family_waits_and_others_go_on(stand: Stand) -> None:
    stand.start_worker()
    with stand.db() as db:
        fleet.pause(db, "qwen", kind="operator", reason="upkeep", for_s=None)
        wait_for(
            lambda: any("paused" in w.state.get("qwen", {}) for w in fleet.workers(db)) or None,
            timeout_s=15, what="the pause to be seen",
        )  # fmt: skip
        made = stand.submit("hello", "qwen", "gemini")
        wait_for(lambda: stand.batch(made.batch_id).tasks[1].status is TaskStatus.SUCCESS)
        assert stand.batch(made.batch_id).tasks[0].status is TaskStatus.PENDING
        fleet.resume(db, "qwen")
    assert stand.finished(made.batch_id).tasks[0].status is TaskStatus.SUCCESS


def test_an_endpoint_that_is_down_is_left_alone_until_it_is_back(stand: Stand) -> None:
    stand.upstream.simulator.down = True
    stand.start_worker("-c", "4")
    made = [stand.submit(f"p{n}", "qwen").batch_id for n in range(30)]
    wait_for(lambda: "breaker" in str(stand.query("SELECT state FROM worker")) or stand.upstream.calls >= 5)
    calls = stand.upstream.calls
    assert calls < 20
    stand.upstream.simulator.down = False
    for batch_id in made:
        assert stand.finished(batch_id, timeout_s=60).tasks[0].status is TaskStatus.SUCCESS


def test_malformed_entries_are_buried_and_do_no_harm(stand: Stand) -> None:
    with stand.streams() as streams:
        for number in range(50):
            streams.client.xadd(f"{stand.namespace}:tasks:qwen", {"junk": str(number)})
        streams.send([("qwen", "00000000-0000-7000-8000-000000000000")])
        made = stand.submit("hello", "qwen")
        worker = stand.start_worker()
        assert stand.finished(made.batch_id).tasks[0].status is TaskStatus.SUCCESS
        wait_for(lambda: streams.client.xlen(f"{stand.namespace}:sys_dead_letters") == 51, what="51 dead letters")
    assert worker.poll() is None
    wait_for(lambda: nothing_left_in_redis(stand, "qwen"), what="empty streams")
