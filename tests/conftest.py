"""Fixtures: servers once a session, a database and a namespace of its own for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aitask_cli.local import postgres
from tests.stand import RunningSimulator, Servers, Stand, forget, make_template, new_stand

# What root's clusters let in outside of tests.
USERS_RULES = postgres.rules


@pytest.fixture(scope="session")
def own_rules() -> Iterator[None]:
    """Root's clusters let root alone in; here PgBouncer and standbys come too, as the account that runs them."""
    directory = Path(tempfile.mkdtemp(prefix="aitask-h-"))
    directory.chmod(0o755)
    rules = directory / "pg_hba.conf"
    rules.write_text("local all all trust\nlocal replication all trust\n")
    rules.chmod(0o644)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "rules", lambda base: ("-c", f"hba_file={rules}"))
        yield
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def servers(own_rules: None) -> Iterator[Servers]:
    # A short path: sockets live in it.
    directory = Path(tempfile.mkdtemp(prefix="aitask-t-"))
    running = Servers.start(directory)
    try:
        make_template(running)
        yield running
    finally:
        running.stop()


@pytest.fixture
def upstream() -> Iterator[RunningSimulator]:
    running = RunningSimulator()
    yield running
    running.stop()


@pytest.fixture
def stand(servers: Servers, upstream: RunningSimulator, tmp_path: Path) -> Iterator[Stand]:
    made = new_stand(servers, upstream, tmp_path / "home")
    yield made
    made.close()
    servers.admin(f"DROP DATABASE {made.database} WITH (FORCE)")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="aitask-d-"))
    yield directory
    forget(directory)


@pytest.fixture
def own_servers(own_rules: None, tmp_path: Path) -> Iterator[Callable[[], Servers]]:
    """Servers of one test's own, for tests that stop or kill them."""
    started: list[Servers] = []

    def start() -> Servers:
        directory = Path(tempfile.mkdtemp(prefix="aitask-s-"))
        running = Servers.start(directory)
        make_template(running)
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()
