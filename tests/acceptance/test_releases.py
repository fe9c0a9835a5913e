"""Releases side by side: a migration comes in between, load all along; and a worker behind a pooler."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.migrations import HEAD
from tests.acceptance.accounting import witness
from tests.acceptance.load import Load
from tests.pooler import Pooler, pgbouncer, running_pgbouncer
from tests.stand import Stand

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


@pytest.mark.parametrize("number", [10, pytest.param(400, marks=pytest.mark.soak)])
def test_an_old_worker_works_on_under_load_through_a_migration_that_serves_it_and_drains_when_one_does_not(
    stand: Stand, number: int
) -> None:
    witness(stand)
    stand.more["AITASK_LEASE_S"] = "3"
    workers = [stand.start_worker() for _ in range(2)]
    with Load(stand) as load:
        load.goes_on(number)
        stand.query(NEWER, HEAD)
        assert stand.aitask("ls").code == 0
        load.goes_on(number)
        # With its connections gone a worker looks again, and finds that it is still served.
        stand.query(OTHERS)
        load.goes_on(number)
    load.account()
    assert [worker.poll() for worker in workers] == [None, None]
    stand.query("UPDATE schema_mark SET oldest = '9999'")
    stand.query(OTHERS)
    assert [worker.wait(30) for worker in workers] == [0, 0]
    assert "drains" in stand.logs()
    found = stand.aitask("ls")
    assert (found.code, "revision 9999" in found.err, "install the newer aitask" in found.err) == (69, True, True)


@pytest.mark.parametrize(
    "which",
    ["ours", pytest.param("pgbouncer", marks=pytest.mark.skipif(pgbouncer() is None, reason="pgbouncer is not here"))],
)
@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_the_installed_command_and_two_workers_live_behind_a_pooler(
    stand: Stand, tmp_path: Path, which: str, kills: int
) -> None:
    if which == "ours":
        pooler = Pooler(stand.servers, stand.database, size=4)
        _through(stand, pooler.url, kills)
        pooler.close()
    else:
        with running_pgbouncer(stand.servers, stand.database, tmp_path / "bouncer", size=4) as url:
            _through(stand, url, kills)


def _through(stand: Stand, url: str, kills: int) -> None:
    """A load through the pooler, its books kept; workers are killed in the middle of it and others take their place."""
    witness(stand)
    stand.more |= {"DATABASE_URL": url, "AITASK_LEASE_S": "3"}
    workers = [stand.start_worker() for _ in range(2)]
    with Load(stand) as load:
        load.goes_on(20)
        asked = stand.aitask("ask", "→ 漢字", "-m", "qwen,gemini,deepseek")
        assert asked.code == 0, asked.err
        for _ in range(kills):
            workers.pop().kill()
            workers.append(stand.start_worker())
            # Longer than a lease: what one held is done with before the next is killed.
            load.goes_on(20 if kills == 1 else 80)
    load.account(calls_at_most=16 * kills, rescues_at_most=min(kills, 2))
    assert [worker.poll() for worker in workers] == [None, None]
    for bad in ("Duplicate", "Traceback", "does not exist"):
        assert bad not in stand.logs()
    doctor = stand.aitask("doctor")
    assert "a pooler in between" in doctor.out
    stand.more.pop("DATABASE_URL")
