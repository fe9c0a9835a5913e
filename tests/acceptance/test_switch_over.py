"""Two PostgreSQL hosts: the primary is lost and the standby promoted, or the two change roles; the load goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from aitask_cli.local.paths import LocalPaths
from aitask_cli.local.postgres import Postgres, _plain_env
from shared.store import recovery
from shared.store.engine import Database
from tests.acceptance.accounting import witness
from tests.acceptance.load import Load
from tests.stand import RunningSimulator, Servers, Stand, forget, new_stand, wait_for


class Pair:
    """A primary and its standby, each reached by its own socket directory."""

    def __init__(self, primary: Servers, directory: Path) -> None:
        self.servers = primary
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
        done = subprocess.run(
            [str(self._binaries / argv[0]), *argv[1:]], check=False, capture_output=True, timeout=120,
            cwd=self.standby.home, env=_plain_env(), user=account[0] if account else None,
            group=account[1] if account else None, extra_groups=[] if account else None,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

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

    def served(self) -> Servers:
        """The servers with the standby in the primary's place."""
        return dataclasses.replace(self.servers, postgres=self.standby)

    def drained(self) -> bool:
        """Whether nothing is being written at the primary, and the standby has all that was."""
        connection = psycopg2.connect(host=str(self.primary.sockets), user="postgres", dbname="postgres")
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL")
            return cursor.fetchone() == (0,) and self.caught_up()


@pytest.fixture
def pair(
    own_servers: Callable[[], Servers], upstream: RunningSimulator, tmp_path: Path
) -> Iterator[tuple[Pair, Stand]]:
    servers = own_servers()
    stand = new_stand(servers, upstream, tmp_path / "home", AITASK_LEASE_S="6")
    witness(stand)
    directory = Path(tempfile.mkdtemp(prefix="aitask-r-"))
    made = Pair(servers, directory)
    servers.admin("ALTER SYSTEM SET synchronous_standby_names = '*'")
    servers.admin("SELECT pg_reload_conf()")
    stand.more["DATABASE_URL"] = made.dsn(stand.database)
    yield made, stand
    stand.close()
    made.standby.stop()
    forget(directory)


def through(two: Pair, stand: Stand, *, how: str, away_s: float) -> None:
    """A load by threads and by the installed command, two workers, and the primary changes in the middle of it."""
    workers = [stand.start_worker() for _ in range(2)]
    with Load(stand) as load:
        load.goes_on()
        slow = stand.aitask("ask", "--detach", "through it all", "-m", "qwen+latency=4")
        assert slow.code == 0, slow.err
        wait_for(two.caught_up, what="the standby")
        if how == "promotion":
            stand.servers.stop_postgres_at_once()
        else:
            stand.servers.admin("ALTER SYSTEM SET default_transaction_read_only = on")
            stand.servers.admin("SELECT pg_reload_conf()")
            wait_for(two.drained, what="the last write at the old primary")
        gone_at = time.monotonic()
        told = stand.aitask("ask", "--detach", "in between", "-m", "qwen")
        assert told.code == 69, told.err
        assert "nothing was submitted" in told.err or "may be stored" in told.err
        time.sleep(max(0.0, gone_at + away_s - time.monotonic()))
        two.promote()
        # The other side of the switch: from here on the books are read at the new primary.
        stand.servers = two.served()
        stand.servers.admin("ALTER SYSTEM SET synchronous_standby_names = ''")
        stand.servers.admin("SELECT pg_reload_conf()")
        load.goes_on()
        print(f"{how}: submissions go on {time.monotonic() - gone_at:.1f} s after the old primary was gone")
    load.account()
    assert stand.query("SELECT status, attempt FROM task WHERE batch_id = %s", slow.out.strip()) == [(1, 1)]
    assert [worker.poll() for worker in workers] == [None, None]
    for log in sorted(stand.home.glob("worker-*.log")):
        said = Counter(line.split("warning", 1)[1].split(":")[0].strip() for line in _warnings(log))
        print(log.name, dict(said))
        assert max(said.values(), default=0) <= 2, "an outage is said once by each part"
    for worker in workers:
        worker.terminate()
    assert [worker.wait(20) for worker in workers] == [0, 0]


def _warnings(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if " warning " in line and "lease ran out" not in line]


@pytest.mark.parametrize("how", ["promotion", "switch-over"])
def test_a_load_goes_on_at_the_other_host(pair: tuple[Pair, Stand], how: str) -> None:
    through(*pair, how=how, away_s=0)


@pytest.mark.soak
@pytest.mark.parametrize("how", ["promotion", "switch-over"])
def test_a_load_goes_on_at_the_other_host_after_longer_than_a_lease(pair: tuple[Pair, Stand], how: str) -> None:
    through(*pair, how=how, away_s=15)


def test_a_promoted_standby_does_not_claim_to_have_been_the_primary_for_long(pair: tuple[Pair, Stand]) -> None:
    two, stand = pair
    stand.servers.admin("CHECKPOINT")
    stand.query("CREATE ROLE plain")
    settled = Database(f"{stand.servers.dsn(stand.database)}&options=-c%20role%3Dplain")
    first = recovery.primary_for_s(settled)
    wait_for(lambda: recovery.primary_for_s(settled) > first + 0.5, what="time to pass")
    settled.close()
    wait_for(two.caught_up, what="the standby")
    stand.servers.stop_postgres_at_once()
    two.promote()
    stand.servers = two.served()
    stand.servers.admin("ALTER SYSTEM SET synchronous_standby_names = ''")
    stand.servers.admin("SELECT pg_reload_conf()")
    promoted_at = time.monotonic()
    promoted = Database(stand.servers.dsn(stand.database))
    assert recovery.primary_for_s(promoted) <= time.monotonic() - promoted_at + 1.0
    stand.servers.admin("CHECKPOINT")
    assert recovery.primary_for_s(promoted) <= time.monotonic() - promoted_at + 1.0
    promoted.close()


def test_a_standby_is_said_to_be_one_and_waited_for_until_it_is_promoted(pair: tuple[Pair, Stand]) -> None:
    two, stand = pair
    wait_for(two.caught_up, what="the standby")
    stand.more["DATABASE_URL"] = two.served().dsn(stand.database)
    asked = stand.aitask("ask", "-d", "hello", "-m", "qwen")
    assert (asked.code, "nothing was submitted" in asked.err) == (69, True), asked.err
    assert "name every host in DATABASE_URL" in asked.err
    doctor = stand.aitask("doctor")
    assert (doctor.code, "this server is a standby, in recovery" in doctor.out) == (1, True)
    worker = stand.start_worker("qwen", ready=False)
    wait_for(lambda: "waiting for PostgreSQL: PostgreSQL is a standby" in stand.logs(), what="a worker that waits")
    stand.servers.stop_postgres_at_once()
    two.promote()
    stand.servers = two.served()
    stand.servers.admin("ALTER SYSTEM SET synchronous_standby_names = ''")
    stand.servers.admin("SELECT pg_reload_conf()")
    assert stand.finished(stand.submit("hello", "qwen").batch_id).tasks[0].response_text
    assert stand.logs().count("waiting for PostgreSQL") == 1
    assert worker.poll() is None
