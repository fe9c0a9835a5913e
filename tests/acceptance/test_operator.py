"""The operator's commands: pending, queue, explain, retry, cancel, dlq."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from aitask_cli.explaining import Facts, explain
from aitask_cli.pending import State, state_of
from shared.domain import Cooldown, Pause, TaskStatus, WorkerView
from shared.settings import settings_from
from shared.store.operate import TaskRow
from shared.store.recovery import Holder
from shared.streams import PendingEntry
from tests.stand import Stand, wait_for
from tests.unit.test_words import task


def said(stand: Stand, *arguments: str, **env: str) -> Any:
    found = stand.aitask(*arguments, "--json", **env)
    assert found.code == 0, found.err
    return json.loads(found.out)


def test_pending_joins_entries_with_tasks_and_hides_prompts(stand: Stand) -> None:
    # Long enough that a stall of the machine does not end the lease before the kill.
    worker = stand.start_worker(AITASK_LEASE_S="8")
    made = stand.submit("a secret plan", "qwen+latency=60")
    wait_for(lambda: stand.upstream.calls == 1, what="the call")
    listed = stand.aitask("pending", "--json")
    [entry] = json.loads(listed.out)["pending"]
    assert (entry["state"], entry["task"], entry["model"]) == ("running", made.task_ids[0], "qwen+latency=60")
    assert entry["lease_left"] > 0
    assert "secret plan" not in listed.out
    assert "secret plan" in stand.aitask("pending", "--content").out
    assert said(stand, "pending", "--orphaned")["pending"] == []
    assert said(stand, "pending", "--idle", "10m")["pending"] == []
    worker.send_signal(signal.SIGKILL)
    orphans = wait_for(lambda: said(stand, "pending", "--orphaned")["pending"], what="the orphan")
    assert orphans[0]["task"] == made.task_ids[0]
    assert stand.aitask("pending", "--claim").code == 2
    assert stand.aitask("pending", "--claim", "--yes").code == 0
    assert said(stand, "pending")["pending"] == []


def test_pending_s_actions_fail_and_drop(stand: Stand) -> None:
    stand.start_worker()
    made = stand.submit("hello", "qwen+latency=60", "gemini+latency=60")
    wait_for(lambda: stand.upstream.calls == 2, what="the calls")
    assert stand.aitask("pending", "--family", "qwen", "--fail", "--reason", "too slow", "--yes").code == 0
    assert stand.aitask("pending", "--family", "gemini", "--drop", "--yes").code == 0
    batch = stand.batch(made.batch_id)
    assert (batch.tasks[0].status, batch.tasks[0].error_msg) == (TaskStatus.FAILED, "too slow")
    assert batch.tasks[1].status is TaskStatus.PROCESSING
    assert said(stand, "pending")["pending"] == []


def test_a_cancelled_batch_ends_and_its_running_call_is_stopped(stand: Stand) -> None:
    stand.start_worker(AITASK_LEASE_S="1.5")
    made = stand.submit("hello", "qwen+latency=60", "gemini+429+retry-after=600", "deepseek")
    wait_for(lambda: stand.batch(made.batch_id).tasks[2].status is TaskStatus.SUCCESS)
    wait_for(lambda: stand.upstream.simulator.open_now == 1, what="the running call")
    first = stand.aitask("cancel", made.batch_id)
    assert "2 of 3" in first.err
    assert "0 of 3" in stand.aitask("cancel", made.batch_id).err
    batch = stand.batch(made.batch_id)
    assert [t.error_kind for t in batch.tasks] == ["cancelled", "cancelled", None]
    wait_for(lambda: stand.upstream.simulator.open_now == 0, timeout_s=20, what="the call's end")
    assert stand.aitask("show", made.batch_id).code == 3


def test_a_failed_task_is_retried_in_place_and_keeps_its_attempts(stand: Stand) -> None:
    stand.start_worker()
    made = stand.submit("hello", "qwen+400x1", "gemini")
    assert stand.finished(made.batch_id).tasks[0].status is TaskStatus.FAILED
    assert "1 of 2" in stand.aitask("retry", made.batch_id).err
    batch = stand.finished(made.batch_id)
    assert (batch.tasks[0].status, batch.tasks[0].attempt, batch.tasks[0].failures) == (TaskStatus.SUCCESS, 2, 0)
    rows = stand.query("SELECT number, outcome FROM attempt WHERE task_id = %s ORDER BY number", made.task_ids[0])
    assert rows == [(1, "failed"), (2, "answered")]
    assert stand.upstream.calls == 3, "what was answered is not asked again"


def test_retry_by_name_and_all_that_failed(stand: Stand) -> None:
    stand.start_worker()
    made = stand.submit("hello", "qwen+400x1", "gemini+400x1", "deepseek+500x1")
    ended = [TaskStatus.FAILED, TaskStatus.FAILED, TaskStatus.SUCCESS]
    wait_for(lambda: [t.status for t in stand.batch(made.batch_id).tasks] == ended)
    stand.query("UPDATE task SET status = 0, run_at = now() + interval '1 hour' WHERE id = %s", made.task_ids[2])
    assert stand.aitask("retry").code == 2
    assert stand.aitask("retry", f"{made.batch_id[:8]}.9").code == 1
    assert "1 of 1" in stand.aitask("retry", f"{made.batch_id[:8]}/deepseek+500x1").err
    assert "1 of 1" in stand.aitask("retry", f"{made.batch_id[:8]}.1").err
    assert "1 of 1" in stand.aitask("retry", "--failed").err
    assert {t.status for t in stand.finished(made.batch_id).tasks} == {TaskStatus.SUCCESS}


def test_queue_shows_what_waits_and_a_pause_survives_a_restart(stand: Stand) -> None:
    assert stand.aitask("queue", "pause", "qwen", "--reason", "upkeep", "--for", "10m").code == 0
    assert stand.aitask("queue", "pause", "claude").code == 2
    made = stand.submit("hello", "qwen", "gemini")
    stand.start_worker()
    wait_for(lambda: stand.batch(made.batch_id).tasks[1].status is TaskStatus.SUCCESS)
    found = {row["family"]: row for row in said(stand, "queue")["queues"]}
    assert (found["qwen"]["waiting"], found["qwen"]["paused"], found["qwen"]["workers"]) == (1, "upkeep", 1)
    assert found["qwen"]["lag"] == 1
    assert found["qwen"]["oldest"] > 0
    [why] = [e for e in said(stand, "explain", made.batch_id)["explanations"] if e["model"] == "qwen2.5"]
    assert (why["kind"], why["remedy"]) == ("paused", "aitask queue resume qwen")
    assert stand.aitask("queue", "resume", "qwen").code == 0
    assert stand.finished(made.batch_id).tasks[0].status is TaskStatus.SUCCESS


def test_dead_letters_are_listed_shown_put_back_and_removed(stand: Stand) -> None:
    with stand.streams() as streams:
        streams.client.xadd(f"{stand.namespace}:tasks:qwen", {"junk": "\x1b[31mx"})
    worker = stand.start_worker()
    [letter] = wait_for(lambda: said(stand, "dlq", "ls")["dead_letters"], what="the letter")
    assert letter["fields"] == {"junk": "\x1b[31mx"}
    assert "\x1b" not in stand.aitask("dlq", "ls").out
    assert stand.aitask("dlq", "show", letter["id"]).code == 0
    assert stand.aitask("dlq", "show", "1-1").code == 1
    assert stand.aitask("dlq", "retry", letter["id"]).code == 0
    [again] = wait_for(lambda: said(stand, "dlq", "ls")["dead_letters"], what="the letter's return")
    assert again["id"] != letter["id"]
    assert stand.aitask("dlq", "rm", "--all").code == 2
    assert stand.aitask("dlq", "rm", "--all", "--yes").code == 0
    assert said(stand, "dlq", "ls")["dead_letters"] == []
    assert worker.poll() is None


def test_explain_names_a_missing_worker_and_a_missing_table(stand: Stand) -> None:
    made = stand.submit("hello", "qwen")
    [found] = said(stand, "explain", made.task_ids[0])["explanations"]
    assert (found["kind"], found["remedy"]) == ("no_worker", "aitask worker qwen")
    assert "no worker serves" in stand.aitask("explain").out


WORKER = {"id": "w", "host": "h", "pid": 1, "families": ("f",), "slots": 2, "in_flight": 0, "started_at": None}
FAMILY = settings_from({}).families[0]
HOLDER = Holder(pid=7, name="worker:lost:1:abc", host="10.0.0.7", state="idle in transaction", for_s=9.0)
DOWN_STATE = {"down": {"part": "aitask worker f", "families": ["f"], "said": "5 ends in 10 min"}}
DOWN = WorkerView(**{**WORKER, "families": (), "heartbeat_age_s": 1.0, "version": "1", "state": DOWN_STATE})


def facts(**more: Any) -> Facts:
    state = more.pop("state", {})
    in_flight = more.pop("in_flight", 0)
    worker = WorkerView(
        **{**WORKER, "in_flight": in_flight, "heartbeat_age_s": 1.0, "version": "1", "state": {"f": state}}
    )
    values = {"task": task(), "family": None, "workers": [worker], "pauses": [], "max_failures": 5, **more}
    return Facts(**values)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (facts(task=task(status=TaskStatus.SUCCESS)), "answered"),
        (facts(task=task(status=TaskStatus.FAILED, error_kind="http_400")), "failed"),
        (facts(task=task(status=TaskStatus.PROCESSING, lease_left_s=9.0, worker="w")), "running"),
        (facts(task=task(status=TaskStatus.PROCESSING, lease_left_s=-1.0, worker="w")), "lease_expired"),
        (facts(pauses=[Pause("f", "upkeep", "operator", None)]), "paused"),
        (facts(workers=[]), "no_worker"),
        (facts(workers=[], family=FAMILY), "key_missing"),
        (facts(task=task(run_in_s=12.0, error_kind="http_429")), "http_429"),
        (facts(state={"breaker": {"error": "refused", "probe_in_s": 3}}), "breaker"),
        (facts(task=task(run_in_s=3.0), cooldowns=[Cooldown("f", "m", "slow down", 3.0)]), "cooling"),
        (facts(in_flight=2), "slots_busy"),
        (facts(), "next"),
        (facts(task=task(status=TaskStatus.PROCESSING, lease_left_s=-1.0, worker="w"), turn=HOLDER), "recovery_held"),
        (facts(row=HOLDER), "row_locked"),
        (facts(workers=[DOWN]), "down"),
    ],
)
def test_the_one_reason_is_the_first_that_holds(given: Facts, kind: str) -> None:
    found = explain(given)
    assert found.kind == kind
    assert found.why
    if kind in ("recovery_held", "row_locked"):
        assert "worker:lost:1:abc on 10.0.0.7" in found.why
        assert "pg_terminate_backend(7)" in found.remedy


def row(status: int, lease: float | None, worker: str) -> TaskRow:
    return TaskRow("t", "b", "m", TaskStatus(status), 1, worker, lease)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (None, State.HINT_ONLY),
        (row(1, None, "c"), State.HINT_ONLY),
        (row(3, 9.0, "c"), State.RUNNING),
        (row(3, 9.0, "another"), State.HINT_ONLY),
        (row(3, -1.0, "c"), State.ORPHANED),
        (row(0, None, "c"), State.ORPHANED),
    ],
)
def test_what_a_pending_entry_is_follows_from_the_lease(found: TaskRow | None, state: State) -> None:
    assert state_of(PendingEntry("f", "1-0", "c", 100.0, 1, "t"), found) is state
