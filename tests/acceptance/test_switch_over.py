"""Two PostgreSQL hosts: the primary is lost and the standby promoted, or the two change roles; the load goes on."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from aitask_cli.local.paths import LocalPaths
from aitask_cli.local.postgres import Postgres, _plain_env
from tests.stand import RunningSimulator, Servers, Stand, forget, new_stand, wait_for


class Pair:
    """A primary and its standby, each reached by its own socket directory."""

    def __init__(self, primary: Servers, directory: Path) -> None:
        self.primary = primary.postgres
        self.standby = Postgres(LocalPaths.create(directory))
        self.standby._make_home()
        self._binaries = self.primary._reachable_binaries()
        self._copy()
        self.standby.start()

    def dsn(self, database: str) -> str:
        hosts = f"{self.primary.sockets},{self.standby.sockets}"
        return f"postgresql://postgres@/{database}?host={hosts.replace('/', '%2F').replace(',', '%2C')}"

    def run(self, *argv: str) -> None:
        account = self.primary.account
        subprocess.run(
            [str(self._binaries / argv[0]), *argv[1:]], check=True, capture_output=True, timeout=120,
            cwd=self.standby.home, env=_plain_env(), user=account[0] if account else None,
            group=account[1] if account else None, extra_groups=[] if account else None,
        )  # fmt: skip

    def _copy(self) -> None:
        self.run(
            "pg_basebackup", "-h", str(self.primary.sockets), "-U", "postgres", "-D", str(self.standby.data), "-R",
            "-X", "stream", "-c", "fast",
        )  # fmt: skip

    def caught_up(self) -> bool:
        connection = psycopg2.connect(host=str(self.primary.sockets), user="postgres", dbname="postgres")
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()")
            return cursor.fetchone() is not None

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-D", str(self.standby.data), "-w")


@pytest.fixture
def pair(
    own_servers: Callable[[], Servers], upstream: RunningSimulator, tmp_path: Path
) -> Iterator[tuple[Pair, Stand]]:
    servers = own_servers()
    servers.admin("ALTER SYSTEM SET synchronous_standby_names = '*'")
    stand = new_stand(servers, upstream, tmp_path / "home", AITASK_LEASE_S="6")
    directory = Path(tempfile.mkdtemp(prefix="aitask-r-"))
    made = Pair(servers, directory)
    servers.admin("SELECT pg_reload_conf()")
    yield made, stand
    stand.close()
    made.standby.stop()
    forget(directory)


def _submit(stand: Stand, prompts: list[str]) -> set[str]:
    """Submit with the installed command; what it prints an id for is accepted."""
    found = set()
    for prompt in prompts:
        done = stand.aitask("ask", "--detach", prompt, "-m", "qwen")
        if done.code == 0:
            found.add(done.out.strip())
        else:
            assert done.code == 69, done.err
            assert "nothing was submitted" in done.err or "may be stored" in done.err
    return found


@pytest.mark.parametrize("how", ["promotion", "switch-over"])
def test_a_load_goes_on_at_the_other_host(pair: tuple[Pair, Stand], how: str) -> None:
    two, stand = pair
    stand.more["DATABASE_URL"] = two.dsn(stand.database)
    worker = stand.start_worker("qwen")
    accepted = _submit(stand, [f"before {n} +latency" for n in range(5)])
    slow = stand.aitask("ask", "--detach", "through it all", "-m", "qwen+latency=4")
    assert slow.code == 0, slow.err
    accepted.add(slow.out.strip())
    wait_for(two.caught_up, what="the standby")
    if how == "promotion":
        stand.servers.stop_postgres_at_once()
    else:
        stand.servers.admin("ALTER SYSTEM SET default_transaction_read_only = on")
        stand.servers.admin("SELECT pg_reload_conf()")
    two.promote()
    psql = psycopg2.connect(host=str(two.standby.sockets), user="postgres", dbname="postgres")
    psql.autocommit = True
    with psql.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        cursor.execute("SELECT pg_reload_conf()")
    psql.close()
    accepted |= _submit(stand, [f"after {n}" for n in range(5)])
    assert len(accepted) == 11
    began = time.monotonic()
    finished = [stand.finished(batch_id) for batch_id in accepted]
    print(f"{how}: {len(finished)} batches ended {time.monotonic() - began:.1f} s after the last submission")
    assert all(task.response_text for batch in finished for task in batch.tasks)
    assert all(task.error_kind != "poison" for batch in finished for task in batch.tasks)
    said = stand.logs()
    assert said.count("read-only") <= 8, said
    assert worker.poll() is None
    worker.terminate()
    assert worker.wait(20) == 0
