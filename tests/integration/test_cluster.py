"""The local PostgreSQL: whom it stops, and as root who may connect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest

from aitask_cli.local import postgres
from aitask_cli.local.identity import identify, lives
from tests.conftest import USERS_RULES
from tests.stand import Servers


def test_a_forged_pid_file_ends_no_other_process(own_servers: object) -> None:
    servers: Servers = own_servers()  # type: ignore[operator]
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        pid_file = servers.postgres.data / "postmaster.pid"
        server = identify(int(pid_file.read_text().split("\n")[0]))
        assert server is not None
        lines = pid_file.read_text().split("\n")
        pid_file.write_text("\n".join([str(sleeper.pid), *lines[1:]]))
        servers.postgres.stop()
        assert sleeper.poll() is None
        assert not lives(server)
    finally:
        sleeper.kill()
        sleeper.wait(30)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's cluster is another account's")
def test_root_s_cluster_lets_root_alone_in(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As users have it: the tests' other clusters have rules of their own.
    monkeypatch.setattr(postgres, "rules", USERS_RULES)
    servers = Servers.start(data_dir)
    try:
        connection = psycopg2.connect(host=str(servers.postgres.sockets), user="postgres", dbname="postgres")
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT auth_method, options::text FROM pg_hba_file_rules")
            assert cursor.fetchall() == [("peer", "{map=aitask}")]
            cursor.execute("SHOW hba_file")
            assert Path(str(cursor.fetchone()[0])).stat().st_uid == 0  # type: ignore[index]
        connection.close()
    finally:
        servers.stop()
