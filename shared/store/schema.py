"""Setting the database up: create, upgrade, report, reset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from shared.errors import SchemaMismatch
from shared.migrations import HEAD
from shared.store.engine import Database

if TYPE_CHECKING:
    from alembic.config import Config

# Any fixed number: two processes that set one database up at once must meet on the same lock.
_SETUP_LOCK = 0x6169_7461_736B


def current(db: Database) -> str | None:
    """Return the database's revision, or None when it has no aitask tables."""
    with db.transaction() as connection:
        return _current(connection)


def _current(connection: sa.Connection) -> str | None:
    if connection.scalar(sa.text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return revision


def check(db: Database) -> None:
    """Refuse to work with tables of another version.

    Raises:
        SchemaMismatch: the tables are missing, older or newer; the remedy is named.
    """
    revision = current(db)
    if revision == HEAD:
        return
    if revision is None:
        raise SchemaMismatch("the database has no aitask tables", remedy="run: aitask db init")
    remedy = "run: aitask db upgrade" if revision < HEAD else "install the newer aitask that made it"
    raise SchemaMismatch(f"the database is at revision {revision}, this aitask needs {HEAD}", remedy=remedy)


def upgrade(db: Database) -> tuple[str | None, str]:
    """Create the tables or bring them to this version; never destroys. Returns the revisions before and after."""
    from alembic import command

    with db.transaction() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SETUP_LOCK})
        before = _current(connection)
        if before is not None and before > HEAD:
            raise SchemaMismatch(
                f"the database is at revision {before}, newer than {HEAD}", remedy="install the newer aitask"
            )
        if before != HEAD:
            # A migration may take longer than any statement of the running system.
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            command.upgrade(_alembic(connection), "head")
            if _current(connection) != HEAD:
                raise SchemaMismatch(f"the migrations up to {HEAD} are not installed", remedy="install aitask anew")
        return before, HEAD


def reset(db: Database) -> None:
    """Drop every aitask table, with all history, and create them anew."""
    from shared.tables import metadata

    with db.transaction() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SETUP_LOCK})
        metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE IF EXISTS alembic_version"))
    upgrade(db)


def _alembic(connection: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    config.attributes["connection"] = connection
    return config
