"""Every fault of the simulator, for every family, through a worker: the expected status and error kind."""

from __future__ import annotations

from shared.domain import TaskStatus
from tests.integration.test_upstream import BEHAVIOURS, MATRIX
from tests.stand import Stand

NAMES = ("GEMINI", "LLM", "DEEPSEEK")
# With a key, a 401 is a wrong key; without one, gemini's is an expired sign-in.
LIMITS = (
    {f"{name}_IDLE_TIMEOUT_S": "3" for name in NAMES}
    | {f"{name}_QUEUE_S": "1" for name in NAMES}
    | {f"{name}_API_KEY": "sk-x" for name in NAMES}
)
# Answered differently once an endpoint is known not to stream, or never ended by itself: tested on their own.
ELSEWHERE = {"nostream", "429"}


def test_every_fault_of_every_family_ends_as_its_kind_and_the_worker_lives(stand: Stand) -> None:
    faults = [fault for fault in MATRIX if fault not in ELSEWHERE]
    made = [stand.submit("hello", *(f"{family}+{fault}" for fault in faults)) for family in BEHAVIOURS]
    # Every transient error is final here, and all calls begin at once, before any breaker opens.
    worker = stand.start_worker("-c", "200", AITASK_MAX_FAILURES="1", **LIMITS)
    tasks = [task for one in made for task in stand.finished(one.batch_id, timeout_s=180).tasks]
    found = {task.model: (task.status, task.error_kind) for task in tasks}
    expected = {
        f"{family}+{fault}": (TaskStatus.FAILED if MATRIX[fault][0] else TaskStatus.SUCCESS, MATRIX[fault][0])
        for fault in faults
        for family in BEHAVIOURS
    }
    assert found == expected
    assert all(task.error_msg for task in tasks if task.status is TaskStatus.FAILED)
    assert worker.poll() is None
    print(f"{len(tasks)} calls: {len(faults)} faults x {len(BEHAVIOURS)} families, each as expected")


def test_a_keyless_endpoint_that_refuses_a_model_alone_ends_as_failed(stand: Stand) -> None:
    stand.start_worker("gemini", AITASK_MAX_FAILURES="2")
    made = stand.submit("hello", "gemini+401")
    [task] = stand.finished(made.batch_id).tasks
    assert (task.status, task.error_kind) == (TaskStatus.FAILED, "signed_out")
    assert stand.query("SELECT count(*) FROM family_pause") == [(0,)]
