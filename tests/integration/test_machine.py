"""A state machine over the store and the streams, against a model: whatever the order, the invariants hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from shared.domain import Claimed, Finished, TaskStatus
from shared.store import claims, operate, read, recovery, work
from shared.store.claims import Terms
from shared.store.engine import Database
from shared.streams import Streams
from tests import history
from tests.history import Operation
from tests.stand import Stand

MAX_RESCUES = 3


def terms(worker: str) -> Terms:
    return Terms(worker, 600.0, 3600.0, MAX_RESCUES)


def machine(stand: Stand, db: Database, streams: Streams) -> type[RuleBasedStateMachine]:
    """Make the machine for one stand; each of its runs begins with empty tables."""

    class Tasks(RuleBasedStateMachine):
        held = Bundle("held")

        def __init__(self) -> None:
            super().__init__()
            stand.query("TRUNCATE batch, conversation, history CASCADE")
            streams.client.flushall()
            # The model: of each task its status, its fence, and the text it was answered with.
            self.status: dict[str, TaskStatus] = {}
            self.attempt: dict[str, int] = {}
            self.text: dict[str, str | None] = {}
            self.operations: list[Operation] = []

        @rule(number=st.integers(1, 3))
        def submit(self, number: int) -> None:
            made = stand.submit("hello", *[f"qwen{n}" for n in range(number)])
            self.operations.append(Operation("submit", "ok", made.task_ids, batch_id=made.batch_id))
            for task_id in made.task_ids:
                self.status[task_id], self.attempt[task_id], self.text[task_id] = TaskStatus.PENDING, 0, None

        @rule(target=held, worker=st.sampled_from("ab"), most=st.integers(1, 3))
        def claim(self, worker: str, most: int) -> Any:
            ids = [i for i, status in self.status.items() if status is TaskStatus.PENDING][:most]
            claimed, _ = claims.claim(db, ids, terms(worker))
            return self._took(claimed)

        @rule(target=held, worker=st.sampled_from("ab"))
        def claim_without_hints(self, worker: str) -> Any:
            return self._took(claims.claim_due(db, "qwen", terms(worker), most=2))

        @rule(target=held, worker=st.sampled_from("ab"))
        def claim_suspect(self, worker: str) -> Any:
            task = claims.claim_suspect(db, ["qwen"], terms(worker))
            return self._took([task] if task else [])

        def _took(self, claimed: list[Claimed]) -> Any:
            for task in claimed:
                assert self.status[task.id] is TaskStatus.PENDING
                assert task.attempt == self.attempt[task.id] + 1
                self.status[task.id], self.attempt[task.id] = TaskStatus.PROCESSING, task.attempt
            return multiple(*claimed)

        def _holds(self, task: Claimed) -> bool:
            return self.status[task.id] is TaskStatus.PROCESSING and self.attempt[task.id] == task.attempt

        @rule(task=consumes(held), ends=st.sampled_from(["answer", "fail", "retry", "back"]))
        def finish(self, task: Claimed, ends: str) -> None:
            text = f"{task.id} {task.attempt}"
            result = {
                "answer": Finished(
                    id=task.id, attempt=task.attempt, status=TaskStatus.SUCCESS, outcome="answered", response_text=text
                ),
                "fail": Finished(
                    id=task.id, attempt=task.attempt, status=TaskStatus.FAILED, outcome="failed", error_kind="http_400"
                ),
                "retry": Finished(
                    id=task.id, attempt=task.attempt, status=TaskStatus.PENDING, outcome="retry", counts_failure=True
                ),
                "back": work.handed_back(task),
            }[ends]
            written = work.record(db, [result])
            assert (task.id in written) == self._holds(task), "the fence decides, and nothing else"
            if written:
                self.status[task.id] = result.status
                self.text[task.id] = text if ends == "answer" else None

        @rule(task=held)
        def heartbeat(self, task: Claimed) -> None:
            kept = work.heartbeat(db, [(task.id, task.attempt)], lease_s=600)
            assert (task.id in kept) == self._holds(task)

        @rule()
        def expire(self) -> None:
            stand.query("UPDATE task SET lease_until = now() - interval '1 s' WHERE status = 3")
            with recovery.tick(db, max_rescues=MAX_RESCUES) as turn:
                assert turn is not None
                ended = dict(turn.expire_leases())
            running = {i for i, status in self.status.items() if status is TaskStatus.PROCESSING}
            assert set(ended) == running
            for task_id, kind in ended.items():
                self.status[task_id] = TaskStatus.FAILED if kind == "poison" else TaskStatus.PENDING

        @rule()
        def flush(self) -> None:
            streams.client.flushall()

        @rule(data=st.data())
        def cancel(self, data: st.DataObject) -> None:
            if self.status:
                task_id = data.draw(st.sampled_from(list(self.status)))
                ended = operate.cancel(db, [task_id])
                assert bool(ended) == (not self.status[task_id].terminal)
                if ended:
                    self.status[task_id], self.attempt[task_id] = TaskStatus.FAILED, self.attempt[task_id] + 1

        @rule(data=st.data())
        def retry(self, data: st.DataObject) -> None:
            failed = [i for i, status in self.status.items() if status is TaskStatus.FAILED]
            if failed:
                task_id = data.draw(st.sampled_from(failed))
                assert operate.retry(db, [task_id]) == [("qwen", task_id)]
                self.operations.append(Operation("retry", "ok", (task_id,)))
                self.status[task_id] = TaskStatus.PENDING

        @rule()
        def reconcile(self) -> None:
            with recovery.tick(db, max_rescues=MAX_RESCUES) as turn:
                assert turn is not None
                owed = turn.take_unhinted("qwen", turn.clock().now)
            assert {self.status[task_id] for task_id in owed} <= {TaskStatus.PENDING}
            streams.send(("qwen", task_id) for task_id in owed)

        @invariant()
        def the_database_says_what_the_model_says(self) -> None:
            for task_id, status in self.status.items():
                view = read.task(db, task_id)
                assert (view.status, view.attempt) == (status, self.attempt[task_id])
                if status is TaskStatus.SUCCESS:
                    assert view.response_text == self.text[task_id]

        def teardown(self) -> None:
            """What the database wrote down is replayed too. All workers are this process: who wrote it says nothing."""
            final = {i: (status, attempt, text) for i, status, attempt, text in stand.query(_FINAL)}
            changes = [replace(change, writer=change.holder or "") for change in history.read(stand.query)]
            assert history.check(history.History(changes, self.operations, final=final)) == []

    return Tasks


_FINAL = "SELECT id::text, status, attempt, response_text FROM task"


def test_in_whatever_order_things_happen_the_fence_and_the_states_hold(stand: Stand) -> None:
    stand.query(history.WITNESS)
    with stand.db() as db, stand.streams() as streams:
        run_state_machine_as_test(
            machine(stand, db, streams),
            settings=settings(
                max_examples=12, stateful_step_count=20, deadline=None,
                suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate, Phase.shrink),
            ),
        )  # fmt: skip


@pytest.mark.soak
def test_the_same_at_length(stand: Stand) -> None:
    stand.query(history.WITNESS)
    with stand.db() as db, stand.streams() as streams:
        run_state_machine_as_test(
            machine(stand, db, streams),
            settings=settings(
                max_examples=500, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )  # fmt: skip
