"""PostgreSQL's one door: what a cut, a bug, an encoding and a lost reply become."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from shared import submission
from shared.domain import Claimed, Finished, TaskStatus
from shared.errors import DatabaseUnavailable, MayBeStored, SchemaMismatch
from shared.store import schema
from shared.store.engine import Database, Profile, Sql
from shared.submission import Request, plan, submit
from tests.stand import Stand
from workers.holdings import Holding, Holdings
from workers.recorder import Recorder


class Cut:
    """A way to PostgreSQL over TCP that ends with a reset when a client says what it is told to look for."""

    def __init__(self, stand: Stand, *, at: bytes, answered: bool = False, times: int = 1) -> None:
        self._path = str(stand.servers.postgres.sockets / ".s.PGSQL.5432")
        self._at, self._answered, self.left = at, answered, times
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://postgres@127.0.0.1:{self._listening.getsockname()[1]}/{stand.database}"
        self.refuses = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.refuses:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._at in data and self.left > 0:
                    self.left -= 1
                    if self._answered:
                        # The server does what it is told; nobody hears of it.
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        ours, self._muted = client, client
                        server.sendall(data)
                        threading.Event().wait(0.3)
                        ours.close()
                    else:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        client.close()
                        server.close()
                    return
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.close()

    _muted: socket.socket | None = None

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self._muted is client:
                    continue
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.close()


@pytest.fixture
def cut(stand: Stand) -> Iterator[Any]:
    made: list[Cut] = []

    def make(**how: Any) -> Cut:
        made.append(Cut(stand, **how))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("at", [b"SELECT 42", b"ROLLBACK", b"COMMIT", b"BEGIN"])
def test_a_connection_cut_anywhere_in_a_transaction_is_an_outage_and_over_with_the_next(cut: Any, at: bytes) -> None:
    db = Database(cut(at=at).url)

    def work() -> None:
        with db.transaction() as transaction:
            transaction.execute(Sql("SELECT 42"))
            if at == b"ROLLBACK":
                raise KeyError

    with pytest.raises(KeyError if at == b"ROLLBACK" else DatabaseUnavailable):
        work()
    assert db.rows(Sql("SELECT 1 AS one")) == [{"one": 1}]
    db.close()


def test_a_bug_stays_a_bug_and_costs_no_connection(stand: Stand) -> None:
    with stand.db() as db:
        for statement, values in (("SELEC 1", {}), ("SELECT :x", {"x": object()})):
            with pytest.raises(psycopg2.ProgrammingError):
                db.rows(Sql(statement), **values)
            with pytest.raises(psycopg2.ProgrammingError), db.transaction() as transaction:
                transaction.execute(Sql(statement), values)
        assert db.connects == 1


def test_a_server_that_became_read_only_ends_the_connection(stand: Stand) -> None:
    with stand.db() as db:
        made = db.connects or (db.rows(Sql("SELECT 1")) and db.connects)
        stand.query(f"ALTER DATABASE {stand.database} SET default_transaction_read_only = on")
        db.close()
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            db.rows(Sql("DELETE FROM worker"))
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            schema.check_writable(db)
        stand.servers.admin(f"ALTER DATABASE {stand.database} RESET default_transaction_read_only")
        with contextlib.suppress(DatabaseUnavailable):
            # The connection that was made meanwhile.
            db.rows(Sql("DELETE FROM worker"))
        db.rows(Sql("DELETE FROM worker"))
        assert db.connects > made


def test_utf_8_is_asked_for_whatever_environment_and_role_would_have(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    stand.query(f"ALTER ROLE postgres IN DATABASE {stand.database} SET client_encoding = 'SQL_ASCII'")
    made = stand.submit("→ 漢字 🎉", "qwen")
    assert stand.batch(made.batch_id).prompt == "→ 漢字 🎉"


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_is_refused_before_anything_is_made(stand: Stand, encoding: str) -> None:
    name = f"{stand.database}_e"
    stand.servers.admin(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
    db = Database(stand.servers.dsn(name))
    with pytest.raises(SchemaMismatch, match=f"encoding is {encoding}.*createdb"):
        schema.upgrade(db)
    assert schema.current(db) is None
    db.close()
    stand.servers.admin(f"DROP DATABASE {name}")


def test_a_submission_whose_reply_is_lost_is_looked_up_and_found(stand: Stand, cut: Any) -> None:
    way = cut(at=b"INSERT INTO batch", answered=True)
    with stand.streams() as streams:
        db = Database(way.url)
        made = submit(db, streams, plan(Request(prompt="p", models=["qwen", "gemini"]), stand.settings))
        db.close()
    assert way.left == 0
    assert [task.id for task in stand.batch(made.batch_id).tasks] == list(made.task_ids)
    assert stand.query("SELECT count(*) FROM batch") == [(1,)]


def test_a_submission_that_may_be_stored_is_named_when_the_server_stays_away(
    stand: Stand, cut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "SETTLE_S", 0.6)
    way = cut(at=b"INSERT INTO batch", answered=True)
    db = Database(way.url)
    db.rows(Sql("SELECT 1"))
    way.refuses = True
    with stand.streams() as streams, pytest.raises(MayBeStored) as caught:
        submit(db, streams, plan(Request(prompt="p", models=["qwen"]), stand.settings))
    assert stand.query("SELECT id::text FROM batch") == [(caught.value.batch_id,)]
    assert caught.value.batch_id in str(caught.value)
    assert "nothing was submitted" not in str(caught.value)
    db.close()


def test_nothing_was_submitted_is_said_where_it_is_known(stand: Stand) -> None:
    db = Database("postgresql://u@127.0.0.1:1/x", timeout_s=1)
    with stand.streams() as streams, pytest.raises(DatabaseUnavailable, match="nothing was submitted"):
        submit(db, streams, plan(Request(prompt="p", models=["qwen"]), stand.settings))


class _NoHints:
    async def discard(self, hints: Any, resend: Any = ()) -> None:
        return None


def _held(stand: Stand, db: Database, count: int) -> tuple[Holdings, list[Claimed]]:
    made = stand.submit("p", *["qwen", "gemini", "deepseek"][:count])
    stand.query("UPDATE task SET status = 3, attempt = 1, lease_until = now() + interval '1 min'")
    held = Holdings()
    tasks = [
        Claimed(task_id, made.batch_id, made.conversation_id, "m", "qwen", 1, 0, 0, 0, "p", None, {}, ())
        for task_id in made.task_ids
    ]
    for task in tasks:
        held.add(Holding(task, None))
    return held, tasks


@pytest.mark.parametrize("fault", ["trigger", "bug"])
def test_no_exception_of_one_rows_recording_ends_more_than_that_row(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    with stand.db() as db:
        held, tasks = _held(stand, db, 3)
        bad = tasks[1].id
        if fault == "trigger":
            stand.query(
                "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$BEGIN IF NEW.id = '{bad}' THEN RAISE check_violation; END IF; RETURN NEW; END$$;"
                "CREATE TRIGGER no BEFORE UPDATE ON task FOR EACH ROW EXECUTE FUNCTION no()"
            )
        else:
            from shared.store import work

            real = work.record

            def record(db: Database, results: Any) -> Any:
                if any(result.id == bad and result.outcome == "answered" for result in results):
                    raise UnicodeEncodeError("latin-1", "→", 0, 1, "no such character")
                return real(db, results)

            monkeypatch.setattr(work, "record", record)

        async def scenario() -> None:
            recorder = Recorder(db, _NoHints(), held)  # type: ignore[arg-type]
            running = asyncio.create_task(recorder.run())
            for task in tasks:
                recorder.put(
                    Finished(id=task.id, attempt=1, status=TaskStatus.SUCCESS, outcome="answered", response_text="→")
                )
            await asyncio.wait_for(recorder.drained(), 20)
            assert not running.done()
            running.cancel()

        asyncio.run(scenario())
        found = dict(stand.query("SELECT id::text, status FROM task"))
        assert [found[task.id] for task in tasks] == [1, 3 if fault == "trigger" else 2, 1]
        assert len(held) == 0


def test_a_worker_has_its_limits_below_a_third_of_the_lease_and_readers_have_none(stand: Stand) -> None:
    asked = Sql("SELECT current_setting('idle_in_transaction_session_timeout') AS idle")
    for profile, idle in (
        (Profile.hot(lease_s=30), "8571ms"),
        (Profile.hot(lease_s=1), "2s"),
        (Profile.reading(), "0"),
    ):
        db = Database(stand.settings.database_dsn, profile=profile)
        assert db.rows(asked) == [{"idle": idle}]
        db.close()
