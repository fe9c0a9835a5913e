"""A claim that was committed and whose reply was lost: its tasks are nobody's, and must not wait for a lease."""

from __future__ import annotations

from pathlib import Path

from shared.domain import TaskStatus
from tests.acceptance.accounting import account, witness
from tests.stand import Stand, altered

LOSING = """
from shared.errors import DatabaseUnavailable
from shared.store import claims
really, lost = claims.claim, []
def claim(*args, **more):
    found = really(*args, **more)
    if found[0] and not lost:
        lost.append(True)
        raise DatabaseUnavailable("the reply was lost", unknown=True)
    return found
claims.claim = claim
"""


def test_tasks_of_a_claim_whose_reply_was_lost_are_taken_up_at_once_and_at_no_cost(
    stand: Stand, tmp_path: Path
) -> None:
    witness(stand)
    made = [stand.submit(f"p{n}", "qwen") for n in range(3)]
    stand.start_worker("qwen", command=altered(tmp_path, LOSING), AITASK_LEASE_S="60")
    for one in made:
        (task,) = stand.finished(one.batch_id, timeout_s=30).tasks
        assert (task.status, task.rescues) == (TaskStatus.SUCCESS, 0)
    assert "a claim's reply was lost" in stand.logs()
    account(stand, {one.task_ids[0] for one in made})
    assert stand.upstream.calls == 3
