"""PostgreSQL as others run it: a server that becomes read-only, a blip under a stream, and URLs as they are pasted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import openai

from tests.acceptance.accounting import account, witness
from tests.acceptance.over_http import running
from tests.stand import RunningSimulator, Servers, Stand, new_stand, wait_for

OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
REFUSED = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"


def test_a_server_that_becomes_read_only_costs_each_part_one_line_and_no_task(stand: Stand) -> None:
    witness(stand)
    stand.more["AITASK_LEASE_S"] = "6"
    worker = stand.start_worker("qwen", "-c", "2")
    ids = {i for n in range(6) for i in stand.submit(f"p{n}", "qwen+latency=1").task_ids}
    wait_for(lambda: stand.upstream.simulator.open_now == 2, what="calls in flight")
    stand.query(f"ALTER DATABASE {stand.database} SET default_transaction_read_only = on")
    stand.query(OTHERS)
    [(before,)] = stand.query(REFUSED)
    try:
        # Each try to write is refused, and rolled back.
        wait_for(lambda: stand.query(REFUSED)[0][0] > before + 12, what="a dozen refused writes")
        told = stand.aitask("ask", "-d", "meanwhile", "-m", "qwen")
        assert (told.code, "read-only" in told.err, "nothing was submitted" in told.err) == (69, True, True)
        assert "host1:5432,host2:5432" in told.err
        doctor = stand.aitask("doctor")
        assert doctor.code == 1
        assert "this server is read-only: nothing can be submitted" in doctor.out
    finally:
        stand.servers.admin(f"ALTER DATABASE {stand.database} RESET default_transaction_read_only")
    account(stand, ids)
    assert stand.upstream.calls == len(ids)
    assert worker.poll() is None
    said = Counter(re.findall(r" warning (.*?):", stand.logs()))
    assert sum(said.values()) >= 2
    assert max(said.values()) == 1, said


def test_parameters_of_other_people_s_clients_are_said_once_and_by_workers_and_doctor(stand: Stand) -> None:
    stand.more["DATABASE_URL"] = f"{stand.servers.dsn(stand.database)}&connection_limit=5&schema=public"
    said = "DATABASE_URL has parameters that mean nothing here and are ignored: connection_limit, schema"
    first, second = stand.aitask("ls"), stand.aitask("ls")
    assert [said in one.err for one in (first, second)] == [True, False]
    assert "connection_limit, schema" in stand.aitask("doctor").out
    stand.start_worker("qwen")
    assert said in stand.logs()


def test_a_running_openai_stream_outlives_a_blip_of_postgresql(
    own_servers: Callable[[], Servers], upstream: RunningSimulator, tmp_path: Path
) -> None:
    stand = new_stand(own_servers(), upstream, tmp_path / "home", AITASK_LEASE_S="6")
    stand.start_worker("qwen")
    said = []
    with running(stand) as gateway:
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0)
        asked = [{"role": "user", "content": "hello"}]
        model = "qwen+tps=30+tokens=90"
        for chunk in client.chat.completions.create(model=model, messages=asked, stream=True):  # type: ignore[call-overload]
            said.append(chunk)
            if len(said) == 5:
                stand.servers.stop_postgres_at_once()
                # Long enough for the hub to ask in vain; the call itself goes on.
                wait_for(lambda: "watchers wait" in gateway.log.read_text(), what="an outage that is seen")
                stand.servers.postgres.start()
        text = "".join(chunk.choices[0].delta.content or "" for chunk in said)
        assert said[-1].choices[0].finish_reason == "stop"
        [(status, attempt, stored)] = stand.query("SELECT status, attempt, response_text FROM task")
        assert (status, attempt, text) == (1, 1, stored)
        assert gateway.stop().count("watchers wait") == 1
    assert upstream.calls == 1
    stand.close()


LEFT_BEHIND = """
SELECT 1 FROM task, pg_control_checkpoint() c
WHERE lease_until < now() AND greatest(c.checkpoint_time, pg_postmaster_start_time()) < now() - interval '6 s'
"""
CLAIMED_AFTER = """
SELECT extract(epoch FROM t.started_at - w.started_at)::float FROM task t JOIN worker w ON w.id = t.worker
"""


def test_a_worker_that_starts_after_a_crash_waits_no_lease_before_it_goes_on(stand: Stand) -> None:
    """The only worker was killed; the server was the primary all the time, so nobody was kept from beating."""
    witness(stand)
    stand.more["AITASK_LEASE_S"] = "6"
    killed = stand.start_worker("qwen")
    made = stand.submit("hello", "qwen+latency=1.5")
    wait_for(lambda: stand.upstream.simulator.open_now == 1, what="the call")
    killed.kill()
    wait_for(lambda: stand.query(LEFT_BEHIND), what="the end of its lease")
    stand.start_worker("qwen")
    assert stand.finished(made.batch_id).tasks[0].attempt == 2
    [(after_s,)] = stand.query(CLAIMED_AFTER)
    print(f"claimed again {after_s:.1f} s after the start")
    assert after_s < 5
    account(stand, set(made.task_ids))
