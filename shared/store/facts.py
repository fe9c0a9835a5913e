"""What a PostgreSQL server promises: what `doctor` has to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from shared.store.engine import Database, Sql

_FACTS = Sql("""
SELECT current_setting('server_version') AS version, current_setting('fsync') = 'on' AS fsync,
       current_setting('full_page_writes') = 'on' AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS connections,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int AS in_use,
       (SELECT count(*) FROM pg_stat_replication)::int AS standbys,
       current_setting('synchronous_standby_names') <> '' AS waits_for_standby,
       pg_is_in_recovery() AS standby, current_setting('transaction_read_only')::boolean AS read_only
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """A server's settings that decide what "accepted" means. `pooled`: whether a pooler is in between."""

    version: str
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    connections: int
    in_use: int
    standbys: int
    waits_for_standby: bool
    standby: bool
    read_only: bool
    pooled: bool


def facts(db: Database) -> ServerFacts:
    """Ask a server."""
    (found,) = db.rows(_FACTS)
    return ServerFacts(**found, pooled=db.pooled)


def installation(db: Database) -> str:
    """Name an installation: the server's own number and the database's, and its name for people.

    Standbys and what is restored from a base backup are the same installation.
    """
    (found,) = db.rows(_INSTALLATION)
    return f"{found['system']}.{found['database']} {found['name']}"


_INSTALLATION = Sql("""
SELECT (SELECT system_identifier FROM pg_control_system()) AS system, oid::bigint AS database, datname AS name
FROM pg_database WHERE datname = current_database()
""")
