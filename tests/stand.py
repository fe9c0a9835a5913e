"""The test stand: real PostgreSQL, real Valkey, a real HTTP upstream, and the installed command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg2

from aitask_cli.local.paths import LocalPaths
from aitask_cli.local.postgres import Postgres
from aitask_cli.local.process import exists
from aitask_cli.local.valkey import Valkey
from aitask_cli.simulator.script import Script
from aitask_cli.simulator.server import Simulator, start
from shared.settings import Settings, settings_from
from shared.store import read, schema
from shared.store.engine import Database
from shared.streams import Streams
from shared.submission import Request, Submission, plan, submit

T = TypeVar("T")
COMMAND = Path(sys.executable).with_name("aitask")


def wait_for(condition: Callable[[], T], *, timeout_s: float = 60.0, what: str = "the condition") -> T:
    """Wait until a condition of another process or thread is truthy, and return it."""
    end = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about within {timeout_s:g} s")
        time.sleep(0.02)


class RunningSimulator:
    """A simulator on a thread of the test process, so that a test can look at what was asked."""

    def __init__(self, script: Script | None = None) -> None:
        self.simulator = Simulator(script or Script(), remember=20_000)
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        async def serve() -> None:
            self._runner, self.port = await start(self.simulator, "127.0.0.1", 0)
            ready.set()

        self._loop.create_task(serve())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        assert ready.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def calls(self) -> int:
        return sum(self.simulator.calls.values())

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@dataclass
class Servers:
    """One PostgreSQL and one Valkey in a directory of their own."""

    directory: Path
    postgres: Postgres
    valkey: Valkey

    @classmethod
    def start(cls, directory: Path) -> Servers:
        paths = LocalPaths.create(directory)
        servers = cls(directory, Postgres(paths), Valkey(paths))
        servers.postgres.start()
        servers.valkey.start()
        return servers

    def dsn(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self.postgres.sockets), safe='')}"

    def stop(self) -> None:
        self.valkey.stop()
        self.postgres.stop()
        forget(self.directory)

    def kill_valkey(self) -> None:
        """kill -9, and nothing of what it held is left."""
        found = re.search(rb"process_id:(\d+)", self.valkey._say(b"INFO server\r\n"))
        assert found is not None
        os.kill(int(found[1]), signal.SIGKILL)
        wait_for(lambda: not exists(int(found[1])), what="Valkey's end")
        shutil.rmtree(self.valkey.data)
        self.valkey.data.mkdir(mode=0o700)

    def stop_postgres_at_once(self) -> None:
        """An immediate stop: no checkpoint, connections cut; the next start recovers from the log."""
        pid = self.postgres._pid()
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        wait_for(lambda: not exists(pid), what="PostgreSQL's end")

    def admin(self, statement: str) -> None:
        connection = psycopg2.connect(host=str(self.postgres.sockets), user="postgres", dbname="postgres")
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)


def forget(data_dir: Path) -> None:
    """Remove a data directory, and as root what lies outside it."""
    for base in (data_dir, data_dir / "demo"):
        paths = LocalPaths(base)
        home = Postgres(paths).home
        if paths.sockets.parent != base:
            shutil.rmtree(paths.sockets, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
        home.with_name(f"{home.name}.owner").unlink(missing_ok=True)
        _forget_clusters_of(data_dir, home.parent)
    shutil.rmtree(data_dir, ignore_errors=True)


def _forget_clusters_of(directory: Path, clusters: Path) -> None:
    """Remove root's clusters of whatever data directories lie in a directory."""
    for owner in clusters.glob("*.owner"):
        with contextlib.suppress(OSError):
            if Path(owner.read_text().strip()).is_relative_to(directory):
                shutil.rmtree(owner.with_suffix(""), ignore_errors=True)
                owner.unlink(missing_ok=True)


@dataclass
class Stand:
    """A database and a namespace of one test's own on shared servers, with an upstream."""

    servers: Servers
    upstream: RunningSimulator
    database: str
    namespace: str
    home: Path
    more: dict[str, str] = field(default_factory=dict)
    _workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.servers.dsn(self.database),
            "REDIS_URL": self.servers.valkey.url,
            "AITASK_NAMESPACE": self.namespace,
            "GEMINI_SERVICE_URL": self.upstream.url,
            "LLM_SERVICE_URL": self.upstream.url,
            "DEEPSEEK_SERVICE_URL": self.upstream.url,
            **self.more,
        }

    @property
    def settings(self) -> Settings:
        return settings_from(self.variables)

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            **self.variables,
        }

    @contextlib.contextmanager
    def db(self) -> Iterator[Database]:
        db = Database(self.settings.database_dsn, connections=4)
        try:
            yield db
        finally:
            db.close()

    @contextlib.contextmanager
    def streams(self) -> Iterator[Streams]:
        streams = Streams(self.settings.redis_dsn, namespace=self.namespace)
        try:
            yield streams
        finally:
            streams.close()

    def submit(self, prompt: str, *models: str, **more: Any) -> Submission:
        with self.db() as db, self.streams() as streams:
            return submit(db, streams, plan(Request(prompt=prompt, models=models, **more), self.settings))

    def batch(self, batch_id: str) -> Any:
        with self.db() as db:
            return read.batch(db, batch_id)

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.servers.dsn(self.database))
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def finished(self, batch_id: str, *, timeout_s: float = 90.0) -> Any:
        """Wait for a batch to finish, and return it."""

        def look() -> Any:
            batch = self.batch(batch_id)
            return batch if all(task.status.terminal for task in batch.tasks) else None

        return wait_for(look, timeout_s=timeout_s, what=f"the end of batch {batch_id}")

    def aitask(
        self,
        *arguments: str,
        stdin: str | bytes = b"",
        timeout_s: float = 180.0,
        command: tuple[str, ...] = (str(COMMAND),),
        **env: str,
    ) -> Result:
        return aitask(
            *arguments, env={**self.env, **env}, stdin=stdin, timeout_s=timeout_s, cwd=self.home, command=command
        )

    def start_worker(
        self, *arguments: str, ready: bool = True, command: tuple[str, ...] = (str(COMMAND),), **env: str
    ) -> subprocess.Popen[bytes]:
        """Start `aitask worker` as a process of its own and wait until it has reported itself."""
        log = self.home / f"worker-{len(self._workers)}.log"
        with log.open("wb") as out:
            worker = subprocess.Popen(
                [*command, "worker", *arguments],
                env={**self.env, **env}, cwd=self.home, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self._workers.append(worker)
        if ready:
            wait_for(
                lambda: worker.poll() is not None or self.query("SELECT 1 FROM worker WHERE pid = %s", worker.pid),
                what="the worker's row",
            )
            assert worker.poll() is None, log.read_text()
        return worker

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.home.glob("worker-*.log")))

    def close(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.terminate()
        for worker in self._workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait(20)
        with self.streams() as streams, contextlib.suppress(Exception):
            for key in streams.client.scan_iter(f"{self.namespace}:*"):
                streams.client.delete(key)


def altered(directory: Path, changes: str) -> tuple[str, ...]:
    """The command line with changes made to it first, as what `start_worker` and `aitask` take for a command."""
    script = directory / f"altered_{uuid.uuid4().hex[:8]}.py"
    script.write_text(f"import sys\n{changes}\nfrom aitask_cli.main import run\nsys.exit(run(sys.argv[1:]))\n")
    return (sys.executable, str(script))


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


def aitask(
    *arguments: str,
    env: dict[str, str],
    stdin: str | bytes = b"",
    timeout_s: float = 180.0,
    cwd: Path | None = None,
    command: tuple[str, ...] = (str(COMMAND),),
) -> Result:
    """Run the installed command to its end."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*command, *arguments], env=env, input=data, capture_output=True, timeout=timeout_s, cwd=cwd, check=False
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def new_stand(servers: Servers, upstream: RunningSimulator, home: Path, **more: str) -> Stand:
    """Make a stand with a fresh database and namespace."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    servers.admin(f"CREATE DATABASE {name} TEMPLATE aitask_template")
    home.mkdir(exist_ok=True)
    return Stand(servers, upstream, name, name, home, dict(more))


def make_template(servers: Servers) -> None:
    """Migrate one database that every test's is copied from."""
    servers.admin("CREATE DATABASE aitask_template")
    db = Database(
        settings_from({"DATABASE_URL": servers.dsn("aitask_template"), "REDIS_URL": "redis://x"}).database_dsn
    )
    schema.upgrade(db)
    db.close()
