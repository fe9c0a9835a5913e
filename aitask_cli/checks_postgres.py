"""What PostgreSQL's settings cost, in one line each. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from aitask_cli.checks import Check, Level
from shared.store.facts import ServerFacts

# A worker's, as the design says; the gateway's and a few commands' besides.
_CONNECTIONS_EACH = 4
_CONNECTIONS_BESIDES = 12


def about(facts: ServerFacts, *, workers: int) -> Iterator[Check]:
    """Say what a server's settings cost; one that costs nothing is said to be fine."""
    if facts.standby:
        yield _warning(
            "writes", "this server is a standby, in recovery: nothing can be submitted",
            "name the primary in DATABASE_URL, or all hosts: host1:5432,host2:5432", Level.FAILURE,
        )  # fmt: skip
    elif facts.read_only:
        yield _warning(
            "writes", "this server is read-only: nothing can be submitted",
            "see default_transaction_read_only of the server, database and user", Level.FAILURE,
        )  # fmt: skip
    if not facts.fsync:
        yield _warning("fsync", "fsync is off: accepted does not survive a power cut", "ALTER SYSTEM SET fsync = on")
    if not facts.full_page_writes:
        yield _warning(
            "full_page_writes", "full_page_writes is off: a power cut may leave tables that can't be read",
            "ALTER SYSTEM SET full_page_writes = on",
        )  # fmt: skip
    if facts.synchronous_commit == "off":
        yield _warning(
            "synchronous_commit",
            "synchronous_commit is off: what was accepted in the last second does not survive a power cut",
            "ALTER SYSTEM SET synchronous_commit = on",
        )
    yield _replication(facts)
    yield _connections(facts, workers)


def _replication(facts: ServerFacts) -> Check:
    name = "postgresql replication"
    if facts.waits_for_standby and facts.synchronous_commit in ("on", "remote_apply"):
        return Check(name, Level.OK, "a commit waits for a standby: accepted survives the loss of the primary")
    if facts.standbys:
        return _warning(
            "replication",
            f"{facts.standbys} standby, and no commit waits for it: the last accepted may not survive the loss of the "
            "primary",
            "set synchronous_standby_names",
        )
    return Check(name, Level.OK, "no standby: accepted does not survive the loss of the primary and its disk")


def _connections(facts: ServerFacts, workers: int) -> Check:
    needed = workers * _CONNECTIONS_EACH + _CONNECTIONS_BESIDES
    between = ", a pooler in between" if facts.pooled else ""
    if facts.connections < needed and not facts.pooled:
        return _warning(
            "max_connections",
            f"{facts.connections} connections at most, {workers} workers and a gateway use up to {needed}: the last "
            "ones wait",
            "raise max_connections, or put PgBouncer in between",
        )
    return Check(
        "postgresql", Level.OK, f"version {facts.version}, {facts.in_use} of {facts.connections} connections{between}"
    )


def _warning(name: str, found: str, remedy: str, level: Level = Level.WARNING) -> Check:
    return Check(f"postgresql {name}", level, found, remedy)
