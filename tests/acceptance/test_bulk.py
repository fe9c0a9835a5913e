"""Many prompts from a file, and several worker processes under one."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from shared.domain import TaskStatus
from tests.acceptance.accounting import account, witness
from tests.stand import COMMAND, Stand, wait_for


def test_every_line_becomes_a_batch_and_all_are_answered(stand: Stand) -> None:
    witness(stand)
    stand.start_worker()
    lines = ["first", "", '{"prompt": "second", "system": "be brief"}', *(f"p{n}" for n in range(600))]
    found = stand.aitask("bulk", "-", "-m", "qwen,gemini", "-o", "temperature", "0", stdin="\n".join(lines))
    assert found.code == 0, found.err
    assert "602 batches with 1,204 tasks are submitted" in found.err
    ids = found.out.split()
    assert len(set(ids)) == 602
    account(stand, set())
    first, second = stand.batch(ids[0]), stand.batch(ids[1])
    assert (first.prompt, second.prompt, second.system) == ("first", "second", "be brief")
    assert second.options == {"temperature": 0.0}
    assert [task.model for task in first.tasks] == ["qwen2.5", "gemini-3.5-flash-lite"]
    assert {task.status for task in (*first.tasks, *second.tasks)} == {TaskStatus.SUCCESS}
    assert stand.upstream.calls == 1204


def test_a_mark_at_the_start_of_a_file_is_no_part_of_its_first_line(stand: Stand) -> None:
    lines = b'\xef\xbb\xbf{"prompt": "first", "system": "be brief"}\n{"prompt": "second"}\n'
    (stand.home / "bom.jsonl").write_bytes(lines)
    for given in ("bom.jsonl", "-"):
        assert stand.aitask("bulk", given, "-m", "qwen", stdin=lines).code == 0
    found = stand.query("SELECT prompt, system FROM batch ORDER BY created_at, prompt")
    assert sorted(found, key=str) == [("first", "be brief")] * 2 + [("second", None)] * 2


def test_the_same_key_continues_where_a_submission_was_interrupted(stand: Stand) -> None:
    lines = [f"p{n}" for n in range(10)]
    first = stand.aitask("bulk", "-", "-m", "qwen", "--idempotency-key", "night", stdin="\n".join(lines[:4]))
    again = stand.aitask("bulk", "-", "-m", "qwen", "--idempotency-key", "night", stdin="\n".join(lines))
    assert again.out.split()[:4] == first.out.split()
    assert "6 batches with 6 tasks are submitted, 4 were there already" in again.err
    other = stand.aitask("bulk", "-", "-m", "gemini", "--idempotency-key", "night", stdin="\n".join([*lines, "new"]))
    assert (other.code, "was used for another request" in other.err) == (2, True)
    assert stand.query("SELECT count(*) FROM batch") == [(10,)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"good\n{bad\n", "line 2: it starts like JSON"),
        (b'good\n\n{"prompt": 1}\n', "line 3: the object has no text"),
        (b"good\n\xff\n", "is not UTF-8"),
        (b"good\nb\0d\n", "line 2: the prompt has a NUL"),
        (b"\n \n", "there is no prompt"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_submitted(stand: Stand, text: bytes, named: str) -> None:
    found = stand.aitask("bulk", "-", "-m", "qwen", stdin=text)
    assert (found.code, found.out) == (2, "")
    assert named in found.err
    assert stand.query("SELECT count(*) FROM batch") == [(0,)]


def test_worker_processes_are_started_again_and_stopped_together(stand: Stand) -> None:
    parent = subprocess.Popen(
        [str(COMMAND), "worker", "qwen", "--processes", "2"], env=stand.env, cwd=stand.home, stdin=subprocess.DEVNULL
    )

    def workers() -> set[int]:
        return {pid for (pid,) in stand.query("SELECT pid FROM worker WHERE heartbeat_at > now() - interval '30 s'")}

    try:
        first = wait_for(lambda: pids if len(pids := workers()) == 2 else None, what="two workers")
        assert parent.pid not in first
        os.kill(min(first), signal.SIGKILL)
        wait_for(lambda: len(workers() - first) == 1, what="another in its place")
        made = stand.submit("hello", "qwen")
        assert stand.finished(made.batch_id).tasks[0].status is TaskStatus.SUCCESS
        parent.terminate()
        assert parent.wait(30) == 0
        wait_for(lambda: workers() <= {min(first)}, what="the workers' leave")
    finally:
        if parent.poll() is None:
            parent.kill()
