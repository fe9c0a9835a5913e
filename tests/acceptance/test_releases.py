"""Releases side by side: a migration comes in between, load all along; and a worker behind a pooler."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from shared.migrations import HEAD
from tests.pooler import Pooler, pgbouncer, running_pgbouncer
from tests.stand import Stand, wait_for

# What a later release's migration does to a database: it adds, and says whom it still serves.
NEWER = """
ALTER TABLE task ADD COLUMN of_a_later_release text;
CREATE TABLE of_a_later_release (id uuid PRIMARY KEY);
UPDATE alembic_version SET version_num = '9999';
INSERT INTO schema_mark (revision, oldest) VALUES ('9999', %s)
"""
OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_an_old_worker_works_on_under_load_through_a_migration_that_serves_it_and_drains_when_one_does_not(
    stand: Stand,
) -> None:
    worker = stand.start_worker("qwen", AITASK_LEASE_S="3")
    batches: list[str] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.wait(0.05):
            batches.append(stand.submit(f"p{len(batches)}", "qwen").batch_id)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        wait_for(lambda: len(batches) > 5, what="some load")
        stand.query(NEWER, HEAD)
        assert stand.aitask("ls").code == 0
        after = len(batches)
        wait_for(lambda: len(batches) > after + 5, what="load after the migration")
    finally:
        stop.set()
        loading.join()
    # With its connections gone it looks again, and finds that it is still served.
    stand.query(OTHERS)
    batches.append(stand.submit("after a new connection", "qwen").batch_id)
    for batch_id in batches:
        assert all(task.response_text for task in stand.finished(batch_id).tasks)
    assert worker.poll() is None
    stand.start_worker("qwen", AITASK_LEASE_S="3")
    stand.query("UPDATE schema_mark SET oldest = '9999'")
    stand.query(OTHERS)
    assert worker.wait(30) == 0
    assert "drains" in stand.logs()
    found = stand.aitask("ls")
    assert (found.code, "revision 9999" in found.err, "install the newer aitask" in found.err) == (69, True, True)


@pytest.mark.parametrize(
    "which",
    ["ours", pytest.param("pgbouncer", marks=pytest.mark.skipif(pgbouncer() is None, reason="pgbouncer is not here"))],
)
def test_the_installed_command_and_two_workers_live_behind_a_pooler(stand: Stand, tmp_path: Path, which: str) -> None:
    if which == "ours":
        pooler = Pooler(stand.servers, stand.database, size=4)
        _through(stand, pooler.url)
        pooler.close()
    else:
        with running_pgbouncer(stand.servers, stand.database, tmp_path / "bouncer", size=4) as url:
            _through(stand, url)


def _through(stand: Stand, url: str) -> None:
    stand.more["DATABASE_URL"] = url
    workers = [stand.start_worker(AITASK_LEASE_S="6") for _ in range(2)]
    made = [stand.submit(f"p{number}", "qwen", "gemini") for number in range(60)]
    asked = stand.aitask("ask", "→ 漢字", "-m", "qwen,gemini,deepseek")
    assert asked.code == 0, asked.err
    for one in made:
        assert all(task.response_text for task in stand.finished(one.batch_id).tasks)
    assert stand.query("SELECT count(*) FROM task WHERE status <> 1 OR attempt <> 1") == [(0,)]
    assert [worker.poll() for worker in workers] == [None, None]
    assert "Duplicate" not in stand.logs()
    assert "Traceback" not in stand.logs()
    doctor = stand.aitask("doctor")
    assert "a pooler in between" in doctor.out
    stand.more.pop("DATABASE_URL")
