"""Alembic's environment: runs the scripts on the connection it is handed, each in a transaction of its own.

An index on a table in use is built CONCURRENTLY, which no transaction may be around.
"""

from alembic import context

from shared.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
