"""A pooler in transaction mode between aitask and PostgreSQL: nothing is a connection's own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import servers as makers
from shared.domain import Finished, TaskStatus
from shared.errors import DatabaseUnavailable
from shared.settings import settings_from
from shared.store import schema, work
from shared.store.engine import Database, Profile, Sql
from shared.store.outage import wait_until_ready
from tests.pooler import Pooler, pgbouncer, running_pgbouncer
from tests.stand import Stand

REAL = pytest.param("pgbouncer", marks=pytest.mark.skipif(pgbouncer() is None, reason="pgbouncer is not installed"))


@pytest.fixture(params=["ours", "ours that ignores options", REAL])
def url(request: pytest.FixtureRequest, stand: Stand, tmp_path: Path) -> Iterator[str]:
    if request.param == "pgbouncer":
        with running_pgbouncer(stand.servers, stand.database, tmp_path / "pgbouncer") as found:
            yield found
        return
    pooler = Pooler(stand.servers, stand.database, ignores_options="ignores" in request.param)
    yield pooler.url
    pooler.close()


def test_a_pooler_is_found_out_and_hot_statements_go_through_it(stand: Stand, url: str) -> None:
    db = Database(url, connections=3, profile=Profile.hot(lease_s=30))
    schema.check(db)
    assert db.pooled
    stand.more["DATABASE_URL"] = url
    made = [stand.submit(f"question {number}", "qwen", "gemini") for number in range(6)]
    ids = [task_id for one in made for task_id in one.task_ids]
    for _ in range(3):
        assert work.heartbeat(db, [(task_id, 1) for task_id in ids], lease_s=30) == set()
    db.close()


def test_every_statement_behind_a_pooler_has_the_limits_it_is_written_for(url: str) -> None:
    db = Database(url, profile=Profile.hot(lease_s=30))
    asked = Sql("SELECT current_setting('statement_timeout') AS s, current_setting('enable_seqscan') AS p")
    assert [db.rows(asked)[0] for _ in range(4)] == [{"s": "8571ms", "p": "off"}] * 4
    with db.transaction() as transaction:
        row = transaction.execute(asked).one()
        assert (row.s, row.p) == ("8571ms", "off")
    db.close()


def test_a_batch_is_submitted_claimed_and_recorded_through_a_pooler(stand: Stand, url: str) -> None:
    stand.more["DATABASE_URL"] = url
    made = stand.submit("ünïcode → 漢字", "qwen")
    assert stand.batch(made.batch_id).prompt == "ünïcode → 漢字"
    stand.query("UPDATE task SET status = 3, attempt = 1, lease_until = now() + interval '1 min'")
    db = makers.hot(stand.settings, name="w")
    done = Finished(id=made.task_ids[0], attempt=1, status=TaskStatus.SUCCESS, outcome="answered", response_text="→ é")
    assert work.record(db, [done]) == {made.task_ids[0]}
    assert stand.batch(made.batch_id).tasks[0].response_text == "→ é"
    db.close()


def test_names_that_a_pooler_loses_in_mid_life_make_a_connection_pooled(stand: Stand) -> None:
    """PgBouncer that lets options through to one server connection and not to the next: 26000 is the proof."""
    pooler = Pooler(stand.servers, stand.database, ignores_options=True)
    db = Database(pooler.url, pooled=False)
    for _ in range(5):
        assert work.heartbeat(db, [("0" * 32, 1)], lease_s=30) == set()
    assert db.pooled
    db.close()
    pooler.close()


def test_what_is_pasted_with_a_url_is_taken_ignored_or_named(stand: Stand) -> None:
    pasted = stand.servers.dsn(stand.database) + "&pgbouncer=true&schema=public&connection_limit=5"
    db = makers.reading(settings_from({"DATABASE_URL": pasted, "REDIS_URL": "redis://x"}))
    schema.check(db)
    assert db.pooled
    db.close()


def test_a_pool_of_one_connection_is_named_before_a_worker_starts(stand: Stand) -> None:
    pooler = Pooler(stand.servers, stand.database, size=1)
    db = Database(pooler.url, connections=3, profile=Profile.hot(lease_s=3))
    with pytest.raises(DatabaseUnavailable, match=r"gives only 1 connection.*default_pool_size") as caught:
        wait_until_ready(db, wait=lambda seconds: True)
    assert not caught.value.waits
    db.close()
    pooler.close()
    with stand.db() as direct:
        assert wait_until_ready(direct, wait=lambda seconds: True)


@pytest.mark.parametrize("which", ["ours", REAL])
def test_a_pooler_in_session_mode_with_too_few_connections_is_named_and_waited_for(
    stand: Stand, tmp_path: Path, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("aitask").propagate = True
    with contextlib.ExitStack() as stack:
        if which == "ours":
            pooler = Pooler(stand.servers, stand.database, size=2, session=True)
            stack.callback(pooler.close)
            url = pooler.url
        else:
            url = stack.enter_context(
                running_pgbouncer(stand.servers, stand.database, tmp_path / "b", mode="session", size=2)
            )
        db = Database(url, connections=2, profile=Profile.hot(lease_s=3))
        beating = Database(url, profile=Profile.hot(lease_s=3))
        assert not wait_until_ready(db, wait=lambda seconds: True, besides=beating)
        assert "none left for the heartbeat while 2 are open and idle" in caplog.text
        assert "pool_mode = transaction" in caplog.text
        db.close()
        beating.close()


def test_a_pooler_in_transaction_mode_needs_no_connection_for_each_of_ours(stand: Stand) -> None:
    pooler = Pooler(stand.servers, stand.database, size=2)
    db = Database(pooler.url, connections=2, profile=Profile.hot(lease_s=3))
    beating = Database(pooler.url, profile=Profile.hot(lease_s=3))
    assert wait_until_ready(db, wait=lambda seconds: True, besides=beating)
    for one in (db, beating, pooler):
        one.close()
