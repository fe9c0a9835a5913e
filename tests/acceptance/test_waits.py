"""Waits: an endpoint that takes a call in so many seconds answers every task, however it says so; others don't wait."""

from __future__ import annotations

import time

import pytest

from shared.domain import BULK, NewBatch, NewTask, TaskStatus
from shared.ids import new_id, new_ordered_id
from shared.store.submit import Bulk, submit_many
from tests.stand import Stand, wait_for

WAYS = {"429": "in a header", "429body": "in the body", "429bare": "nowhere"}


def submit_bulk(stand: Stand, model: str, tasks: int) -> None:
    made = [
        Bulk(
            NewBatch(id=new_id(), prompt=f"p{n}", tasks=(NewTask(new_ordered_id(), model, "qwen"),), lane=BULK),
            new_id(),
        )
        for n in range(tasks)
    ]
    with stand.db() as db, stand.streams() as streams:
        for start in range(0, tasks, 1000):
            submit_many(db, made[start : start + 1000])
        streams.send([("qwen", one.batch.tasks[0].id) for one in made])


def all_answered(stand: Stand, *, timeout_s: float) -> None:
    def ended() -> bool:
        return stand.query("SELECT count(*) FROM task WHERE status IN (0, 3)") == [(0,)]

    wait_for(ended, timeout_s=timeout_s, what="the end of every task")
    assert stand.query("SELECT DISTINCT status, failures FROM task") == [(int(TaskStatus.SUCCESS), 0)]


def one_call_each(stand: Stand, fault: str, *, tasks: int, every_s: float, timeout_s: float) -> None:
    submit_bulk(stand, f"qwen+{fault}+every={every_s:g}", tasks)
    stand.start_worker("qwen")
    began = time.monotonic()
    all_answered(stand, timeout_s=timeout_s)
    took = time.monotonic() - began
    (attempts,) = stand.query("SELECT count(*) FROM attempt")[0]
    print(f"{WAYS[fault]}: {tasks} answered in {took:.0f} s with {stand.upstream.calls} calls, {attempts} attempts")
    assert attempts == stand.upstream.calls, "a task that is passed over has no attempt"
    assert stand.upstream.calls < 64 + 6 * tasks


@pytest.mark.parametrize("fault", WAYS)
def test_a_slow_endpoint_answers_all_however_it_names_its_wait(stand: Stand, fault: str) -> None:
    one_call_each(stand, fault, tasks=6, every_s=0.4, timeout_s=90)


@pytest.mark.soak
@pytest.mark.parametrize("fault", WAYS)
def test_sixty_tasks_at_one_call_in_three_seconds(stand: Stand, fault: str) -> None:
    one_call_each(stand, fault, tasks=60, every_s=3.0, timeout_s=1500)


def others_pass(stand: Stand, *, waiting: int, within_s: float) -> None:
    first = stand.submit("first", "qwen+429+retry-after=60")
    stand.start_worker("qwen")
    wait_for(lambda: stand.query("SELECT 1 FROM model_cooldown WHERE until > now()"), what="the cooldown")
    submit_bulk(stand, "qwen+429+retry-after=60", waiting)
    began = time.monotonic()
    made = [stand.submit(f"other {n}", "qwen:b") for n in range(10)]

    def called() -> bool:
        return sum(n for (model, _), n in stand.upstream.simulator.calls.items() if model == "qwen:b") == 10

    wait_for(called, what="the other model's calls")
    took = time.monotonic() - began
    print(f"behind {waiting} of a cooled model 10 of another were called after {took:.2f} s")
    for one in made:
        stand.finished(one.batch_id)
    passed = "SELECT count(*) FROM task WHERE model LIKE %s AND attempt = 0 AND deadline_at IS NULL AND run_at > now()"
    wait_for(
        lambda: stand.query(passed, "qwen+%") == [(waiting,)], timeout_s=120, what="all of the cooled model passed over"
    )
    assert stand.batch(first.batch_id).tasks[0].attempt == 1
    assert stand.query("SELECT count(*) FROM attempt") == [(stand.upstream.calls,)]
    assert took < within_s


def test_tasks_behind_a_cooled_model_s_are_not_held_up(stand: Stand) -> None:
    others_pass(stand, waiting=3000, within_s=10)


@pytest.mark.soak
def test_ten_tasks_behind_a_hundred_thousand_of_a_cooled_model(stand: Stand) -> None:
    others_pass(stand, waiting=100_000, within_s=10)


def test_a_wait_of_nothing_does_not_make_a_storm(stand: Stand) -> None:
    made = stand.submit("hello", "qwen+429+retry-after=0")
    stand.start_worker("qwen")
    wait_for(lambda: stand.upstream.calls >= 3, what="three calls")
    gaps = stand.query("SELECT extract(epoch FROM ended_at)::float FROM attempt ORDER BY number")
    assert gaps[1][0] - gaps[0][0] >= 0.9
    assert stand.aitask("cancel", made.batch_id, "--yes").code in (0, 2)
