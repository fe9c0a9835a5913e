"""The way to PostgreSQL: statements, transactions, and what a pooler in between makes different."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn
from psycopg2.extras import NamedTupleCursor

from shared.postgres_url import parse_postgres_url
from shared.store.faults import NOT_OURS, STALE_PLAN, UnstorableData, is_lost, not_connected, refuses_data, translated
from shared.store.pool import Link, Pool
from shared.store.profile import READING_TIMEOUT_S, Profile
from shared.store.statements import Prepared, Sql, Statement, for_driver

__all__ = ["Database", "Prepared", "Profile", "Row", "Sql", "Transaction", "UnstorableData", "utc"]

T = TypeVar("T")
Row = Mapping[str, Any]


class Database:
    """A pool of connections with the profile of its user.

    Behind a pooler in transaction mode (PgBouncer) nothing is a connection's own: no start-up options, no prepared
    statements; every transaction begins with what it needs. That is found out by itself, or said.

    Args:
        dsn: URL, as people write it.
        connections: the most connections held.
        timeout_s: bound for connecting, for a lock and for a statement, in seconds, where no profile is given.
        name: what the connections call themselves in pg_stat_activity.
        pooled: whether a pooler stands in between; None: find out.
    """

    def __init__(
        self,
        dsn: str,
        *,
        connections: int = 2,
        timeout_s: float = READING_TIMEOUT_S,
        name: str = "aitask",
        profile: Profile | None = None,
        pooled: bool | None = None,
    ) -> None:
        url = parse_postgres_url(dsn)
        self.profile = profile or Profile.reading(timeout_s=timeout_s)
        self.name = name
        self._dsn = url.dsn
        self.pooled = bool(pooled) or url.pooled
        self._certain = self.pooled or pooled is False
        self._pool = Pool(self._connected, size=connections, timeout_s=self.profile.timeout_s)
        # Behind a pooler a server's connection would have the name of whoever had it first.
        local = {**self.profile.local, "application_name": _quotable(name)}
        settings = "; ".join(f"SET LOCAL {key} = '{value}'" for key, value in local.items())
        self._preamble = f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED; {settings}; "

    @property
    def connections(self) -> int:
        """The most connections held."""
        return self._pool.size

    @property
    def connects(self) -> int:
        """How many connections have been made: when it has grown, the server may be another."""
        return self._pool.made

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a transaction that commits at the end of the block.

        Raises:
            DatabaseUnavailable: PostgreSQL is away, refuses, or did not answer in time; `unknown` when it was the
                reply to the commit that did not come.
            SchemaMismatch: a table or column is missing.
            UnstorableData: the data itself was refused.
        """
        with self._link() as link:
            _say(link, f"BEGIN; {self._preamble}" if self.pooled else "BEGIN")
            try:
                yield Transaction(link)
            except BaseException:
                _roll_back(link)
                raise
            with self._link_errors(link, unknown=True):
                _say(link, "COMMIT")

    def rows(self, statement: Statement, **values: Any) -> list[Row]:
        """Run one statement, which commits by itself, and return its rows: one round trip."""

        def ask(link: Link) -> list[Row]:
            # Whether a pooler is in between is known once there is a connection.
            text = (self._preamble if self.pooled else "") + for_driver(statement.text)
            with contextlib.closing(link.raw.cursor()) as cursor:
                cursor.execute(text, values)
                if cursor.description is None:
                    return []
                names = [column.name for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        return self._on_link(ask)

    def run(self, statement: Prepared, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement of the hot path, which commits by itself, and return its rows: one round trip.

        Raises:
            DatabaseUnavailable: as `transaction`.
        """

        def ask(link: Link) -> list[tuple[Any, ...]]:
            with contextlib.closing(link.raw.cursor()) as cursor:
                cursor.execute(self._form(statement, link, cursor), values)
                return list(cursor.fetchall())

        return self._on_link(ask)

    def _form(self, statement: Prepared, link: Link, cursor: Any) -> str:
        if self.pooled:
            # Several statements in one string are one transaction.
            return self._preamble + statement.plain
        if statement.name in link.prepared:
            return statement.execute
        if statement.name not in link.seen:
            # To prepare what is said once, as most commands do, would be a round trip for nothing.
            link.seen.add(statement.name)
            return statement.plain
        cursor.execute(statement.prepare)
        link.prepared.add(statement.name)
        return statement.execute

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._pool.close()

    @contextmanager
    def raw(self) -> Iterator[Any]:
        """A driver's connection, for what only the driver can do (migrations)."""
        with self._link() as link:
            yield link.raw

    def room(self) -> int:
        """How many of the connections this may hold the server hands out at the same time, waiting for each at most
        as long as for a statement.

        Raises:
            DatabaseUnavailable: not even one.
        """
        found: list[int] = []
        enough = threading.Event()
        threads = [
            threading.Thread(target=self._hold, args=(found, enough), daemon=True) for _ in range(self._pool.size)
        ]
        for thread in threads:
            thread.start()
        end = _deadline(min(3.0, self.profile.timeout_s))
        while len(found) < self._pool.size and end() > 0 and any(thread.is_alive() for thread in threads):
            enough.wait(0.01)
        # Counted before any lets go, and another has its turn.
        count = len(found)
        enough.set()
        return count

    def _hold(self, found: list[int], enough: threading.Event) -> None:
        """Hold a transaction open until it is known how many are at the same time."""
        with contextlib.suppress(Exception), self.transaction() as transaction:
            found.append(transaction.scalar(Sql("SELECT 1")))
            enough.wait()

    def _on_link(self, ask: Callable[[Link], T]) -> T:
        """Ask on a connection; once more on another where this one knows other statements than we thought."""
        try:
            with self._link(unknown=True, once_more=True) as link:
                return ask(link)
        except _OnceMore:
            with self._link(unknown=True) as link:
                return ask(link)

    @contextmanager
    def _link(self, *, unknown: bool = False, once_more: bool = False) -> Iterator[Link]:
        link = self._pool.take()
        try:
            with self._link_errors(link, unknown=unknown, once_more=once_more):
                yield link
        finally:
            self._pool.give(link)

    @contextmanager
    def _link_errors(self, link: Link, *, unknown: bool, once_more: bool = False) -> Iterator[None]:
        try:
            yield
        except psycopg2.Error as error:
            if error.pgcode in NOT_OURS or error.pgcode == STALE_PLAN:
                # The statement was not run. Its name is forgotten, for good where a pooler must be in between.
                link.close()
                if error.pgcode in NOT_OURS:
                    self.pooled = self._certain = True
                if once_more:
                    raise _OnceMore from error
            lost = is_lost(error, link.raw)
            if lost:
                self._pool.distrust(link)
            raise translated(error, lost=lost, unknown=unknown) from error

    def _connected(self) -> Any:
        """Make a connection; find out first whether a pooler lets it have what it needs."""
        try:
            if self.pooled:
                return self._connect(options=False)
            try:
                raw = self._connect(options=True)
            except psycopg2.OperationalError as error:
                # PgBouncer's words; before there is a connection, libpq hands on no code.
                if "unsupported startup parameter" not in str(error):
                    raise
                self.pooled = self._certain = True
                return self._connect(options=False)
            if not self._certain:
                # A pooler may also be told to ignore them.
                self.pooled = not _has(raw, self.profile.session)
                self._certain = True
            return raw
        except psycopg2.Error as error:
            raise not_connected(error) from error

    def _connect(self, *, options: bool) -> Any:
        given = parse_dsn(self._dsn)
        # Text is UTF-8 here, whatever the environment, the role or the database would rather have.
        ours = {**self.profile.client, "application_name": self.name[:63], "client_encoding": "UTF8"}
        ours = {key: value for key, value in ours.items() if key not in given or key == "client_encoding"}
        if options:
            settings = [f"-c {key}={value.replace(' ', chr(92) + ' ')}" for key, value in self.profile.session.items()]
            ours["options"] = " ".join([given.get("options", ""), *settings]).strip()
        raw = psycopg2.connect(make_dsn(self._dsn, **ours))
        # One statement a transaction; `transaction` says BEGIN itself.
        raw.autocommit = True
        return raw


class Transaction:
    """An open transaction: statements, and COPY."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def execute(self, statement: Statement, values: Mapping[str, Any] | None = None) -> Rows:
        """Run a statement and return its rows."""
        with contextlib.closing(self._link.raw.cursor(cursor_factory=NamedTupleCursor)) as cursor:
            cursor.execute(for_driver(statement.text), values or {})
            return Rows(cursor.fetchall() if cursor.description else [])

    def scalar(self, statement: Statement, values: Mapping[str, Any] | None = None) -> Any:
        """Run a statement and return the first column of its first row, or None."""
        row = self.execute(statement, values).first()
        return None if row is None else row[0]

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of the transaction: when its data is refused, it alone is undone.

        Raises:
            UnstorableData: it was.
        """
        _say(self._link, "SAVEPOINT part")
        try:
            yield
        except psycopg2.Error as error:
            if not refuses_data(error):
                raise
            _say(self._link, "ROLLBACK TO SAVEPOINT part")
            raise translated(error, lost=False) from error
        _say(self._link, "RELEASE SAVEPOINT part")

    def copy(self, statement: str, lines: Any, *, size: int) -> None:
        """Run COPY … FROM STDIN."""
        with contextlib.closing(self._link.raw.cursor()) as cursor:
            cursor.copy_expert(statement, lines, size=size)


class Rows(list[Any]):
    """Rows whose columns are attributes."""

    def all(self) -> list[Any]:
        return self

    def first(self) -> Any:
        return self[0] if self else None

    def one(self) -> Any:
        (row,) = self
        return row

    def scalars(self) -> list[Any]:
        return [row[0] for row in self]

    def mappings(self) -> Mappings:
        return Mappings(row._asdict() for row in self)


class Mappings(list[Row]):
    """Rows by their columns' names."""

    def all(self) -> list[Row]:
        return self

    def first(self) -> Row | None:
        return self[0] if self else None


class _OnceMore(Exception):
    """The connection knew other statements than we thought."""


def _quotable(name: str) -> str:
    """A name that stands between quotes as it is, with values of the driver's or without."""
    return "".join(char for char in name[:63] if char.isascii() and char not in "'\\%" and char.isprintable())


def _say(link: Link, text: str) -> None:
    with contextlib.closing(link.raw.cursor()) as cursor:
        cursor.execute(text)


def _roll_back(link: Link) -> None:
    """Roll back; a connection that can't is closed, which does the same."""
    try:
        _say(link, "ROLLBACK")
    except psycopg2.Error:
        link.close()


def _has(raw: Any, wanted: Mapping[str, str]) -> bool:
    with contextlib.closing(raw.cursor()) as cursor:
        cursor.execute("SELECT current_setting('plan_cache_mode'), current_setting('default_transaction_isolation')")
        return bool(cursor.fetchone() == (wanted["plan_cache_mode"], wanted["default_transaction_isolation"]))


def _deadline(seconds: float) -> Callable[[], float]:
    import time

    end = time.monotonic() + seconds
    return lambda: end - time.monotonic()


def utc(value: dt.datetime) -> dt.datetime:
    """Return a time from the database as UTC."""
    return value.astimezone(dt.timezone.utc)
