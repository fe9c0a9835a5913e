"""A process that dies at each point between its steps: nothing is lost, and what was recorded is not done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.domain import TaskStatus
from shared.streams import FIELD
from tests.acceptance.accounting import account, witness
from tests.stand import Stand, altered, wait_for

# Each point's name, and what makes a process die there.
SUBMITTER = {
    "commit": """
import os
from shared import submission
written = submission.write
def write(*args, **more):
    written(*args, **more)
    os._exit(9)
submission.write = write
""",
    "XADD": """
import os
from shared.streams import Streams
sent = Streams.send
def send(self, hints):
    sent(self, hints)
    os._exit(9)
Streams.send = send
""",
}
WORKER = {
    "read": """
import os
from shared.streams import HintReader
really = HintReader.read
async def read(self, *args, **more):
    hints = await really(self, *args, **more)
    if hints:
        os._exit(9)
    return hints
HintReader.read = read
""",
    "claim": """
import os
from shared.store import claims
really = claims.claim
def claim(*args, **more):
    if really(*args, **more)[0]:
        os._exit(9)
    return [], {}
claims.claim = claim
""",
    "call": """
import asyncio, os
from workers.upstream import UpstreamClient
really = UpstreamClient.complete
async def complete(self, task, behaviour, on_piece):
    asyncio.get_running_loop().call_later(0.2, os._exit, 9)
    return await really(self, task, behaviour, on_piece)
UpstreamClient.complete = complete
""",
    "record": """
import os
from shared.store import work
really = work.record
def record(*args, **more):
    really(*args, **more)
    os._exit(9)
work.record = record
""",
    "dead letter": """
import os
from shared.streams import HintReader
really = HintReader.bury
async def bury(self, hints, *, reason):
    await really(self, hints, reason=reason)
    if hints:
        os._exit(9)
HintReader.bury = bury
""",
}


def submitters_die(stand: Stand, tmp_path: Path, point: str, times: int) -> None:
    witness(stand)
    command = altered(tmp_path, SUBMITTER[point])
    for number in range(times):
        assert stand.aitask("ask", f"p{number}", "-m", "qwen,gemini", "-d", command=command).code == 9
    stand.start_worker()
    account(stand, set())
    assert stand.query("SELECT status, count(*) FROM task GROUP BY status") == [(1, 2 * times)]
    assert stand.upstream.calls == 2 * times


def workers_die(stand: Stand, tmp_path: Path, point: str, times: int) -> None:
    witness(stand)
    command = altered(tmp_path, WORKER[point])
    model = "qwen+latency=1" if point == "call" else "qwen"
    submitted = set()
    for number in range(times):
        if point == "dead letter":
            with stand.streams() as streams:
                streams.client.xadd(f"{stand.namespace}:tasks:qwen", {FIELD: "no such thing"})
        else:
            submitted.add(stand.submit(f"p{number}", model).task_ids[0])
        worker = stand.start_worker("qwen", ready=False, command=command, AITASK_LEASE_S="60")
        wait_for(lambda worker=worker: worker.poll() is not None, what=f"the death at the {point}")
        assert worker.returncode == 9, stand.logs()
    # What the dead held is taken up when their leases are over; for the test that is now.
    stand.query("UPDATE task SET lease_until = now() WHERE status = 3")
    stand.query("UPDATE worker SET heartbeat_at = now() - interval '1 hour'")
    submitted.add(stand.submit("the last", "qwen").task_ids[0])
    stand.start_worker("qwen", AITASK_LEASE_S="2")
    account(stand, submitted)
    assert {status for (status,) in stand.query("SELECT status FROM task")} == {TaskStatus.SUCCESS}
    once = len(submitted)
    # Only a call that was under way is made twice.
    assert stand.upstream.calls == (once + times if point == "call" else once)
    if point == "dead letter":
        with stand.streams() as streams:
            assert len(streams.dead_letters()) == times


# The quick suite has the points that leave the most behind; all of them, twenty times each, are in the long one.
@pytest.mark.parametrize("point", ["commit"])
def test_a_submitter_that_dies_loses_no_batch_that_was_stored(stand: Stand, tmp_path: Path, point: str) -> None:
    submitters_die(stand, tmp_path, point, 1)


@pytest.mark.parametrize("point", ["read", "claim", "record"])
def test_a_worker_that_dies_loses_nothing(stand: Stand, tmp_path: Path, point: str) -> None:
    workers_die(stand, tmp_path, point, 1)


@pytest.mark.soak
@pytest.mark.parametrize("point", SUBMITTER)
def test_a_submitter_that_dies_twenty_times(stand: Stand, tmp_path: Path, point: str) -> None:
    submitters_die(stand, tmp_path, point, 20)


@pytest.mark.soak
@pytest.mark.parametrize("point", WORKER)
def test_a_worker_that_dies_twenty_times(stand: Stand, tmp_path: Path, point: str) -> None:
    workers_die(stand, tmp_path, point, 20)
